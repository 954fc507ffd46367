//! Whatever holdfast starts as root has exactly the capabilities that docs/security.md lists.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_lab::{Lab, TestResult, binaries, isolated, process};
use nix::sys::signal::Signal;

use crate::scene::{FILE, web};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");

/// The capabilities' numbers, as `linux/capability.h` has them.
const NUMBERS: [(&str, u32); 6] = [
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
];

/// The names in the table of the supervisor's capabilities.
fn documented() -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(DOCUMENT)?;
    let (_, section) = text.split_once("## The supervisor's capabilities\n").ok_or("no section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    Ok(rows.map(|(name, _)| name.to_owned()).collect())
}

fn documented_bits() -> Result<u64, Box<dyn std::error::Error>> {
    let mut bits = 0;
    for name in documented()? {
        let known = NUMBERS.iter().find(|(known, _)| *known == name);
        bits |= 1 << known.ok_or(format!("{name} has no number in this test"))?.1;
    }
    Ok(bits)
}

/// `status` is the text of a `/proc/PID/status`.
#[track_caller]
fn assert_exact(status: &str, expected: u64, who: &str) {
    for (set, expected) in [
        ("CapInh", 0),
        ("CapPrm", expected),
        ("CapEff", expected),
        ("CapBnd", expected),
        ("CapAmb", 0),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
        let found = line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
        assert_eq!(found, Some(expected), "{set} of {who}, in hexadecimal {found:x?}");
    }
}

/// A worker binary that leaves what the kernel says of it in a file per subcommand, and then becomes
/// the real one.
fn telling_worker(lab: &Lab) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let real = binaries::find(binaries::WORKER)?;
    let script =
        format!("#!/bin/sh\ncat /proc/$$/status > \"$0.$1\"\nexec {} \"$@\"\n", real.display());
    let path = lab.write("worker", script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn told(worker: &Path, verb: &str) -> std::io::Result<String> {
    fs::read_to_string(worker.with_extension(verb))
}

#[test]
fn supervisor_loader_and_a_starting_worker_have_exactly_the_documented_capabilities() {
    isolated(|lab| {
        let expected = documented_bits()?;
        let red = holdfast_lab::Backend::tcp("red")?;
        let file = lab.write(FILE, holdfast_lab::render(&[web(&red)]))?;
        let worker = telling_worker(lab)?;
        let own = process::read(std::process::id(), "status")?;
        assert!(
            !own.contains(&format!("CapBnd:\t{expected:016x}")),
            "this test has more to give up"
        );

        let mut supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
        assert_exact(&process::read(supervisor.pid(), "status")?, expected, "the supervisor");
        assert_exact(&told(&worker, "load")?, expected, "the loader");
        assert_exact(&told(&worker, "serve")?, expected, "a worker before it steps down");
        let status = supervisor.status()?;
        let shown: BTreeSet<_> =
            status.supervisor.capabilities.iter().map(|name| name.to_uppercase()).collect();
        assert_eq!(shown, documented()?);
        assert_exact(&process::read(status.worker.pid, "status")?, 0, "the worker");

        supervisor.signal(Signal::SIGUSR2)?;
        let status = supervisor.wait_until("the succession", |status| {
            let replacements = &status.replacements;
            assert_eq!(replacements.last_failure, "");
            replacements.count == 1
        })?;
        assert_exact(&process::read(status.supervisor.pid, "status")?, expected, "the successor");

        assert_eq!(lab.ctl(&["uninstall"])?.code, Some(0));
        assert!(supervisor.ended()?.success());
        assert_exact(&told(&worker, "clear")?, expected, "the loader that clears");
        Ok(())
    });
}

#[test]
fn an_uninstall_without_a_supervisor_has_no_more() {
    isolated(|lab| {
        let red = holdfast_lab::Backend::tcp("red")?;
        let file = lab.write(FILE, holdfast_lab::render(&[web(&red)]))?;
        let worker = telling_worker(lab)?;
        let supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
        supervisor.end(Signal::SIGTERM)?;
        let mut command = lab.beside(binaries::find(binaries::SUPERVISOR)?)?;
        command.arg("uninstall").args(lab.instance_arguments()).arg("--worker").arg(&worker);
        assert_eq!(holdfast_lab::inside::Ended::run(&mut command)?.code, Some(0));
        assert_exact(&told(&worker, "clear")?, documented_bits()?, "the loader that clears");
        Ok(())
    });
}

#[test]
fn exactly_the_documented_capabilities_are_enough_for_everything() {
    isolated(|lab| {
        let kept: String = documented()?
            .iter()
            .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
            .collect();
        let bounding = format!("--bounding-set=-all{kept}");
        let under = ["setpriv", &bounding, "--"];
        let red = holdfast_lab::Backend::tcp("red")?;
        let file = lab.write(FILE, holdfast_lab::render(&[web(&red)]))?;
        let target = holdfast_lab::Target::tcp(crate::scene::WEB, &["red"]);

        let mut supervisor = lab.supervisor(&file).under(&under).start()?;
        let before = supervisor.status()?;
        assert!(supervisor.kill_worker(before.worker.pid));
        supervisor.wait_for_grant_after(before.epoch)?;
        detach(before.links[0].link_id)?;
        fs::remove_file(lab.bpffs().join("holdfast/lab/maps/HEADS"))?;
        supervisor.wait_until("both repairs", |status| {
            status.drift.repairs >= 2 && status.drift.open.is_empty()
        })?;
        supervisor.signal(Signal::SIGUSR2)?;
        supervisor.wait_until("the succession", |status| status.replacements.count == 1)?;
        crate::scene::assert_reached(&target);
        let links = supervisor.status()?.links;
        supervisor.end(Signal::SIGKILL)?;

        let supervisor = lab.supervisor(&file).under(&under).start()?;
        assert_eq!(supervisor.status()?.links, links, "adopted, not made again");
        crate::scene::assert_reached(&target);
        supervisor.end(Signal::SIGKILL)?;
        let mut command = lab.beside(under[0])?;
        command.args(&under[1..]).arg(binaries::find(binaries::SUPERVISOR)?);
        command.arg("uninstall").args(lab.instance_arguments());
        let ended = holdfast_lab::inside::Ended::run(&mut command)?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        crate::scene::wait_until_ungoverned(&target)?;
        Ok(())
    });
}

/// Detaches a link behind everybody's back.
fn detach(id: u32) -> TestResult {
    use std::os::fd::AsFd;
    let link = holdfast_bpf::object::by_id(holdfast_protocol::manifest::Kind::Link, id)?;
    Ok(holdfast_bpf::link::detach(link.as_fd())?)
}
