//! `holdfastctl check`, and what needs no supervisor.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const VALID: &str = "\
services:
  - name: web
    addresses: [127.96.0.10]
    ports: [{ name: http, port: 80, target_port: 18080 }]
    endpoints: [{ address: 127.0.0.1 }]
";

fn holdfastctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfastctl")).args(arguments).output().unwrap()
}

fn check(path: &Path, more: &[&str]) -> (i32, String, String) {
    let output = holdfastctl(&[&["check", path.to_str().unwrap()], more].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    directory
}

#[test]
fn a_valid_configuration_is_said_to_be() {
    let directory = directory(&[("web.yaml", VALID)]);
    let counted = "valid: 1 service, 1 endpoint\n".to_owned();
    assert_eq!(check(directory.path(), &[]), (0, counted, String::new()));
    let file = directory.path().join("web.yaml");
    assert_eq!(check(&file, &["--json"]), (0, "[]\n".to_owned(), String::new()));
    assert_eq!(fs::read_to_string(&file).unwrap(), VALID);
}

#[test]
fn every_error_is_one_line_in_a_pipe() {
    let bad = VALID.replace("port: 80,", "port: 0,").replace("127.0.0.1", "localhost");
    let directory = directory(&[("a.yaml", &bad), ("b.yaml", "services: [\n")]);
    let (code, out, err) = check(directory.path(), &[]);
    let at = directory.path().display();
    let expected = format!(
        "{at}/a.yaml:4:33: port 0 is out of range: write a port between 1 and 65535\n\
         {at}/a.yaml:5:28: `localhost` is not an IP address; names are not resolved: write an \
         IPv4 or IPv6 address\n\
         {at}/b.yaml:2:1: not valid YAML: "
    );
    assert!(out.starts_with(&expected), "{out}");
    assert_eq!((code, out.lines().count(), err.as_str()), (1, 3, ""));
}

#[test]
fn errors_are_a_list_for_programs() {
    let directory = directory(&[("web.yaml", "services: []\nport: 1\n")]);
    let file = directory.path().join("web.yaml");
    let (code, out, _) = check(&file, &["--json"]);
    let message = "unknown key `port` in the file; Possible here: `services`, `node`, `enrolment`, `access_log`, `identities`, `policies` or `inbound`";
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        json!([{ "file": file.to_str().unwrap(), "line": 2, "column": 1, "message": message }])
    );
    assert_eq!(code, 1);
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_invalid() {
    let directory = directory(&[("empty.yaml", "")]);
    let at = |name: &str| directory.path().join(name);
    let (code, out, err) = check(&at("missing.yaml"), &[]);
    assert_eq!((code, out.as_str()), (66, ""));
    assert!(err.contains("missing.yaml") && err.contains("No such file"), "{err}");
    let (code, out, _) = check(&at("empty.yaml"), &[]);
    assert_eq!(code, 1);
    assert!(out.contains("empty.yaml:1:1: the file is empty"), "{out}");
    File::create(at("huge.yaml")).unwrap().set_len(50 * 1024 * 1024).unwrap();
    let (code, _, err) = check(&at("huge.yaml"), &[]);
    assert_eq!(code, 1);
    assert!(err.contains("larger than the limit of 16777216 bytes"), "{err}");
    let (code, out, _) = check(&at("huge.yaml"), &["--json"]);
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &rows[0]["line"]), (1, &json!(1)));
    let (code, _, err) = check(Path::new("/dev/null"), &[]);
    assert_eq!(code, 66);
    assert!(err.contains("/dev/null is a device"), "{err}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    // Long file names make more text than a pipe holds.
    let name = format!("{}.yaml", "x".repeat(200));
    let directory = directory(&[]);
    let mut directory_path = directory.path().to_owned();
    for _ in 0..8 {
        directory_path.push("y".repeat(200));
    }
    fs::create_dir_all(&directory_path).unwrap();
    let file = directory_path.join(name);
    fs::write(&file, format!("services:\n{}", "  - x\n".repeat(200))).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfastctl"))
        .arg("check")
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let directory = directory(&[("web.yaml", VALID)]);
    let output = Command::new(env!("CARGO_BIN_EXE_holdfastctl"))
        .arg("check")
        .arg(directory.path())
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
}

#[test]
fn a_newcomer_finds_the_verbs_and_the_exit_statuses() {
    let output = holdfastctl(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    for word in [
        "status",
        "services",
        "endpoints",
        "links",
        "reload",
        "uninstall",
        "check",
        "version",
        "completions",
        "--instance",
        "--run-dir",
        "--json",
        "Exit status:",
        "/run/holdfast",
    ] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = holdfastctl(&["completions", shell]);
        assert!(script.status.success());
        assert!(String::from_utf8(script.stdout).unwrap().contains("uninstall"));
    }
    assert_eq!(holdfastctl(&["--instance", "../etc", "status"]).status.code(), Some(2));
}
