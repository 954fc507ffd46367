//! `holdfast-bench all --quick`: everything can be measured, and what cannot be says why. No figure is
//! looked at.

use std::error::Error;
use std::process::Command;

use holdfast_lab::binaries;
use serde_json::Value;

/// Every measurement, as the page orders them.
const NAMES: [&str; 8] =
    ["connect", "against", "established", "takeover", "reload", "apply", "footprint", "events"];

#[test]
fn everything_is_measured_into_one_file_and_one_page() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let ran = Command::new(binaries::find("holdfast-bench")?)
        .args(["all", "--quick", "--out"])
        .arg(directory.path())
        .output()?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    let mut files: Vec<_> = std::fs::read_dir(directory.path())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let [html, json] = &files[..] else { return Err(format!("wrote {files:?}").into()) };

    let results: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    assert_eq!((&results["version"], &results["quick"]), (&Value::from(1), &Value::from(true)));
    let sections = results["sections"].as_array().ok_or("no sections")?;
    let names: Vec<&str> = sections.iter().filter_map(|section| section["name"].as_str()).collect();
    assert_eq!(names, NAMES);
    for section in sections {
        let rows = section["tables"].as_array().into_iter().flatten();
        let rows = rows.flat_map(|table| table["rows"].as_array().into_iter().flatten());
        for row in rows {
            let why = row["not_measured"].as_str().is_some_and(|why| !why.is_empty());
            assert!(row["measured"].is_object() || why, "{}: {row}", section["name"]);
        }
        assert!(section["load"][0] != "", "the load is said: {}", section["name"]);
    }

    let page = std::fs::read_to_string(html)?;
    assert!(page.contains("<svg") && page.contains("A smoke test"));
    for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    Ok(())
}

#[test]
fn wrong_input_is_named() -> Result<(), Box<dyn Error>> {
    for (arguments, said) in [
        (&["all", "--only", "conect"][..], "there is no measurement conect"),
        (&["takeover", "--sizes", "10"], "SERVICESxENDPOINTS"),
        (&["takeover", "--sizes", "1000x10000"], "10,000,000, and no configuration has more"),
        (&["render", "/nowhere.json", "/tmp/x.html"], "/nowhere.json"),
    ] {
        let ran = Command::new(binaries::find("holdfast-bench")?).args(arguments).output()?;
        let complaint = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && complaint.contains(said), "{arguments:?}: {complaint}");
    }
    Ok(())
}
