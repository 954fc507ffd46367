//! `holdfast-chaos` as a user runs it: the real binaries on the real kernel, with a fixed seed.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

type TestResult = Result<(), Box<dyn Error>>;

/// Faults of every kind overlap in this plan.
const SEED: &str = "3";

/// Of the promises only this is a time, 100 ms, and a machine that compiles or tests other things at the
/// same time may not keep it; `make chaos` and the record in docs/reliability.md hold it to that.
const GRACE_MS: &str = "500";

fn chaos(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_holdfast-chaos")).args(arguments).output()
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

fn read(path: &str) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// One test, because a run takes the machine's processors: two at a time would only wait for each
/// other.
#[test]
fn every_promise_is_kept_under_every_fault_and_a_report_is_replayed() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (json, html) = (path(directory.path(), "run.json"), path(directory.path(), "run.html"));
    let run = ["run", "--seed", SEED, "--duration", "20s", "--grace", GRACE_MS];
    let ran = chaos(&[&run[..], &["--report", &json, "--html", &html]].concat())?;
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));

    let report = read(&json)?;
    let verdicts = report["verdicts"].as_array().ok_or("no verdicts")?;
    assert_eq!(verdicts.len(), 10);
    assert!(verdicts.iter().all(|it| it["complaints"] == Value::Array(vec![])), "{verdicts:?}");
    let injected = report["history"]["injected"].as_array().ok_or("nothing injected")?;
    let kinds: std::collections::BTreeSet<&str> =
        injected.iter().filter_map(|it| it["fault"].as_str()).collect();
    assert!(kinds.len() >= 8, "{kinds:?}");
    let samples = report["history"]["resources"].as_array().ok_or("no samples")?;
    assert!(samples.len() >= 5, "{samples:?}");
    let reached = report["history"]["connections"]["tcp"]["reached"].as_u64();
    assert!(reached.is_some_and(|reached| reached > 1_000), "{reached:?}");

    let page = std::fs::read_to_string(&html)?;
    assert!(page.contains("<svg") && page.contains("every promise was kept"), "{page}");
    for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }

    let (short, again) =
        (path(directory.path(), "short.json"), path(directory.path(), "again.json"));
    let ran = chaos(
        &[
            &["run", "--faults", "kill,hang", "--duration", "3s"][..],
            &["--grace", GRACE_MS, "--report", &short],
        ]
        .concat(),
    )?;
    assert!(ran.status.success(), "{ran:?}");
    let ran = chaos(&["replay", &short, "--report", &again])?;
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(read(&again)?["script"], read(&short)?["script"]);
    Ok(())
}

#[test]
fn wrong_input_is_named() -> TestResult {
    let directory = tempfile::tempdir()?;
    let broken = path(directory.path(), "broken.json");
    std::fs::write(&broken, "{\"version\": 1")?;
    for (arguments, code, said) in [
        (&["run", "--faults", "kil"][..], 2, "there is no fault `kil`"),
        (&["run", "--rate", "0"], 2, "above 0"),
        (&["run", "--duration", "never"], 2, "15s"),
        (&["run", "--grace", "600"], 70, "the grace after a removal in us: 600000 is not between"),
        (&["run", "--endpoints", "1"], 70, "endpoints: 1 is not between 2 and"),
        (&["replay", "/nowhere.json"], 70, "/nowhere.json"),
        (&["replay", &broken], 70, "is no report of this program"),
    ] {
        let ran = chaos(arguments)?;
        let complaint = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {complaint}");
        assert!(complaint.contains(said), "{arguments:?}: {complaint}");
    }
    let listed = chaos(&["run", "--list-faults"])?;
    assert!(listed.status.success());
    let text = String::from_utf8(listed.stdout)?;
    assert_eq!(text.lines().count(), 20, "{text}");
    Ok(())
}
