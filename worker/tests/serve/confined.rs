//! The worker confines itself, notices when the configuration leaves the place it confined itself
//! to, and does what it can on a kernel without Landlock.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use holdfast_protocol::handover::{ConfigState, FromChild, Occasion};
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::configuration::{directory, file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::{Worker, eventually};

/// `SECCOMP_MODE_FILTER`, as `/proc/PID/status` shows it.
const FILTERED: &str = "2";

fn estate() -> Estate {
    Estate::new(16, 64)
}

fn await_in_force(worker: &Worker) {
    worker.await_config(|report| report.state == ConfigState::InForce);
}

/// Makes a directory with a configuration in it.
fn make(directory: &Path, port: u16) {
    fs::create_dir(directory).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    write(&directory.join("holdfast.yaml"), &services(1, &[port]));
}

#[test]
fn every_thread_is_confined_before_the_supervisor_is_heard() {
    let (_directory, path) = file(&services(1, &[1001]));
    let worker = Worker::spawn(&path);
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", worker.child.id())).unwrap();
        let status = |task: io::Result<fs::DirEntry>| {
            fs::read_to_string(task.unwrap().path().join("status")).unwrap()
        };
        tasks.map(status).collect::<Vec<_>>()
    };
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    // It confines itself without being asked: nothing has been said to it.
    eventually(|| threads().iter().all(|status| field(status, "Seccomp:") == FILTERED));
    let all = threads();
    assert_eq!(all.len(), 3, "the actors' thread and two helpers");
    let before: u32 = field(&own, "Seccomp_filters:").parse().unwrap();
    for status in &all {
        assert_eq!(field(status, "Seccomp_filters:"), (before + 1).to_string());
    }
    // There are never more threads, and never fewer.
    worker.hand_over(&estate(), Occasion::Start);
    worker.await_ready();
    worker.grant(1);
    assert_eq!(threads().len(), all.len());
    // Nobody is to be checked, so it gives up connecting: that is one more filter, for every thread.
    let filters = (before + 2).to_string();
    eventually(|| threads().iter().all(|it| field(it, "Seccomp_filters:") == filters));
}

#[test]
fn a_replaced_directory_is_for_the_next_worker() {
    let top = directory();
    let (path, next) = (top.path().join("conf"), top.path().join("next"));
    make(&path, 1001);
    make(&next, 1002);
    for config in [path.clone(), path.join("holdfast.yaml")] {
        let estate = estate();
        let mut worker = Worker::granted(&config, &estate, 1);
        assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
        let old = top.path().join("old");
        fs::rename(&path, &old).unwrap();
        fs::rename(&next, &path).unwrap();
        let (status, log) = worker.await_end();
        assert!(!status.success() && log.contains("only a new worker may read"), "{log}");
        assert_eq!(estate.connect(&key(0)), Some(vec![1001]), "governance stays");
        let _next = Worker::granted(&config, &estate, 2);
        assert_eq!(estate.connect(&key(0)), Some(vec![1002]));
        fs::rename(&path, &next).unwrap();
        fs::rename(&old, &path).unwrap();
    }
}

#[test]
fn a_link_that_leads_to_the_next_release_is_a_save() {
    let top = directory();
    for (release, port) in [("1", 1001), ("2", 1002)] {
        make(&top.path().join(release), port);
    }
    let current = top.path().join("current");
    symlink("1", &current).unwrap();
    for config in [current.clone(), current.join("holdfast.yaml")] {
        let estate = estate();
        let worker = Worker::granted(&config, &estate, 1);
        for (release, port) in [("2", 1002), ("1", 1001)] {
            let next = top.path().join("next");
            symlink(release, &next).unwrap();
            fs::rename(&next, &current).unwrap();
            await_in_force(&worker);
            assert_eq!(estate.connect(&key(0)), Some(vec![port]));
        }
    }
}

#[test]
fn a_link_that_leads_elsewhere_is_for_the_next_worker() {
    let (top, elsewhere) = (directory(), directory());
    let path = top.path().join("conf");
    make(&path, 1001);
    let text = services(2, &[1002]);
    let added = text[text.find("  - name: s1").unwrap()..].to_owned();
    write(&elsewhere.path().join("more.yaml"), &format!("services:\n{added}"));
    let estate = estate();
    let mut worker = Worker::granted(&path, &estate, 1);
    symlink(elsewhere.path().join("more.yaml"), path.join("more.yaml")).unwrap();
    let (_, log) = worker.await_end();
    assert!(log.contains("only a new worker may read"), "{log}");
    let _next = Worker::granted(&path, &estate, 2);
    assert_eq!(estate.connect(&key(1)), Some(vec![1002]));
}

#[test]
fn a_directory_that_is_made_later_is_for_the_next_worker() {
    let top = directory();
    let path = top.path().join("conf");
    let config = path.join("holdfast.yaml");
    let estate = estate();
    let mut worker = Worker::granted(&config, &estate, 1);
    make(&path, 1001);
    let (_, log) = worker.await_end();
    assert!(log.contains("only a new worker may read"), "{log}");
    let _next = Worker::granted(&config, &estate, 2);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn a_kernel_without_landlock_is_said_once_and_served_on() {
    // Not built in, and built in but switched off.
    for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
        let top = directory();
        let (path, next) = (top.path().join("conf"), top.path().join("next"));
        make(&path, 1001);
        make(&next, 1002);
        let estate = estate();
        let filter = without_landlock(errno);
        let mut worker = Worker::spawn_after(&path, &["--user", "nobody"], move || {
            apply_filter(&filter).map_err(|_| io::Error::last_os_error())
        });
        worker.hand_over(&estate, Occasion::Start);
        worker.await_ready();
        worker.grant(1);
        assert_eq!(worker.status("Seccomp"), FILTERED);
        // Nothing is confined to a place, so this is a save like any other.
        fs::rename(&path, top.path().join("old")).unwrap();
        fs::rename(&next, &path).unwrap();
        await_in_force(&worker);
        assert_eq!(estate.connect(&key(0)), Some(vec![1002]));
        worker.hang_up();
        let (_, log) = worker.await_end();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert!(matches!(warnings[..], [one] if one.contains("not at all")), "{log}");
    }
}

#[test]
fn a_limit_on_threads_is_a_reason_and_not_a_silence() {
    /// A user nobody else is, so that only this worker counts: room for one helper of two.
    const USER: &str = "3999999998";
    const THREADS: u64 = 2;
    let (_directory, path) = file(&services(1, &[1001]));
    let mut worker = Worker::spawn_after(&path, &["--user", USER], || {
        Ok(setrlimit(Resource::RLIMIT_NPROC, THREADS, THREADS)?)
    });
    let refused = worker.hear();
    assert!(
        matches!(&refused, FromChild::Refused { reason } if reason.contains("RLIMIT_NPROC")),
        "{refused:?}"
    );
    assert!(!worker.await_end().0.success());
}

/// The kernel answers Landlock's system calls with `errno`.
fn without_landlock(errno: i32) -> BpfProgram {
    let calls = [
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    let processor = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, processor).unwrap();
    filter.try_into().unwrap()
}
