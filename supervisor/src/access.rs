//! Who may ask what over the control socket: root everything, members of the control group, if one is
//! configured, questions only. File modes keep others from connecting; this is asked of each
//! connection all the same, because modes can be changed by mistake.
#![expect(unsafe_code, reason = "SO_PEERGROUPS has no wrapper")]

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use holdfast_protocol::control::Request;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, getgroups, setgroups};

/// Most supplementary groups a process can have (`NGROUPS_MAX` of `linux/limits.h`).
const MAX_GROUPS: usize = 65_536;

/// Room for the groups of nearly everybody at the first attempt.
const USUAL_GROUPS: usize = 32;

/// The group whose members may ask questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlGroup {
    /// As it was given, for people.
    pub name: String,
    /// Its number.
    pub id: u32,
}

/// Who is at the other end of a connection: what the kernel noted when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    user: u32,
    /// The primary one and the supplementary ones.
    groups: Vec<u32>,
}

/// What a peer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing.
    Nothing,
    /// What changes nothing.
    Questions,
    /// Everything.
    Everything,
}

/// What `peer` may ask for, given the control group `group`.
#[must_use]
pub fn level(peer: &Peer, group: Option<&ControlGroup>) -> Level {
    match group {
        _ if peer.user == 0 => Level::Everything,
        Some(group) if peer.groups.contains(&group.id) => Level::Questions,
        _ => Level::Nothing,
    }
}

impl Level {
    /// Whether `request` may be made on this level.
    #[must_use]
    pub const fn permits(self, request: &Request) -> bool {
        match (self, request) {
            (Self::Everything, _) => true,
            // What the worker is asked is one of `WorkerQuery`, which are questions all of them.
            (Self::Questions, Request::Status | Request::Worker(_)) => true,
            (Self::Questions, Request::Reload | Request::Uninstall) | (Self::Nothing, _) => false,
        }
    }

    /// Who may do what somebody on this level may not, given the control group `group`.
    #[must_use]
    pub fn denial(self, group: Option<&ControlGroup>) -> String {
        let name = group.map(|group| group.name.as_str());
        match (self, name) {
            (Self::Nothing, Some(name)) => {
                format!("only root and members of the group {name} may talk to the supervisor")
            }
            (Self::Nothing, None) => "only root may talk to the supervisor".to_owned(),
            (_, name) => format!(
                "only root may reload or uninstall; members of the group {} may ask for status, \
                 services, endpoints, links and version",
                name.unwrap_or("that was configured"),
            ),
        }
    }
}

impl Peer {
    /// Who is at the other end of `socket`. Its process is not asked for: its id is 0 for a peer of
    /// another process namespace.
    ///
    /// # Errors
    ///
    /// When the socket has no peer.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        let mut groups = supplementary_groups(socket.as_fd())?;
        groups.push(credentials.gid());
        Ok(Self { user: credentials.uid(), groups })
    }
}

fn supplementary_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; USUAL_GROUPS];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
            .expect("a quarter of a megabyte fits");
        // SAFETY: the kernel writes at most `bytes` bytes into a live buffer of that size.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        // When the room is too small, the kernel says how much it takes.
        let count = usize::try_from(bytes).expect("32 bits fit") / size_of::<u32>();
        match Errno::result(answer) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(Errno::ERANGE) if (groups.len() + 1..=MAX_GROUPS).contains(&count) => {
                groups.resize(count, 0);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The group called `given`, or with that number, in `database`, the text of `/etc/group`.
#[must_use]
pub fn find_group(given: &str, database: Option<&str>) -> Option<ControlGroup> {
    let listed = |database: &str| {
        let mut entries = database.lines().map(|line| line.split(':'));
        let mut entry = entries.find_map(|mut entry| (entry.next()? == given).then_some(entry))?;
        entry.nth(1)?.parse().ok()
    };
    let id = given.parse().ok().or_else(|| database.and_then(listed))?;
    // The all-ones number means "leave it as it is" to chown(2).
    (id != u32::MAX).then(|| ControlGroup { name: given.to_owned(), id })
}

/// Lets nobody use `path`, which is this user's own, but its owner as `owner` says and the control
/// group, if there is one, as `shared` says: bits of a mode.
///
/// # Errors
///
/// When the kernel refuses.
pub fn share(path: &Path, owner: u32, group: Option<&ControlGroup>, shared: u32) -> io::Result<()> {
    let Some(group) = group else {
        return std::fs::set_permissions(path, Permissions::from_mode(owner));
    };
    give_to_group(path, group.id)?;
    std::fs::set_permissions(path, Permissions::from_mode(owner | shared))
}

/// The directory above `path` that keeps members of the group `id` from getting there, if one does.
#[must_use]
pub fn obstacle(path: &Path, id: u32) -> Option<&Path> {
    const OTHERS: u32 = 0o001;
    const GROUPS: u32 = 0o010;
    path.ancestors().skip(1).find(|directory| {
        std::fs::metadata(directory).is_ok_and(|found| {
            let needed = if found.gid() == id { GROUPS } else { OTHERS };
            found.mode() & needed == 0
        })
    })
}

/// An owner needs no `CAP_CHOWN` to give a file to a group it is a member of, so this process becomes
/// one for that moment.
fn give_to_group(path: &Path, id: u32) -> io::Result<()> {
    let former = getgroups()?;
    setgroups(&[former.as_slice(), &[Gid::from_raw(id)]].concat())?;
    let given = std::os::unix::fs::lchown(path, None, Some(id));
    setgroups(&former)?;
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: u32 = 50;

    fn group() -> ControlGroup {
        ControlGroup { name: "operators".to_owned(), id: GROUP }
    }

    fn peer(user: u32, groups: &[u32]) -> Peer {
        Peer { user, groups: groups.to_vec() }
    }

    #[test]
    fn root_is_on_the_highest_level_and_members_are_on_theirs() {
        use Level::{Everything, Nothing, Questions};
        for (peer, without, with) in [
            (peer(0, &[0]), Everything, Everything),
            (peer(0, &[GROUP]), Everything, Everything),
            (peer(1000, &[GROUP]), Nothing, Questions),
            (peer(1000, &[7, 8, GROUP, 1000]), Nothing, Questions),
            (peer(1000, &[1000]), Nothing, Nothing),
            (peer(1000, &[]), Nothing, Nothing),
            // Neither root's group nor a user with the group's number is meant.
            (peer(1000, &[0]), Nothing, Nothing),
            (peer(GROUP, &[1000]), Nothing, Nothing),
        ] {
            assert_eq!(level(&peer, None), without, "{peer:?}");
            assert_eq!(level(&peer, Some(&group())), with, "{peer:?}");
        }
    }

    #[test]
    fn each_level_permits_what_it_should_and_says_who_may_do_the_rest() {
        let question = [Request::Status, Request::Worker(vec![1])];
        let command = [Request::Reload, Request::Uninstall];
        for request in &question {
            assert!(Level::Everything.permits(request) && Level::Questions.permits(request));
            assert!(!Level::Nothing.permits(request), "{request:?}");
        }
        for request in &command {
            assert!(Level::Everything.permits(request), "{request:?}");
            assert!(!Level::Questions.permits(request) && !Level::Nothing.permits(request));
        }
        let denial = Level::Questions.denial(Some(&group()));
        assert!(denial.contains("only root") && denial.contains("operators"), "{denial}");
        assert!(Level::Nothing.denial(Some(&group())).contains("operators"));
        assert!(!Level::Nothing.denial(None).contains("group"));
    }

    #[test]
    fn groups_are_found_by_name_and_number() {
        let database = "root:x:0:\noperators:x:50:alice,bob\nodd\nbad:x:y:\n";
        let find = |given| find_group(given, Some(database)).map(|group| group.id);
        assert_eq!(
            (find("operators"), find("root"), find("4242")),
            (Some(50), Some(0), Some(4242))
        );
        for unknown in ["", "x", "alice", "odd", "bad", "-1", "4294967295", "operators:x"] {
            assert_eq!(find(unknown), None, "{unknown}");
        }
        assert_eq!(find_group("operators", None), None);
        assert_eq!(find_group("7", None).map(|group| group.id), Some(7));
    }

    #[test]
    fn a_directory_that_is_closed_to_the_group_is_named() {
        let base = tempfile::tempdir().expect("a directory");
        let above = base.path().join("above");
        let mode = |mode| std::fs::set_permissions(&above, Permissions::from_mode(mode));
        std::fs::create_dir_all(above.join("run")).expect("made");
        std::fs::set_permissions(base.path(), Permissions::from_mode(0o755)).expect("opened");
        for (bits, group, is_closed) in
            [(0o711, GROUP, false), (0o700, GROUP, true), (0o750, GROUP, true), (0o710, 0, false)]
        {
            mode(bits).expect("changed");
            let run = above.join("run");
            let found = obstacle(&run, group);
            assert_eq!(found, is_closed.then_some(above.as_path()), "{bits:o} {group}");
        }
    }

    #[test]
    fn a_peer_is_known_with_all_its_groups() {
        use uds::nonblocking::UnixSeqpacketConn;
        // Groups belong to threads for the kernel; the other tests' threads keep theirs.
        let many: Vec<u32> = (1..=100).map(|n| 10_000 + n).collect();
        let groups = many.clone();
        let joined = std::thread::spawn(move || -> io::Result<Peer> {
            // SAFETY: the kernel reads as many numbers from a live slice as it has.
            let answer =
                unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
            Errno::result(answer)?;
            let (one, _other) = UnixSeqpacketConn::pair()?;
            // SAFETY: the socket is open until the end of this block.
            Peer::of(&unsafe { BorrowedFd::borrow_raw(one.as_raw_fd()) })
        });
        let peer = joined.join().expect("no panic").expect("a pair, as root");
        assert_eq!(peer.user, 0);
        assert!(many.iter().all(|group| peer.groups.contains(group)), "{peer:?}");
        assert_eq!(peer.groups.len(), many.len() + 1, "and its own");
    }
}
