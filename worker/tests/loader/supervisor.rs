//! The supervisor's side of the conversation, with the real binary on the other.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use holdfast_lab::handover::{Fault, Then};
use holdfast_protocol::handover::{CHILD_DESCRIPTOR, FromChild, Occasion, ToChild};
use holdfast_protocol::manifest::Entry;
use holdfast_protocol::wire::{self, MAX_DESCRIPTORS, MAX_PACKET_BYTES};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, setsockopt,
    socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::world::World;

/// How long a loader may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// Small maps, so that a test is about what it is about.
pub const SERVICES: u32 = 64;
pub const SLOTS: u32 = 1024;
pub const FLOWS: u32 = 512;

/// What a loader said, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub repaired: Vec<String>,
    pub refused: Option<String>,
    pub entries: Vec<Entry>,
    pub descriptors: Vec<OwnedFd>,
    pub cleared: Option<Vec<String>>,
    pub status: ExitStatus,
}

impl Outcome {
    /// The estate, which has to be there.
    pub fn estate(self) -> Estate {
        assert_eq!(self.refused, None);
        assert!(self.status.success(), "{}", self.status);
        assert_eq!(self.entries.len(), self.descriptors.len());
        let Self { repaired, entries, descriptors, .. } = self;
        Estate { repaired, entries, descriptors }
    }

    /// The reason, which has to be there.
    pub fn reason(self) -> String {
        assert!(self.entries.is_empty());
        assert_eq!(self.status.code(), Some(1));
        self.refused.expect("the loader refuses")
    }

    /// What was removed, which has to have been said.
    pub fn removed(self) -> Vec<String> {
        assert_eq!(self.refused, None);
        assert!(self.status.success(), "{}", self.status);
        self.cleared.expect("the loader lists what it removed")
    }
}

/// What was handed over.
#[derive(Debug)]
pub struct Estate {
    pub repaired: Vec<String>,
    pub entries: Vec<Entry>,
    pub descriptors: Vec<OwnedFd>,
}

/// A loader at work. When it is dropped its socket closes, and the loader leaves.
pub struct Loader {
    socket: Option<OwnedFd>,
    process: Child,
}

/// Runs `load` with small maps to its end.
pub fn load(world: &World) -> Outcome {
    load_sized(world, SERVICES, SLOTS)
}

/// Runs `load` to its end.
pub fn load_sized(world: &World, services: u32, slots: u32) -> Outcome {
    let loader = start(world, "load", &world.cgroup.path, services, slots);
    loader.say(&hello(&world.instance));
    loader.finish()
}

/// Runs `clear` to its end.
pub fn clear(world: &World) -> Outcome {
    let loader = start(world, "clear", &world.cgroup.path, SERVICES, SLOTS);
    loader.say(&hello(&world.instance));
    loader.finish()
}

/// Starts a loader that has not been greeted yet.
pub fn start(world: &World, verb: &str, cgroup: &Path, services: u32, slots: u32) -> Loader {
    start_on(world, verb, cgroup, world.bpffs(), services, slots)
}

/// Starts a loader that has not been greeted yet, on any bpffs. It attaches every link, also what nothing
/// needs yet.
pub fn start_on(
    world: &World,
    verb: &str,
    cgroup: &Path,
    bpffs: &Path,
    services: u32,
    slots: u32,
) -> Loader {
    start_told(world, &[verb, "--arrivals"], (cgroup, bpffs), (services, slots))
}

/// Runs `load` with small maps to its end. It attaches only what is needed.
pub fn load_idle(world: &World) -> Outcome {
    let loader = start_idle(world);
    loader.say(&hello(&world.instance));
    loader.finish()
}

/// The same, and it has not been greeted yet.
pub fn start_idle(world: &World) -> Loader {
    start_told(world, &["load"], (&world.cgroup.path, world.bpffs()), (SERVICES, SLOTS))
}

fn start_told(
    world: &World,
    verb: &[&str],
    (cgroup, bpffs): (&Path, &Path),
    (services, slots): (u32, u32),
) -> Loader {
    let (socket, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("a socket pair");
    let silence = TimeVal::milliseconds(i64::try_from(SILENCE.as_millis()).expect("seconds"));
    setsockopt(&socket, sockopt::ReceiveTimeout, &silence).expect("a timeout");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-worker"));
    command.args(verb).args(["--instance", &world.instance]);
    command.arg("--cgroup").arg(cgroup).arg("--bpffs").arg(bpffs);
    command.arg("--max-services").arg(services.to_string());
    command.arg("--max-slots").arg(slots.to_string());
    command.arg("--max-flows").arg(FLOWS.to_string());
    command.stdin(Stdio::null());
    let inherited = theirs.as_raw_fd();
    // SAFETY: only async-signal-safe calls, on a descriptor that is open in the child as well.
    unsafe {
        command.pre_exec(move || {
            let outcome = if inherited == CHILD_DESCRIPTOR {
                libc::fcntl(inherited, libc::F_SETFD, 0)
            } else {
                libc::dup2(inherited, CHILD_DESCRIPTOR)
            };
            if outcome < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    let process = command.spawn().expect("the worker binary starts");
    Loader { socket: Some(socket), process }
}

pub fn hello(instance: &str) -> ToChild {
    ToChild::Hello {
        newest: wire::VERSION,
        oldest: wire::OLDEST_VERSION,
        instance: instance.to_owned(),
        epoch: 0,
        occasion: Occasion::Start,
    }
}

impl Loader {
    pub fn say(&self, message: &ToChild) {
        let packet = wire::encode(message).expect("encodes");
        let slices = [IoSlice::new(&packet)];
        // A loader that has gone is found out by what it did not say.
        let _ =
            sendmsg::<()>(self.socket().as_raw_fd(), &slices, &[], MsgFlags::MSG_NOSIGNAL, None);
    }

    /// The same, with a fault. Whoever ends by it hangs up.
    pub fn commit(&mut self, fault: Fault, message: &ToChild) {
        let packet = wire::encode(message).expect("encodes");
        let socket = self.socket.as_ref().expect("not hung up");
        // A loader that has gone is found out by what it did not say.
        if fault.commit(socket.as_fd(), &packet, &[]) == Ok(Then::Ends) {
            self.socket = None;
        }
    }

    /// Waits for its end.
    pub fn ended(mut self) -> ExitStatus {
        self.process.wait().expect("it can be reaped")
    }

    /// The next message, or `None` at the end.
    pub fn hear(&self) -> Option<(FromChild, Vec<OwnedFd>)> {
        let mut packet = vec![0_u8; MAX_PACKET_BYTES];
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut slices = [IoSliceMut::new(&mut packet)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received =
            recvmsg::<()>(self.socket().as_raw_fd(), &mut slices, Some(&mut control), flags);
        let received = match received {
            Ok(received) => received,
            Err(nix::errno::Errno::ECONNRESET) => return None,
            Err(errno) => panic!("the loader is silent: {errno}"),
        };
        let mut descriptors = Vec::new();
        for message in received.cmsgs().expect("nothing is cut") {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just installed these descriptors here.
                descriptors.extend(raw.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
            }
        }
        let length = received.bytes;
        if length == 0 {
            return None;
        }
        Some((wire::decode(&packet[..length]).expect("a message"), descriptors))
    }

    /// Hears it out, accepts every offer, and reaps it.
    pub fn finish(mut self) -> Outcome {
        let mut repaired = Vec::new();
        let mut refused = None;
        let mut entries = Vec::new();
        let mut descriptors = Vec::new();
        let mut cleared: Option<Vec<String>> = None;
        let mut is_last = true;
        while let Some((message, mut beside)) = self.hear() {
            match message {
                FromChild::Welcome { .. } => {}
                FromChild::Repaired { what } => repaired.push(what),
                FromChild::Refused { reason } => refused = Some(reason),
                FromChild::Offer(offer) => {
                    assert_eq!(offer.entries.len(), beside.len());
                    entries.extend(offer.entries);
                    descriptors.append(&mut beside);
                    self.say(&ToChild::Accept { index: offer.index });
                }
                FromChild::Cleared { items, last } => {
                    cleared.get_or_insert_default().extend(items);
                    is_last = last;
                }
                other => panic!("a loader does not say {other:?}"),
            }
        }
        assert!(is_last, "the list of what was removed has no end");
        let status = self.process.wait().expect("it can be reaped");
        Outcome { repaired, refused, entries, descriptors, cleared, status }
    }

    fn socket(&self) -> &OwnedFd {
        self.socket.as_ref().expect("not hung up")
    }

    /// Closes the socket, and reaps the loader.
    pub fn hang_up(self) -> ExitStatus {
        let Self { socket, mut process } = self;
        drop(socket);
        process.wait().expect("it can be reaped")
    }

    /// Kills the loader, and reaps it.
    pub fn kill(mut self) -> ExitStatus {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it can be reaped")
    }
}
