//! What the kernel says about a process's user and privileges, in `/proc/<pid>/status`.

/// A process's user and privileges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Its effective user id.
    pub uid: u32,
    /// The union of its five capability sets, a bit each.
    pub capabilities: u64,
    /// Its effective capabilities.
    pub effective: u64,
    /// Whether executing a file can give it none.
    pub no_new_privs: bool,
}

/// Names of the capabilities, by number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// What `text`, the content of a `status` file, says. What is missing counts as nothing held.
#[must_use]
pub fn parse(text: &str) -> Privileges {
    let mut found = Privileges::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let mut words = value.split_ascii_whitespace();
        match key {
            // Real, effective, saved, file system.
            "Uid" => found.uid = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0),
            "CapInh" | "CapPrm" | "CapEff" | "CapBnd" | "CapAmb" => {
                let set = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
                let set = set.unwrap_or(0);
                found.capabilities |= set;
                if key == "CapEff" {
                    found.effective = set;
                }
            }
            "NoNewPrivs" => found.no_new_privs = words.next() == Some("1"),
            _ => {}
        }
    }
    found
}

/// The privileges of process `pid`; `None` when there is no such process.
#[must_use]
pub fn of(pid: u32) -> Option<Privileges> {
    Some(parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
}

/// The names of the capabilities in `set`; those this build has no name for by number.
#[must_use]
pub fn names(set: u64) -> Vec<String> {
    (0..u64::BITS as usize)
        .filter(|bit| set & (1 << bit) != 0)
        .map(|bit| {
            let name = NAMES.get(bit).map_or_else(|| bit.to_string(), |name| (*name).to_owned());
            format!("cap_{name}")
        })
        .collect()
}

/// The set that holds exactly the capability `name`, given without `cap_`.
#[must_use]
pub fn bit(name: &str) -> u64 {
    NAMES.iter().position(|known| *known == name).map_or(0, |bit| 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_counts() {
        for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let found = parse(&format!("Uid:\t1\t2\t3\t4\n{key}:\t0000008000001000\n"));
            assert_eq!(names(found.capabilities), ["cap_net_admin", "cap_bpf"], "{key}");
            assert_eq!(found.uid, 2);
        }
        assert_eq!(names(parse("CapEff:\t0000000000000000\n").capabilities), [""; 0]);
        assert_eq!(names(1 << 63), ["cap_63"]);
    }

    #[test]
    fn this_process_is_found() {
        let found = of(std::process::id()).expect("it runs");
        assert_eq!(found.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(of(u32::MAX), None);
    }

    #[test]
    fn names_and_bits_agree_with_the_kernel_s_numbers() {
        assert_eq!(bit("kill"), 1 << 5);
        assert_eq!(bit("sys_admin"), 1 << 21);
        assert_eq!(bit("bpf"), 1 << 39);
        assert_eq!(bit("unheard_of"), 0);
    }
}
