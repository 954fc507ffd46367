//! What talks to the outside has no privilege.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use holdfast_lab::{TestResult, isolated, process};

use crate::scene::Scene;

/// The user `nobody` of every Debian.
const NOBODY: u32 = 65_534;

#[test]
fn the_worker_has_no_capability_and_cannot_gain_one() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let worker = scene.supervisor.status()?.worker;
        assert_eq!((worker.uid, worker.no_new_privs), (NOBODY, true));
        assert_eq!(worker.capabilities, Vec::<String>::new());

        let own = |label| process::status(worker.pid, label);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let found = u64::from_str_radix(&own(set)?, 16)?;
            assert_eq!(found, 0, "{set}");
        }
        assert_eq!(own("NoNewPrivs")?, "1");
        for ids in ["Uid", "Gid"] {
            let found = own(ids)?;
            let four = [NOBODY; 4].map(|id| id.to_string());
            assert_eq!(found.split_whitespace().collect::<Vec<_>>(), four, "{ids}");
        }
        assert_eq!(own("Groups")?, "", "no supplementary group of root's is left");
        Ok(())
    });
}

#[test]
fn the_worker_holds_maps_but_no_link_and_no_program() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let worker = scene.supervisor.status()?.worker.pid;
        let mut maps = 0;
        for entry in fs::read_dir(format!("/proc/{worker}/fdinfo"))? {
            let text = fs::read_to_string(entry?.path())?;
            let has = |label: &str| text.lines().any(|line| line.starts_with(label));
            assert!(!has("link_id:") && !has("link_type:"), "a link: {text}");
            assert!(!has("prog_id:") && !has("prog_tag:"), "a program: {text}");
            maps += usize::from(has("map_id:"));
        }
        assert!(maps > 0, "it writes maps, so it holds some");
        Ok(())
    });
}

#[test]
fn another_user_can_be_named() {
    isolated(|lab| {
        let red = holdfast_lab::Backend::tcp("red")?;
        let file =
            lab.write(crate::scene::FILE, holdfast_lab::render(&[crate::scene::web(&red)]))?;
        let supervisor = lab.supervisor(&file).with("--worker-user", "12345").start()?;
        let worker = supervisor.status()?.worker;
        assert_eq!((worker.uid, worker.capabilities.len()), (12_345, 0));
        Ok(())
    });
}

/// Tries to create an array map of one element. The kernel's `union bpf_attr` begins with type, key
/// size, value size and number of entries.
fn create_map() -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let attribute: [u32; 4] = [BPF_MAP_TYPE_ARRAY, 4, 4, 1];
    // SAFETY: the kernel reads 16 bytes from a live array.
    let map = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attribute.as_ptr(), size_of_val(&attribute))
    };
    if map < 0 {
        return Err(io::Error::last_os_error());
    }
    let map = i32::try_from(map).expect("descriptors fit an int");
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(map) })
}

/// Credentials belong to threads: the calling one becomes nobody without any capability, like the
/// worker. The C library's wrapper would change all threads.
fn become_nobody() -> io::Result<()> {
    // SAFETY: setresuid takes three integers and no address.
    match unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn nobody_without_capabilities_cannot_create_a_map() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let worker = scene.supervisor.status()?.worker.pid;
        create_map()
            .map_err(|error| format!("root can create one, or the attempt is wrong: {error}"))?;
        let tried = std::thread::spawn(move || -> io::Result<(String, io::Result<OwnedFd>)> {
            become_nobody()?;
            let own = fs::read_to_string("/proc/thread-self/status")?;
            Ok((own, create_map()))
        });
        let (own, created) = tried.join().expect("the thread does not panic")?;
        let effective = own.lines().find(|line| line.starts_with("CapEff")).expect("a line");
        let of_worker = process::status(worker, "CapEff")?;
        assert!(effective.ends_with(&of_worker), "as little as the worker has: {effective}");
        let error = created.expect_err("kernel.unprivileged_bpf_disabled must be 1 or 2");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        TestResult::Ok(())
    });
}
