//! [`isolated`]: one test, in a patch of its own.

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::LabError;
use crate::inside::Lab;
use crate::patch::{End, Patch};

/// What the body of a test ends with.
pub type TestResult = Result<(), Box<dyn Error>>;

/// How long one test may take: an order of magnitude above the slowest on an idle machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// The file the inside makes once the body has ended well: a run of no test at all ends well too.
const PASSED: &str = "passed";

/// Where the inside prints to.
const OUTPUT: &str = "output.log";

/// Longest part of a log that is shown when a test fails, in bytes.
const SHOWN_LOG_BYTES: usize = 32 * 1024;

/// Runs `body` in a patch of its own, as the only test of a fresh process.
///
/// To be called with a closure written in the `#[test]` function itself: the test is found again in
/// the fresh process by the function's path.
///
/// # Panics
///
/// When the body panics, gives an error, ends the process or takes longer than five minutes; what it
/// printed and the logs of its lab are printed first.
pub fn isolated<F: FnOnce(&Lab) -> TestResult>(body: F) {
    let here = Lab::here().unwrap_or_else(|error| panic!("cannot make the lab ready: {error}"));
    match here {
        Some(lab) => {
            body(&lab).unwrap_or_else(|error| panic!("{error}"));
            File::create(lab.directory().join(PASSED)).expect("the lab's directory is writable");
        }
        None => run_inside(test_path(std::any::type_name::<F>())),
    }
}

fn run_inside(test: &str) {
    let patch = Patch::new().unwrap_or_else(|error| panic!("cannot make a lab: {error}"));
    let end = rerun(&patch, test).unwrap_or_else(|error| panic!("cannot run {test}: {error}"));
    if !matches!(end, End::Exited(status) if status.success()) {
        print_logs(patch.directory());
        panic!("{test} failed in its lab: {end:?}");
    }
    assert!(patch.directory().join(PASSED).exists(), "no test is called `{test}`");
    patch.remove().unwrap_or_else(|error| panic!("{test} passed, but its lab stays: {error}"));
}

fn rerun(patch: &Patch, test: &str) -> Result<End, LabError> {
    let own = std::env::current_exe().map_err(LabError::system("find this test's binary"))?;
    let path = patch.directory().join(OUTPUT);
    let output = File::create(&path).map_err(LabError::file("create", &path))?;
    let copy = output.try_clone().map_err(LabError::file("duplicate", &path))?;
    let mut command = Command::new(own);
    command.args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"]);
    command.stdin(std::process::Stdio::null()).stdout(output).stderr(copy);
    patch.run(command, DEADLINE, None)
}

/// The path by which the test harness knows the function that a closure of type `name` was written
/// in: without the crate's name in front and the closure's behind.
fn test_path(name: &str) -> &str {
    let name = name.split_once("::").map_or(name, |(_, path)| path);
    name.strip_suffix("::{{closure}}").unwrap_or(name)
}

/// Prints the ends of all logs in `directory`.
fn print_logs(directory: &Path) {
    let mut logs: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    for path in logs {
        let bytes = fs::read(&path).unwrap_or_default();
        let shown = &bytes[bytes.len().saturating_sub(SHOWN_LOG_BYTES)..];
        println!("--- {}\n{}", path.display(), String::from_utf8_lossy(shown));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::cgroup;

    #[test]
    fn a_lab_has_its_own_cgroup_bpffs_and_network() {
        isolated(|lab| {
            let governed = cgroup::processes(&lab.governed())?;
            assert_eq!(governed, [std::process::id()]);
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            let bpffs = lab.bpffs().display().to_string();
            let is_bpffs = |line: &&str| line.contains(&bpffs) && line.contains(" - bpf ");
            assert_eq!(mounts.lines().filter(is_bpffs).count(), 1, "{mounts}");
            let listener = TcpListener::bind("127.64.0.1:80")?;
            TcpStream::connect(listener.local_addr()?)?;
            let refused = TcpStream::connect("127.64.0.2:80").expect_err("nobody listens there");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            Ok(())
        });
    }

    #[test]
    fn a_failing_body_fails_the_test_and_leaves_nothing() {
        // Inside the lab this test is run again, with the body that fails.
        if Lab::here().expect("the lab can be made ready").is_some() {
            Command::new("sleep").arg("1000").spawn().expect("sleep is on every Debian");
            std::process::abort();
        }
        let patch = Patch::new().expect("this test runs as root");
        let test = "test::tests::a_failing_body_fails_the_test_and_leaves_nothing";
        let end = rerun(&patch, test).expect("the test can be run again");
        assert!(matches!(end, End::Exited(status) if !status.success()), "{end:?}");
        let directory = patch.directory().to_owned();
        patch.remove().expect("everything inside is ours to remove");
        assert!(!directory.exists());
    }

    #[test]
    fn a_closure_knows_the_test_it_stands_in() {
        fn name<F: FnOnce()>(_: F) -> &'static str {
            std::any::type_name::<F>()
        }
        let path = test_path(name(|| ()));
        assert_eq!(path, "test::tests::a_closure_knows_the_test_it_stands_in");
    }
}
