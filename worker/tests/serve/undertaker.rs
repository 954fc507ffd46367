//! Who takes a dead worker's memory apart: it has the same memory, dies with the worker, and can do nothing.

use std::process::Child;

use holdfast_lab::process;
use holdfast_protocol::handover::Occasion;
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use crate::configuration::{file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::{Worker, eventually};

/// `SECCOMP_MODE_FILTER`, as `/proc/PID/status` shows it.
const FILTERED: &str = "2";
/// Signals that nothing can block, and the two that the C library keeps for itself.
const UNBLOCKED: u64 =
    bit(Signal::SIGKILL as u32) | bit(Signal::SIGSTOP as u32) | bit(32) | bit(33);
/// `KCMP_VM` of `linux/kcmp.h`.
const MEMORY: libc::c_int = 1;

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// It, which is not left behind when a test fails.
struct Undertaker(u32);

impl Undertaker {
    /// The one child that `worker` has, once it is confined.
    fn of(worker: &Child) -> Self {
        let children = || process::children(worker.id()).unwrap();
        eventually(|| !children().is_empty());
        let [id] = children()[..] else { panic!("{:?}", children()) };
        let it = Self(id);
        eventually(|| it.says("Seccomp") == FILTERED);
        it
    }

    fn says(&self, label: &str) -> String {
        process::status(self.0, label).unwrap()
    }

    fn is_dead(&self) -> bool {
        !process::is_alive(self.0)
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.0.cast_signed())
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        if !self.is_dead() {
            // It may end of itself meanwhile.
            let _gone = kill(self.id(), Signal::SIGKILL);
        }
    }
}

#[test]
fn it_has_the_memory_of_the_worker_and_nothing_else() {
    let (_directory, path) = file(&services(1, &[1001]));
    let worker = Worker::granted(&path, &Estate::new(16, 64), 1);
    let it = Undertaker::of(&worker.child);
    // SAFETY: numbers only.
    let difference =
        unsafe { libc::syscall(libc::SYS_kcmp, worker.child.id(), it.0, MEMORY, 0_usize, 0_usize) };
    assert_eq!(Errno::result(difference), Ok(0), "not the same memory");
    let of = |name| it.says(name);
    assert_eq!(of("Name"), "hf-undertaker");
    assert_eq!(process::descriptors(it.0).unwrap(), 0);
    // SAFETY: a number only.
    assert_eq!(unsafe { libc::sched_getscheduler(it.id().as_raw()) }, libc::SCHED_IDLE);
    let waits = format!("{} 0x0 0x0 0x0 ", libc::SYS_ppoll);
    eventually(|| process::read(it.0, "syscall").unwrap().starts_with(&waits));
    assert_eq!((of("Threads"), of("NoNewPrivs")), ("1".to_owned(), "1".to_owned()));
    let nobody = User::from_name("nobody").unwrap().expect("every system has it").uid;
    assert!(of("Uid").split_whitespace().all(|one| one == nobody.to_string()), "{}", of("Uid"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&of(set), 16), Ok(0), "{set}");
    }
    let blocked = u64::from_str_radix(&of("SigBlk"), 16).unwrap();
    assert_eq!(blocked, !UNBLOCKED, "{blocked:x}");
}

#[test]
fn it_dies_with_the_worker_however_that_ends_and_not_before() {
    let (_directory, path) = file(&services(1, &[1001]));
    let ends: [fn(&mut Worker); 2] =
        [|worker| worker.child.kill().expect("it lives"), Worker::hang_up];
    for end in ends {
        let estate = Estate::new(16, 64);
        let (mut worker, _) = Worker::ready(&path, &estate, Occasion::Start);
        let it = Undertaker::of(&worker.child);
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGALRM] {
            kill(it.id(), signal).expect("it lives");
        }
        worker.grant(1);
        assert!(!it.is_dead());
        end(&mut worker);
        worker.child.wait().expect("it ends");
        eventually(|| it.is_dead());
    }
}

#[test]
fn a_worker_goes_on_without_it() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let worker = Worker::granted(&path, &estate, 1);
    let it = Undertaker::of(&worker.child);
    kill(it.id(), Signal::SIGKILL).expect("it lives");
    eventually(|| it.is_dead());
    write(&path, &services(1, &[1002]));
    eventually(|| estate.connect(&key(0)) == Some(vec![1002]));
}

#[test]
fn where_no_process_is_left_for_it_the_worker_says_so_and_serves() {
    /// A user nobody else is, so that only this worker counts: room for its threads.
    const USER: &str = "3999999997";
    const PROCESSES: u64 = 3;
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let mut worker = Worker::spawn_after(&path, &["--user", USER], || {
        Ok(setrlimit(Resource::RLIMIT_NPROC, PROCESSES, PROCESSES)?)
    });
    worker.hand_over(&estate, Occasion::Start);
    worker.await_ready();
    worker.grant(1);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
    worker.hang_up();
    let (_, log) = worker.await_end();
    assert!(log.contains("WARN") && log.contains("RLIMIT_NPROC"), "{log}");
}
