//! The verbs that ask the supervisor, against one that answers what the test says.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use holdfast_lab::binaries;
use holdfast_protocol::control::{
    EndpointRow, Request, Response, SOCKET_NAME, Status, SupervisorStatus, TrafficRow,
    WorkerAnswer, WorkerQuery,
};
use holdfast_protocol::wire::{self, MAX_PACKET_BYTES};
use serde_json::{Value, json};
use tempfile::TempDir;
use uds::UnixSeqpacketListener;

/// A user without any right here.
const NOBODY: u32 = 65534;

/// A run directory whose instance `default` is answered for by this test.
struct Fake {
    run: TempDir,
    thread: JoinHandle<Vec<Request>>,
}

impl Fake {
    /// Answers one connection after the other with the packets of one of `answers`.
    fn new(answers: Vec<Vec<Vec<u8>>>) -> Self {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("default")).unwrap();
        let socket = run.path().join("default").join(SOCKET_NAME);
        let listener = UnixSeqpacketListener::bind(&socket).unwrap();
        let serve = move |packets: Vec<Vec<u8>>| {
            let (connection, _) = listener.accept_unix_addr().unwrap();
            let mut request = vec![0; MAX_PACKET_BYTES];
            let length = connection.recv(&mut request).unwrap();
            for packet in packets {
                connection.send(&packet).unwrap();
            }
            wire::decode(&request[..length]).unwrap()
        };
        let thread = std::thread::spawn(move || answers.into_iter().map(serve).collect());
        Self { run, thread }
    }

    /// Answers with these messages, one connection each.
    fn answering(answers: &[Response]) -> Self {
        Self::new(answers.iter().map(|answer| vec![wire::encode(answer).unwrap()]).collect())
    }

    fn holdfastctl(&self, arguments: &[&str]) -> Output {
        holdfastctl(self.run.path(), arguments)
    }

    /// What was asked.
    fn requests(self) -> Vec<Request> {
        self.thread.join().unwrap()
    }
}

fn holdfastctl(run: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastctl"));
    command.arg("--run-dir").arg(run).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn assert_failed(output: &Output, code: i32, reasons: &[&str]) {
    let err = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{err}");
    for reason in reasons {
        assert!(err.contains(reason), "{reason:?} is not in {err:?}");
    }
}

fn status() -> Response {
    Response::Status(Box::new(Status {
        instance: "default".to_owned(),
        supervisor: SupervisorStatus {
            pid: 7,
            uptime_s: 1,
            version: "9.9.9".to_owned(),
            capabilities: vec!["cap_kill".to_owned()],
        },
        ..Status::default()
    }))
}

#[test]
fn status_is_plain_in_a_pipe_and_whole_in_json() {
    let fake = Fake::answering(&[status(), status(), status()]);
    let text = stdout(&fake.holdfastctl(&["status"]));
    assert!(text.contains("supervisor  pid 7, up 1s, version 9.9.9\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let json: Value =
        serde_json::from_str(&stdout(&fake.holdfastctl(&["status", "--json"]))).unwrap();
    let supervisor = json!({
        "pid": 7, "uptime_s": 1, "version": "9.9.9", "capabilities": ["cap_kill"],
    });
    assert_eq!(json["supervisor"], supervisor);
    assert_eq!(json["takeovers"]["last"], Value::Null);
    assert_eq!(json["config"]["state"], "unknown");
    let version = fake.holdfastctl(&["version", "--json"]);
    let version: Value = serde_json::from_str(&stdout(&version)).unwrap();
    assert_eq!(version, json!({ "holdfastctl": env!("CARGO_PKG_VERSION"), "supervisor": "9.9.9" }));
    assert_eq!(fake.requests(), [Request::Status, Request::Status, Request::Status]);
}

#[test]
fn a_reload_says_how_it_ended() {
    let failed =
        Response::Failed { reason: "web.yaml:1:1: bad; the old worker serves on".to_owned() };
    let granted = Response::Reloaded { epoch: 5, pid: 42, total_us: 12_345 };
    let fake = Fake::answering(&[granted.clone(), granted, failed.clone(), failed]);
    let text = stdout(&fake.holdfastctl(&["reload"]));
    assert_eq!(text, "granted: worker 42 serves in epoch 5, after 12.3 ms\n");
    let json: Value =
        serde_json::from_str(&stdout(&fake.holdfastctl(&["reload", "--json"]))).unwrap();
    assert_eq!(json, json!({ "epoch": 5, "pid": 42, "total_us": 12_345 }));
    assert_failed(&fake.holdfastctl(&["reload"]), 1, &["the old worker serves on"]);
    let output = fake.holdfastctl(&["reload", "--json"]);
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["reason"], "web.yaml:1:1: bad; the old worker serves on");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fake.requests().len(), 4);
}

#[test]
fn an_uninstall_lists_what_was_removed_over_several_answers() {
    let part = |item: &str, last| {
        wire::encode(&Response::Uninstalled { items: vec![item.to_owned()], last }).unwrap()
    };
    let fake = Fake::new(vec![vec![part("link 7", false), part("map 9", true)]]);
    let text = stdout(&fake.holdfastctl(&["uninstall"]));
    assert_eq!(text, "removed:\n  link 7\n  map 9\n");
    assert_eq!(fake.requests(), [Request::Uninstall]);
}

fn page(rows: u32, first: u32, next: Option<u32>) -> Response {
    let row = |number| EndpointRow {
        service: "web".to_owned(),
        port_name: "http".to_owned(),
        endpoint: format!("127.0.0.1:{number}"),
        weight: 1,
        state: "active".to_owned(),
        reason: String::new(),
        traffic: TrafficRow::default(),
        aliases: Vec::new(),
        drain: None,
    };
    let rows = (first..first + rows).map(row).collect();
    Response::Worker(wire::encode(&WorkerAnswer::Endpoints { rows, next }).unwrap())
}

#[test]
fn pages_are_put_together() {
    let fake = Fake::answering(&[page(3, 0, Some(3)), page(2, 3, None)]);
    let json: Value =
        serde_json::from_str(&stdout(&fake.holdfastctl(&["endpoints", "--json"]))).unwrap();
    let ports: Vec<&str> =
        json.as_array().unwrap().iter().map(|row| row["endpoint"].as_str().unwrap()).collect();
    assert_eq!(ports, [0, 1, 2, 3, 4].map(|i| format!("127.0.0.1:{i}")));
    let query = |offset| Request::Worker(wire::encode(&WorkerQuery::Endpoints { offset }).unwrap());
    assert_eq!(fake.requests(), [query(0), query(3)]);
}

#[test]
fn pages_that_do_not_get_on_are_refused() {
    let fake = Fake::answering(&[page(1, 0, Some(1)), page(1, 1, Some(1))]);
    assert_failed(&fake.holdfastctl(&["endpoints"]), 76, &["not asked"]);
    fake.requests();
}

#[test]
fn a_worker_that_cannot_answer_says_why() {
    let reason = "no worker is granted".to_owned();
    let inner = WorkerAnswer::Failed { reason: reason.clone() };
    let fake = Fake::answering(&[
        Response::Worker(wire::encode(&inner).unwrap()),
        Response::Failed { reason },
    ]);
    assert_failed(&fake.holdfastctl(&["services"]), 1, &["no worker is granted"]);
    assert_failed(&fake.holdfastctl(&["services"]), 1, &["no worker is granted"]);
    fake.requests();
}

#[test]
fn what_is_not_an_answer_is_named() {
    let mut newer = wire::encode(&status()).unwrap();
    newer[2] = 250;
    let fake = Fake::new(vec![
        vec![newer],
        vec![b"hello".to_vec()],
        vec![],
        vec![vec![b'x'; MAX_PACKET_BYTES + 100]],
        vec![wire::encode(&Response::Denied { reason: "root only".to_owned() }).unwrap()],
    ]);
    let ask = |code, reasons: &[&str]| assert_failed(&fake.holdfastctl(&["status"]), code, reasons);
    ask(76, &["protocol version 250"]);
    ask(76, &["not a Holdfast message"]);
    ask(75, &["closed the connection"]);
    ask(76, &["exceeds the limit"]);
    ask(77, &["root only"]);
    fake.requests();
}

#[test]
fn no_supervisor_is_said_with_the_socket_and_the_command() {
    let run = tempfile::tempdir().unwrap();
    let socket = run.path().join("web/control.sock");
    let reasons = [socket.to_str().unwrap(), "holdfast run --config FILE --instance web"];
    assert_failed(&holdfastctl(run.path(), &["status", "--instance", "web"]), 69, &reasons);
    // A socket that a supervisor left behind when it was killed.
    fs::create_dir(run.path().join("web")).unwrap();
    drop(UnixSeqpacketListener::bind(&socket).unwrap());
    assert_failed(&holdfastctl(run.path(), &["--instance", "web", "status"]), 69, &reasons);
    let version = holdfastctl(run.path(), &["--instance", "web", "version"]);
    assert!(version.status.success() && stdout(&version).contains("not running"), "{version:?}");
}

#[test]
fn a_user_without_the_right_is_told_what_to_do() {
    let fake = Fake::answering(&[status()]);
    // The directory that holds the program is not for everybody either.
    let program = fake.run.path().join("holdfastctl");
    binaries::replace(&program, Path::new(env!("CARGO_BIN_EXE_holdfastctl"))).unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(fake.run.path(), 0o755);
    mode(&fake.run.path().join("default"), 0o700);
    let mut command = Command::new(&program);
    command.current_dir("/").uid(NOBODY).gid(NOBODY).args(["status", "--run-dir"]);
    command.arg(fake.run.path());
    let as_nobody =
        command.output().expect("this test needs root, to become a user without any right");
    assert_failed(&as_nobody, 77, &["permission denied on", "sudo"]);
    // Ends the listener's thread.
    assert!(fake.holdfastctl(&["status"]).status.success());
    fake.requests();
}
