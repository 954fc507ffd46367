//! Tries one way out of a worker, behind some of its fences, for `tests/escape`.
//!
//! `escape FENCES CONFIG ATTEMPT WHERE`: FENCES are any of `user`, `files`, `calls` and `unchecked` (what
//! a worker adds that has nobody to check), joined by commas, or `closer` (what confines the closer), or
//! `none`; CONFIG is what may be read. Ends with status 0 when the attempt got somewhere, and with 1 and the
//! error's number on standard output when it did not.
//!
//! `escape victim`: becomes `nobody`, says so, and lives until its standard input ends.

mod attempts;

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;

use holdfast_worker::close::sandbox as closer;
use holdfast_worker::serve::privilege::Identity;
use holdfast_worker::serve::sandbox::{calls, files};

use self::attempts::{Attempt, prepare};

/// Exit status of an attempt that was stopped; a panic has another one.
const STOPPED: u8 = 1;

/// The worker's user, here and by default.
const USER: &str = "nobody";

/// Messages may go through no descriptor at all.
const NO_LIFELINE: i32 = -1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["victim"] => victim(),
        [fences, config, attempt, place] => {
            let attempt = prepare(attempt, place);
            match behind(fences, Path::new(config), attempt) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    let number = error.raw_os_error().expect("the kernel stopped it");
                    println!("{number}");
                    ExitCode::from(STOPPED)
                }
            }
        }
        _ => panic!("usage: escape FENCES CONFIG ATTEMPT WHERE"),
    }
}

/// Confines this process as the worker does, and tries in a thread that was there before, because
/// the last fence has to hold for all threads.
fn behind(fences: &str, config: &Path, attempt: Attempt) -> io::Result<()> {
    let has = |fence| fences.split(',').any(|one| one == fence);
    if has("user") {
        let identity = Identity::resolve(USER, false).expect("every system has this user");
        identity.assume().expect("started as root");
    }
    if has("files") {
        let (_readable, enforced) = files::confine(config).expect("Landlock is not refused");
        assert_eq!(enforced, files::Enforced::Fully, "this kernel has no complete Landlock");
    }
    let (go, start) = mpsc::channel();
    let (starting, started) = mpsc::channel();
    let trying = std::thread::spawn(move || {
        starting.send(()).expect("awaited");
        start.recv().expect("told to go");
        attempt()
    });
    // A thread that is only just starting needs calls that are about to be denied.
    started.recv().expect("it starts");
    if has("calls") {
        let filter = calls::filter(NO_LIFELINE).expect("a filter for this processor");
        calls::confine(&filter).expect("seccomp is not refused");
    }
    if has("unchecked") {
        calls::renounce_connecting().expect("one more filter is not refused");
    }
    if has("closer") {
        closer::confine(NO_LIFELINE, NO_LIFELINE).expect("seccomp is not refused to root");
    }
    go.send(()).expect("the thread waits");
    trying.join().expect("an attempt does not panic")
}

fn victim() -> ExitCode {
    let identity = Identity::resolve(USER, false).expect("every system has this user");
    identity.assume().expect("started as root");
    println!("{USER}");
    io::stdout().flush().expect("somebody listens");
    let _ends = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}
