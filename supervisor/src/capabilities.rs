//! What this process may do, beside being root: exactly what is [`NEEDED`], and for every child it
//! starts no more than that. What `execve(2)` gives to root is the bounding set, so a smaller one is
//! final for this process, its loader, its workers and its successors.
#![expect(unsafe_code, reason = "capset(2) and the bounding set have no wrapper")]

use nix::errno::Errno;

use crate::proc_status;

/// A capability that is kept.
#[derive(Debug)]
pub struct Needed {
    /// Its name, in lower case and without `cap_`.
    pub name: &'static str,
    /// What for.
    pub purpose: &'static str,
}

/// All that is kept: without one of them something fails, on this kernel or on an older one that is
/// supported. `CAP_BPF` and `CAP_PERFMON` are not needed beside `CAP_SYS_ADMIN`, which contains them.
pub const NEEDED: [Needed; 6] = [
    Needed { name: "sys_admin", purpose: "to load programs, and to find bpf objects by id" },
    Needed { name: "net_admin", purpose: "to attach programs to connect(2), and to list them" },
    Needed { name: "setuid", purpose: "for the worker to become its own user" },
    Needed { name: "setgid", purpose: "for the worker to become its own group" },
    Needed { name: "setpcap", purpose: "to give up capabilities, here and in the worker" },
    Needed { name: "kill", purpose: "to end a worker, which is another user's process" },
];

/// Why this process may do more than it needs.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The kernel refused.
    #[error("cannot {step}: {source}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The kernel did not refuse, and yet.
    #[error("gave up every capability that is not needed, but the kernel still names {0}")]
    Remains(String),
    /// The kernel does not say.
    #[error("cannot read what capabilities are left in /proc/self/status; is /proc mounted?")]
    Unreadable,
}

/// The needed ones, a bit each.
#[must_use]
pub fn needed() -> u64 {
    NEEDED.iter().fold(0, |set, needed| set | proc_status::bit(needed.name))
}

/// Gives up, for good, whatever is not needed, and makes sure that it is gone.
///
/// # Errors
///
/// When something is left, or it cannot be known.
pub fn keep_only_needed() -> Result<(), CapabilityError> {
    let held = own()?;
    // The bounding set first: it takes a capability that a caller may have left in no other set.
    drop_from_bounding_set(held.capabilities & !needed())?;
    set(held.effective & needed())?;
    let left = own()?.capabilities & !needed();
    if left == 0 {
        Ok(())
    } else {
        Err(CapabilityError::Remains(proc_status::names(left).join(", ")))
    }
}

fn own() -> Result<proc_status::Privileges, CapabilityError> {
    proc_status::of(std::process::id()).ok_or(CapabilityError::Unreadable)
}

fn drop_from_bounding_set(capabilities: u64) -> Result<(), CapabilityError> {
    for number in (0..u64::BITS).filter(|number| capabilities & (1 << number) != 0) {
        let number = libc::c_ulong::from(number);
        let unused: libc::c_ulong = 0;
        // SAFETY: this option takes a number and no address.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, unused, unused, unused) };
        Errno::result(answer).map_err(|source| CapabilityError::Refused {
            step: "reduce the bounding set of capabilities",
            source,
        })?;
    }
    Ok(())
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0: this thread, which is the only one.
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`: 32 capabilities of each set.
#[repr(C)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes `capabilities` the permitted and the effective ones, and none inheritable; the kernel takes
/// what is not inheritable out of the ambient set.
fn set(capabilities: u64) -> Result<(), CapabilityError> {
    let mut header = Header { version: VERSION, pid: 0 };
    let word = |shift: u32| {
        let set = u32::try_from(capabilities >> shift & u64::from(u32::MAX)).expect("32 bits");
        Word { effective: set, permitted: set, inheritable: 0 }
    };
    let words = [word(0), word(32)];
    // SAFETY: both point to live structs of the layout that version 3 asks for.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(answer)
        .map(drop)
        .map_err(|source| CapabilityError::Refused { step: "reduce the capabilities", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_by_its_name_and_needed_once() {
        assert!(NEEDED.iter().all(|needed| proc_status::bit(needed.name) != 0));
        assert_eq!(needed().count_ones() as usize, NEEDED.len());
    }

    #[test]
    fn the_documentation_lists_them_in_this_order() {
        let text = include_str!("../../docs/security.md");
        let (_, section) =
            text.split_once("## The supervisor's capabilities\n").expect("a section");
        let section = section.split("\n## ").next().expect("a beginning");
        let listed: Vec<_> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `CAP_")?.split_once('`'))
            .map(|(name, _)| name.to_lowercase())
            .collect();
        assert_eq!(listed, NEEDED.map(|needed| needed.name));
    }
}
