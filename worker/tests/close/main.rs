//! What the closer is left with, as the kernel says it of the real binary. What it closes and what not is tested with
//! a supervisor, in `tests/tests/e2e/closer.rs`; what happens when it makes another system call in `tests/escape`. Needs
//! root.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use holdfast_lab::process;
use holdfast_lab::wait::{eventually, holds};
use holdfast_lab::{LabError, cgroup};
use holdfast_protocol::handover::CHILD_DESCRIPTOR;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, as `/proc` writes a set.
const BOTH: &str = "0000000000201000";
const NONE: &str = "0000000000000000";

/// A closer that nobody has said anything to, killed when dropped.
struct Closer {
    child: Child,
    socket: Option<OwnedFd>,
}

impl Closer {
    fn start(cgroup: &Path) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .expect("a socket pair");
        let raw = theirs.as_raw_fd();
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-worker"));
        command.args(["close", "--instance", "test", "--cgroup"]).arg(cgroup);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: dup2(2) and fcntl(2) are async-signal-safe. Should the descriptor already be the right
        // one, dup2 leaves it close-on-exec, so that is cleared.
        unsafe {
            command.pre_exec(move || {
                libc::dup2(raw, CHILD_DESCRIPTOR);
                libc::fcntl(CHILD_DESCRIPTOR, libc::F_SETFD, 0);
                Ok(())
            });
        }
        Self { child: command.spawn().expect("it starts"), socket: Some(socket) }
    }

    fn says(&self, label: &str) -> Result<String, LabError> {
        process::status(self.child.id(), label)
    }

    fn await_confined(&self) -> Result<(), LabError> {
        eventually("a filter of system calls", || {
            let mode = self.says("Seccomp").map_err(|error| error.to_string())?;
            holds(mode == "2", || mode.clone())
        })
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn it_is_confined_before_it_hears_anything() -> Result<(), LabError> {
    let closer = Closer::start(&cgroup::mount_point()?);
    closer.await_confined()?;
    for (label, expected) in [
        ("CapEff", BOTH),
        ("CapPrm", BOTH),
        ("CapInh", NONE),
        ("CapBnd", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
        ("Threads", "1"),
    ] {
        assert_eq!(closer.says(label)?, expected, "{label}");
    }
    // Its socket, and the file system that network namespaces are opened on.
    let open = fs::read_dir(format!("/proc/{}/fd", closer.child.id()));
    let open = open.map_err(LabError::system("list its descriptors"))?;
    let places = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    // Those of the first three are whatever this test has.
    let mut kinds: Vec<String> = places
        .filter_map(|place| Some(place.to_str()?.split_once(':')?.0.to_owned()))
        .filter(|kind| kind != "pipe")
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["net", "socket"]);
    Ok(())
}

#[test]
fn it_ends_without_its_supervisor() -> Result<(), LabError> {
    let mut closer = Closer::start(&cgroup::mount_point()?);
    closer.await_confined()?;
    drop(closer.socket.take());
    let status = closer.child.wait().map_err(LabError::system("wait for it"))?;
    assert_eq!(status.code(), Some(1), "{status}");
    Ok(())
}
