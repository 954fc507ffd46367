//! Who takes a dead worker's memory apart: it has the same memory, dies with the worker, and can do nothing.

use std::fs;
use std::process::Child;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use crate::configuration::{file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::{Worker, eventually};
use holdfast_protocol::handover::Occasion;

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
struct Undertaker(Pid);

impl Undertaker {
    /// The one child that `worker` has, once it is confined.
    fn of(worker: &Child) -> Self {
        let id = worker.id();
        let child = || {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
            let mut children = children.split_whitespace().map(|it| it.parse().unwrap());
            let first = children.next().map(Pid::from_raw);
            assert_eq!(children.next(), None);
            first
        };
        eventually(|| child().is_some());
        let it = Self(child().expect("nobody has reaped it"));
        eventually(|| it.says("Seccomp").as_deref() == Some(FILTERED));
        it
    }

    /// What the kernel says of it, unless it is gone.
    fn says(&self, name: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// Whether it is dead, whoever has to reap it.
    fn is_dead(&self) -> bool {
        self.says("State").is_none_or(|state| state.starts_with('Z'))
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        if !self.is_dead() {
            // It may end of itself meanwhile.
            let _gone = kill(self.0, Signal::SIGKILL);
        }
    }
}

#[test]
fn it_has_the_memory_of_the_worker_and_nothing_else() {
    let (_directory, path) = file(&services(1, &[1001]));
    let worker = Worker::granted(&path, &Estate::new(16, 64), 1);
    let it = Undertaker::of(&worker.child);
    // SAFETY: numbers only.
    let difference = unsafe {
        libc::syscall(libc::SYS_kcmp, worker.child.id(), it.0.as_raw(), MEMORY, 0_usize, 0_usize)
    };
    assert_eq!(Errno::result(difference), Ok(0), "not the same memory");
    let of = |name| it.says(name).expect("it lives");
    assert_eq!(of("Name"), "hf-undertaker");
    assert_eq!(fs::read_dir(format!("/proc/{}/fd", it.0)).unwrap().count(), 0);
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
            kill(it.0, signal).expect("it lives");
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
    kill(it.0, Signal::SIGKILL).expect("it lives");
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
