//! With how little it works, and what it says when something is missing.

use holdfast_lab::process;
use holdfast_lab::{Backend, Census, Lab, Target, TestResult, isolated};
use holdfast_tests::scene::{WEB, assert_reached};

use crate::bundle::{self, Bundle};
use crate::container::Container;
use crate::lives::configure;

/// `EX_NOPERM`.
const NO_PERMISSION: i32 = 77;
/// `EX_CONFIG`.
const NOT_CONFIGURED: i32 = 78;
/// What the command line's parser ends with.
const WRONG_ARGUMENTS: i32 = 2;

/// A container of `bundle` ends with `code`, says each of `words`, and touches nothing.
fn is_refused(lab: &Lab, bundle: &Bundle<'_>, code: i32, words: &[&str]) -> TestResult {
    let mut container = Container::spawn(lab, bundle)?;
    let ended = container.ended()?;
    let said = container.log();
    assert_eq!(ended, code, "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert_eq!(Census::take(lab, &Census::default())?.objects, Census::default().objects);
    Ok(())
}

#[test]
fn each_documented_capability_is_needed_and_no_other() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        let needed = bundle::documented_capabilities()?;
        for missing in &needed {
            let rest: Vec<_> = needed.iter().filter(|name| *name != missing).cloned().collect();
            let bundle = Bundle::new(lab, "run")?.capabilities(rest);
            is_refused(lab, &bundle, NO_PERMISSION, &[missing])?;
        }
        let container = Container::start(lab, &Bundle::new(lab, "run")?)?;
        let mut shown = container.status()?.supervisor.capabilities;
        shown.iter_mut().for_each(|name| name.make_ascii_uppercase());
        shown.sort();
        assert_eq!(shown, needed);
        assert_reached(&Target::tcp(WEB, &["red"]));
        Ok(())
    });
}

#[test]
fn each_mount_that_is_missing_is_named() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        for (mount, word) in [("/bpf", "bpffs"), ("/sys/fs/cgroup", "cgroup")] {
            let bundle = Bundle::new(lab, "run")?.without_mount(mount);
            is_refused(lab, &bundle, NOT_CONFIGURED, &[mount, word])?;
        }
        let wrong = Bundle::new(lab, "run")?.argument("--no-such-option");
        is_refused(lab, &wrong, WRONG_ARGUMENTS, &["--no-such-option"])
    });
}

/// The mount options of `path` in the mount namespace of process `pid`.
fn options(pid: u32, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mounts = process::read(pid, "mounts")?;
    let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(path));
    let options = line.and_then(|line| line.split(' ').nth(3));
    Ok(options.ok_or_else(|| format!("{path} is no mount: {mounts}"))?.to_owned())
}

#[test]
fn it_is_confined_to_namespaces_of_its_own_and_a_root_it_cannot_write() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        let container = Container::start(lab, &Bundle::new(lab, "run")?)?;
        let init = container.init()?.pid();
        for namespace in ["pid", "mnt", "net", "cgroup", "ipc", "uts"] {
            let of = |pid| std::fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
            assert_ne!(of(init)?, of(std::process::id())?, "{namespace}");
        }
        let mode = |path| -> Result<String, Box<dyn std::error::Error>> {
            Ok(options(init, path)?.split(',').next().unwrap_or_default().to_owned())
        };
        for path in ["/", "/sys", "/sys/fs/cgroup", "/etc/holdfast"] {
            assert_eq!(mode(path)?, "ro", "{path}");
        }
        for path in ["/bpf", "/var/lib/holdfast", "/run/holdfast"] {
            assert_eq!(mode(path)?, "rw", "{path}");
        }
        assert_eq!(process::status(init, "NoNewPrivs")?, "1");
        let health = container.runc(&["exec"], &["holdfastctl", "--instance", "lab", "status"])?;
        assert!(health.contains("all in place"), "{health}");
        Ok(())
    });
}
