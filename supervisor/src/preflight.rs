//! What has to be there before anything is touched. Each finding names what is missing and the
//! command that mends it.

use std::path::{Path, PathBuf};

use crate::access::{self, ControlGroup};
use crate::command::{Run, Whereabouts};
use crate::{capabilities, mounts, proc_status};

/// The oldest kernel: `bpf_set_retval`, with which a refused connection gets the configured errno,
/// came with it.
pub const OLDEST_KERNEL: (u32, u32) = (5, 18);

/// Where users are looked up. The name service is not asked: it would load its modules into this
/// process for good.
const PASSWD: &str = "/etc/passwd";
/// Where groups are.
const GROUP: &str = "/etc/group";

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Something to set up.
    #[error("{what}\n  to mend it: {mend}")]
    Setup {
        /// What was looked for and not found.
        what: String,
        /// How to mend it.
        mend: String,
    },
    /// A privilege.
    #[error("{what}\n  to mend it: {mend}")]
    Privilege {
        /// What is not allowed.
        what: String,
        /// How to mend it.
        mend: String,
    },
}

fn setup(what: impl Into<String>, mend: impl Into<String>) -> Missing {
    Missing::Setup { what: what.into(), mend: mend.into() }
}

/// Checks everything `run` needs; the governed cgroup.
///
/// # Errors
///
/// The first thing that is missing.
pub fn check_run(run: &Run) -> Result<PathBuf, Missing> {
    if run.config.as_os_str().is_empty() {
        return Err(setup("--config is empty", "give the path of a file or a directory"));
    }
    check_user(&run.worker_user, run.allow_root_worker, std::fs::read_to_string(PASSWD).ok())?;
    control_group(run)?;
    let cgroup = check_machine(&run.whereabouts)?;
    let worker = run.whereabouts.worker_binary();
    if !worker.is_file() && !run.whereabouts.places().has_pins() {
        return Err(missing_worker(&worker));
    }
    Ok(cgroup)
}

/// The group whose members may ask questions, if one was given.
///
/// # Errors
///
/// When there is no such group.
pub fn control_group(run: &Run) -> Result<Option<ControlGroup>, Missing> {
    let Some(given) = run.control_group.as_deref() else { return Ok(None) };
    let database = std::fs::read_to_string(GROUP).ok();
    access::find_group(given, database.as_deref()).map(Some).ok_or_else(|| {
        setup(
            format!("--control-group {given}: there is no such group in {GROUP}"),
            format!("groupadd --system {given}, or give a number"),
        )
    })
}

/// Checks that this process may do what a supervisor does.
///
/// # Errors
///
/// The first privilege that is missing.
pub fn check_privilege() -> Result<(), Missing> {
    let privileges = proc_status::of(std::process::id()).unwrap_or_default();
    check_privileges(privileges.uid, privileges.effective)
}

/// Checks what the kernel has to offer; the governed cgroup.
fn check_machine(whereabouts: &Whereabouts) -> Result<PathBuf, Missing> {
    let release = nix::sys::utsname::uname();
    let release = release.as_ref().map(|uname| uname.release().to_string_lossy().into_owned());
    check_kernel(&release.unwrap_or_default())?;
    let cgroup = find_cgroup(whereabouts.cgroup.as_deref())?;
    check_bpffs(&whereabouts.bpffs)?;
    Ok(cgroup)
}

/// What to say about a worker binary that is not there, or that root cannot get at without
/// `CAP_DAC_OVERRIDE`, which has been given up.
#[must_use]
pub fn missing_worker(worker: &Path) -> Missing {
    let found = std::fs::metadata(worker).map_err(|error| error.kind());
    if found.is_err_and(|kind| kind == std::io::ErrorKind::PermissionDenied) {
        return setup(
            format!("the worker binary {} is in a directory closed to root", worker.display()),
            "install holdfast-worker in a directory that root owns or everybody may enter: holdfast \
             gives up CAP_DAC_OVERRIDE",
        );
    }
    setup(
        format!("there is no worker binary at {}", worker.display()),
        "install holdfast-worker there, or say where it is with --worker PATH",
    )
}

fn check_privileges(uid: u32, effective: u64) -> Result<(), Missing> {
    if uid != 0 {
        return Err(Missing::Privilege {
            what: format!("holdfast runs as user {uid}, and needs to be root"),
            mend:
                "sudo holdfast …  (the worker, which talks to the outside, drops to its own user)"
                    .to_owned(),
        });
    }
    let is_missing =
        |needed: &&capabilities::Needed| effective & proc_status::bit(needed.name) == 0;
    let Some(needed) = capabilities::NEEDED.iter().find(is_missing) else { return Ok(()) };
    let name = needed.name.to_uppercase();
    Err(Missing::Privilege {
        what: format!("the capability CAP_{name} is missing: {}", needed.purpose),
        mend: format!(
            "add CAP_{name}: docker run --cap-add {name}, Kubernetes \
             securityContext.capabilities.add, or systemd CapabilityBoundingSet"
        ),
    })
}

fn check_kernel(release: &str) -> Result<(), Missing> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = numbers.next().and_then(Result::ok).zip(numbers.next().and_then(Result::ok));
    let (major, minor) = OLDEST_KERNEL;
    // A release this cannot read is newer than this code; the loader will find out.
    if version.is_some_and(|version| version < OLDEST_KERNEL) {
        return Err(setup(
            format!("this kernel is {release}; refusing a connection needs {major}.{minor}"),
            format!("boot a kernel of {major}.{minor} or newer"),
        ));
    }
    Ok(())
}

fn find_cgroup(given: Option<&Path>) -> Result<PathBuf, Missing> {
    if let Some(given) = given {
        return if mounts::is_cgroup2(given) {
            Ok(given.to_owned())
        } else if given.exists() {
            Err(setup(
                format!("--cgroup {} is not a directory of a cgroup2 mount", given.display()),
                "give a directory below the mount that `findmnt -t cgroup2` names",
            ))
        } else {
            Err(setup(
                format!("--cgroup {} does not exist", given.display()),
                format!("mkdir {}", given.display()),
            ))
        };
    }
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts::cgroup2(&mountinfo).ok_or_else(|| {
        setup(
            "no cgroup2 is mounted here, so there is nothing to attach to",
            "mount -t cgroup2 none /sys/fs/cgroup  (in a container, mount the host's: \
             -v /sys/fs/cgroup:/sys/fs/cgroup)",
        )
    })
}

fn check_bpffs(bpffs: &Path) -> Result<(), Missing> {
    if mounts::is_bpffs(bpffs) {
        return Ok(());
    }
    let path = bpffs.display();
    let make = if bpffs.exists() { String::new() } else { format!("mkdir -p {path} && ") };
    Err(setup(
        format!("no bpffs is mounted at {path}, so governance could not outlive this process"),
        format!("{make}mount -t bpf bpf {path}"),
    ))
}

fn check_user(user: &str, allow_root: bool, passwd: Option<String>) -> Result<(), Missing> {
    let uid = user.parse::<u32>().ok().or_else(|| {
        let passwd = passwd?;
        let mut entries = passwd.lines().map(|line| line.split(':'));
        let mut entry = entries.find_map(|mut entry| (entry.next()? == user).then_some(entry))?;
        entry.nth(1)?.parse().ok()
    });
    match uid {
        Some(0) if !allow_root => Err(setup(
            format!("--worker-user {user} is root, and what talks to the outside must not be"),
            "name another user, or insist with --allow-root-worker",
        )),
        Some(_) => Ok(()),
        None => Err(setup(
            format!("--worker-user {user}: there is no such user in {PASSWD}"),
            format!("useradd --system --no-create-home {user}, or give a number"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_setup(result: Result<(), Missing>) -> bool {
        matches!(result, Err(Missing::Setup { .. }))
    }

    #[test]
    fn kernels_are_compared_by_number() {
        for good in ["5.18.0", "5.18", "6.1.0-13-amd64", "10.0-rc1", "6.18.44-fc", "next"] {
            assert_eq!(check_kernel(good), Ok(()), "{good}");
        }
        for bad in ["5.17.15", "5.9.0", "4.19.0-26-amd64"] {
            assert!(is_setup(check_kernel(bad)), "{bad}");
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\ntoor:x:0:0\n";
        let check = |user, allow| check_user(user, allow, Some(passwd.to_owned()));
        assert_eq!(check("nobody", false), Ok(()));
        assert_eq!(check("65534", false), Ok(()));
        assert_eq!(check_user("65534", false, None), Ok(()));
        for root in ["root", "toor", "0", "000"] {
            assert!(is_setup(check(root, false)), "{root}");
            assert_eq!(check(root, true), Ok(()), "{root}");
        }
        for unknown in ["", "x", "nobody:x", "-1", "4294967296"] {
            assert!(is_setup(check(unknown, true)), "{unknown}");
        }
        assert!(is_setup(check_user("nobody", false, None)));
    }

    #[test]
    fn each_missing_capability_is_named() {
        let all = u64::MAX;
        assert_eq!(check_privileges(0, all), Ok(()));
        assert!(matches!(check_privileges(1000, all), Err(Missing::Privilege { .. })));
        for needed in &capabilities::NEEDED {
            let without = all & !proc_status::bit(needed.name);
            let Err(Missing::Privilege { what, .. }) = check_privileges(0, without) else {
                panic!("{} is not missed", needed.name)
            };
            assert!(what.contains(&needed.name.to_uppercase()), "{what}");
        }
        assert_eq!(check_privileges(0, capabilities::needed()), Ok(()), "no other is asked for");
    }

    #[test]
    fn a_missing_mount_is_named_with_its_command() {
        let Err(Missing::Setup { what, mend }) = check_bpffs(Path::new("/proc")) else {
            panic!("/proc is no bpffs")
        };
        assert!(what.contains("/proc"), "{what}");
        assert_eq!(mend, "mount -t bpf bpf /proc");
        assert!(is_setup(find_cgroup(Some(Path::new("/proc"))).map(drop)));
        assert!(is_setup(find_cgroup(Some(Path::new("/nonexistent"))).map(drop)));
    }
}
