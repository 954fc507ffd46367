//! From inside a process that has confined itself by the worker's own code, every way out is tried,
//! and leads nowhere. Each way is tried without the fences too, where it has to lead somewhere: an
//! attempt that is wrong proves nothing. Needs root.
#![expect(clippy::unwrap_used, reason = "in a test, what is not there is a failure")]

mod scene;

use std::os::unix::process::ExitStatusExt as _;

use scene::{Outcome, Scene};

/// Everything that is tried.
const ATTEMPTS: [&str; 25] = [
    "create-map",
    "load-program",
    "detach-link",
    "read-outside",
    "read-memory-file",
    "create-file",
    "overwrite",
    "remove",
    "execute",
    "fork",
    "start-thread",
    "make-code",
    "trace",
    "read-memory",
    "signal",
    "open-process",
    "connect-unix",
    "connect-abstract",
    "connect-tcp",
    "connect-as-checks-do",
    "listen-tcp",
    "mount",
    "new-user-namespace",
    "become-root",
    "io-uring",
];

/// What any user may do, however few privileges it has: only the sandbox stands in its way.
const OPEN_TO_ALL: [&str; 16] = [
    "detach-link",
    "read-outside",
    "create-file",
    "overwrite",
    "remove",
    "execute",
    "fork",
    "start-thread",
    "make-code",
    "signal",
    "open-process",
    "connect-unix",
    "connect-abstract",
    "connect-tcp",
    "connect-as-checks-do",
    "listen-tcp",
];

/// What Landlock stops by itself.
const STOPPED_BY_LANDLOCK: [&str; 8] = [
    "read-outside",
    "create-file",
    "overwrite",
    "remove",
    "execute",
    "signal",
    "connect-abstract",
    "listen-tcp",
];

/// What a worker needs that checks endpoints.
const OPEN_TO_CHECKS: [&str; 1] = ["connect-as-checks-do"];

/// What the filter of system calls lets pass: opening files to read them, which it cannot tell
/// apart by name.
const LEFT_TO_LANDLOCK: [&str; 1] = ["read-outside"];

fn check(fences: &str, attempts: &[&str], expected: impl Fn(&str) -> bool) {
    judge(fences, attempts, |attempt, outcome| (*outcome == Outcome::Escaped) == expected(attempt));
}

fn judge(fences: &str, attempts: &[&str], is_right: impl Fn(&str, &Outcome) -> bool) {
    let wrong: Vec<String> = attempts
        .iter()
        .map(|attempt| (attempt, Scene::new().attempt(fences, attempt)))
        .filter(|(attempt, outcome)| !is_right(attempt, outcome))
        .map(|(attempt, outcome)| format!("{attempt}: {outcome:?}"))
        .collect();
    assert!(wrong.is_empty(), "behind {fences}: {wrong:#?}");
}

#[test]
fn no_way_leads_out_of_a_worker_that_checks_nobody() {
    check("user,files,calls,unchecked", &ATTEMPTS, |_| false);
}

#[test]
fn one_that_checks_endpoints_can_open_tcp_connections_and_nothing_else() {
    check("user,files,calls", &ATTEMPTS, |attempt| OPEN_TO_CHECKS.contains(&attempt));
}

#[test]
fn every_way_is_open_to_root() {
    check("none", &ATTEMPTS, |_| true);
}

/// It stays root, with the right to administer network and system, so nothing is left to chance.
#[test]
fn whatever_a_closer_does_beside_closing_ends_it() {
    judge("closer", &ATTEMPTS, |_, outcome| *outcome == Outcome::Killed);
}

#[test]
fn without_the_sandbox_a_user_gets_far() {
    check("user", &OPEN_TO_ALL, |_| true);
}

#[test]
fn landlock_alone_stops_what_it_knows_of() {
    check("user,files", &OPEN_TO_ALL, |attempt| !STOPPED_BY_LANDLOCK.contains(&attempt));
}

#[test]
fn the_filter_of_system_calls_alone_stops_all_but_reading() {
    check("user,calls,unchecked", &OPEN_TO_ALL, |attempt| LEFT_TO_LANDLOCK.contains(&attempt));
}

/// What a panic in a release build ends with: it has to look like one from outside.
#[test]
fn an_abort_is_still_an_abort() {
    let output = Scene::new().run("user,files,calls", "abort");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", output.status);
}
