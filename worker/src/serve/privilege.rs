//! Giving up every privilege, for good, and making sure that it is gone.
//!
//! The supervisor starts a worker as root. Before the worker reads anything that somebody else
//! wrote, it becomes its own user, without supplementary groups, with all five capability sets empty
//! and unable to gain any by executing a file. What the kernel says afterwards is compared with
//! that; on any difference the process ends.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Pid, Uid, User, getgroups, getppid, getresgid, getresuid, setgroups, setresgid, setresuid,
};

/// Nothing this process creates is for anybody else.
const UMASK: Mode = Mode::from_bits_truncate(0o077);

/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Highest number a capability can have in the two words of version 3. The kernel refuses those it
/// does not know with `EINVAL`.
const MAX_CAPABILITIES: u32 = 64;

/// Who the worker becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As given on the command line, for people.
    pub name: String,
    uid: Uid,
    gid: Gid,
}

/// Why the privileges could not be given up; the process has to end.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// No such user.
    #[error("there is no user {0:?}; name another one with --worker-user, by name or number")]
    UnknownUser(String),
    /// The user is root.
    #[error(
        "user {0:?} is root; a worker runs without privilege. Name another user with \
         --worker-user, or accept this one with --allow-root"
    )]
    Root(String),
    /// The kernel refused.
    #[error(
        "cannot give up privileges: {step}: {source}. It takes root, or CAP_SETUID, CAP_SETGID and \
         CAP_SETPCAP"
    )]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The kernel did not refuse, and yet.
    #[error("privileges were given up, but {0} remains")]
    Remains(&'static str),
    /// The supervisor is gone.
    #[error("the supervisor ended while this worker started")]
    Orphaned,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (uid {})", self.name, self.uid)
    }
}

impl Identity {
    /// The user called `name`, or the one with that number.
    ///
    /// A number without an entry in the user database is its own group as well.
    ///
    /// # Errors
    ///
    /// When there is no such user, or it is root and `allow_root` is not set.
    pub fn resolve(name: &str, allow_root: bool) -> Result<Self, PrivilegeError> {
        let refused = |source| PrivilegeError::Refused { step: "look up the user", source };
        let found = match name.parse::<u32>() {
            Ok(number) => User::from_uid(Uid::from_raw(number))
                .map_err(refused)?
                .map_or((Uid::from_raw(number), Gid::from_raw(number)), |user| {
                    (user.uid, user.gid)
                }),
            Err(_) => User::from_name(name)
                .map_err(refused)?
                .map(|user| (user.uid, user.gid))
                .ok_or_else(|| PrivilegeError::UnknownUser(name.to_owned()))?,
        };
        let (uid, gid) = found;
        // The all-ones number means "leave it as it is" to setresuid(2).
        if uid.as_raw() == u32::MAX {
            return Err(PrivilegeError::UnknownUser(name.to_owned()));
        }
        if uid.is_root() && !allow_root {
            return Err(PrivilegeError::Root(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), uid, gid })
    }

    /// Becomes this user, without any privilege.
    ///
    /// # Errors
    ///
    /// Any [`PrivilegeError`]: the process must not go on then.
    pub fn assume(&self) -> Result<(), PrivilegeError> {
        let supervisor = getppid();
        // First, because it takes the capability that goes with the rest.
        drop_bounding_set()?;
        step("leave the groups", setgroups(&[]))?;
        step("change the group", setresgid(self.gid, self.gid, self.gid))?;
        step("change the user", setresuid(self.uid, self.uid, self.uid))?;
        clear_ambient_set()?;
        clear_capabilities()?;
        step("set no_new_privs", prctl::set_no_new_privs())?;
        umask(UMASK);
        stay_with(supervisor)?;
        self.verify()
    }

    fn verify(&self) -> Result<(), PrivilegeError> {
        let users = getresuid().map_err(refused("read the user"))?;
        if [users.real, users.effective, users.saved] != [self.uid; 3] {
            return Err(PrivilegeError::Remains("another user"));
        }
        let groups = getresgid().map_err(refused("read the group"))?;
        if [groups.real, groups.effective, groups.saved] != [self.gid; 3] {
            return Err(PrivilegeError::Remains("another group"));
        }
        if !getgroups().map_err(refused("read the groups"))?.is_empty() {
            return Err(PrivilegeError::Remains("a supplementary group"));
        }
        if capabilities()?.iter().any(|word| *word != CapabilityWord::default()) {
            return Err(PrivilegeError::Remains("a capability"));
        }
        if (0..MAX_CAPABILITIES).any(is_bounding) {
            return Err(PrivilegeError::Remains("a capability in the bounding set"));
        }
        if (0..MAX_CAPABILITIES).any(is_ambient) {
            return Err(PrivilegeError::Remains("a capability in the ambient set"));
        }
        if prctl::get_no_new_privs() != Ok(true) {
            return Err(PrivilegeError::Remains("the way to gain privileges by executing a file"));
        }
        Ok(())
    }
}

/// Keeps those of this process's capabilities whose numbers are in `numbers`, all below 32, and gives up
/// the others for good; it stays root.
///
/// # Errors
///
/// Any [`PrivilegeError`]: the process must not go on then.
pub fn keep_only(numbers: &[u32]) -> Result<(), PrivilegeError> {
    drop_bounding_set()?;
    clear_ambient_set()?;
    let kept = numbers.iter().fold(0, |kept, number| kept | 1 << number);
    let words = [
        CapabilityWord { effective: kept, permitted: kept, inheritable: 0 },
        CapabilityWord::default(),
    ];
    step("give up capabilities", set_capabilities(&words))?;
    step("set no_new_privs", prctl::set_no_new_privs())?;
    if capabilities()? != words {
        return Err(PrivilegeError::Remains("a capability"));
    }
    Ok(())
}

/// Dies with the supervisor, `supervisor` having been the parent all along.
fn stay_with(supervisor: Pid) -> Result<(), PrivilegeError> {
    // The kernel forgets the signal when the credentials change.
    step("ask for SIGKILL when the supervisor ends", prctl::set_pdeathsig(Signal::SIGKILL))?;
    // If it ended between the change and the line above, no signal will come.
    if getppid() == supervisor { Ok(()) } else { Err(PrivilegeError::Orphaned) }
}

fn step(step: &'static str, result: nix::Result<()>) -> Result<(), PrivilegeError> {
    result.map_err(refused(step))
}

fn refused(step: &'static str) -> impl Fn(Errno) -> PrivilegeError {
    move |source| PrivilegeError::Refused { step, source }
}

fn drop_bounding_set() -> Result<(), PrivilegeError> {
    for capability in (0..MAX_CAPABILITIES).filter(|capability| is_bounding(*capability)) {
        let answer = prctl_number(libc::PR_CAPBSET_DROP, capability, 0);
        step("empty the bounding set", Errno::result(answer).map(drop))?;
    }
    Ok(())
}

fn clear_ambient_set() -> Result<(), PrivilegeError> {
    let clear = u32::try_from(libc::PR_CAP_AMBIENT_CLEAR_ALL).expect("a small positive number");
    let answer = prctl_number(libc::PR_CAP_AMBIENT, clear, 0);
    step("empty the ambient set", Errno::result(answer).map(drop))
}

fn is_bounding(capability: u32) -> bool {
    prctl_number(libc::PR_CAPBSET_READ, capability, 0) == 1
}

fn is_ambient(capability: u32) -> bool {
    let ask = u32::try_from(libc::PR_CAP_AMBIENT_IS_SET).expect("a small positive number");
    prctl_number(libc::PR_CAP_AMBIENT, ask, capability) == 1
}

/// A `prctl` whose arguments are numbers.
fn prctl_number(option: libc::c_int, first: u32, second: u32) -> libc::c_int {
    let (first, second) = (libc::c_ulong::from(first), libc::c_ulong::from(second));
    let unused: libc::c_ulong = 0;
    // SAFETY: the options used in this module take numbers only, no address.
    unsafe { libc::prctl(option, first, second, unused, unused) }
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// 0: this thread.
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`: 32 capabilities of each set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn clear_capabilities() -> Result<(), PrivilegeError> {
    step("empty the capability sets", set_capabilities(&[CapabilityWord::default(); 2]))
}

fn set_capabilities(words: &[CapabilityWord; 2]) -> nix::Result<()> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    // SAFETY: both point to live structs of the layout that version 3 asks for.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(answer).map(drop)
}

fn capabilities() -> Result<[CapabilityWord; 2], PrivilegeError> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: both point to live structs of the layout that version 3 asks for.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    step("read the capability sets", Errno::result(answer).map(drop))?;
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let nobody = Identity::resolve("nobody", false).expect("every system has it");
        let number = nobody.uid.to_string();
        let same = Identity::resolve(&number, false).expect("the same user");
        assert_eq!((same.uid, same.gid), (nobody.uid, nobody.gid));
    }

    #[test]
    fn a_number_nobody_has_is_a_user_and_a_group() {
        let stranger = Identity::resolve("3999999999", false).expect("any number will do");
        assert_eq!((stranger.uid.as_raw(), stranger.gid.as_raw()), (3_999_999_999, 3_999_999_999));
    }

    #[test]
    fn root_is_refused_unless_it_is_allowed() {
        for root in ["root", "0"] {
            let refused = Identity::resolve(root, false);
            assert!(matches!(refused, Err(PrivilegeError::Root(_))), "{refused:?}");
            assert!(Identity::resolve(root, true).is_ok());
        }
    }

    #[test]
    fn an_unknown_user_is_refused() {
        for unknown in ["no-such-user-here", "", "4294967295"] {
            let refused = Identity::resolve(unknown, false);
            assert!(matches!(refused, Err(PrivilegeError::UnknownUser(_))), "{refused:?}");
        }
    }
}
