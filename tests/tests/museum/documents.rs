//! The museum is complete, and `docs/failure-model.md` names what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rows of the museum.
const ROWS: u32 = 30;

/// Where tests are.
const CRATES: [&str; 7] = ["tests", "supervisor", "worker", "config", "ctl", "lab", "chaos"];

/// Where the chaos suite's faults have their names.
const FAULTS: &str = "chaos/src/fault/kind.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("the repository is there");
    for entry in entries {
        let path = entry.expect("the repository is there").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of the functions in `directory` that are marked as tests.
fn tests(directory: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    sources(directory, &mut paths);
    let mut found = Vec::new();
    for path in paths {
        let text = read(&path);
        let after_marks = text.split("#[test]").skip(1);
        found.extend(after_marks.filter_map(|text| {
            let (_, text) = text.split_once("fn ")?;
            text.split_once('(').map(|(name, _)| name.to_owned())
        }));
    }
    found
}

#[test]
fn each_row_of_the_museum_has_one_test() {
    let mut rows: BTreeMap<String, u32> = BTreeMap::new();
    for name in tests(&root().join("tests/tests/museum")) {
        let id = name.split('_').next().unwrap_or_default();
        if id.starts_with("pf") {
            *rows.entry(id.to_owned()).or_default() += 1;
        }
    }
    let expected: BTreeMap<String, u32> =
        (1..=ROWS).map(|number| (format!("pf{number:02}"), 1)).collect();
    assert_eq!(rows, expected);
}

/// What stands between backticks in the last column of the tables that have a column `shown by`.
fn named(document: &str) -> BTreeSet<String> {
    let mut is_table = false;
    let mut found = BTreeSet::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let last = cells.last().map_or("", |cell| cell.trim());
        is_table = line.starts_with('|') && (is_table || last == "shown by");
        if is_table {
            found.extend(last.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_test_and_fault_that_the_failure_model_names_exists() {
    let named = named(&read(&root().join("docs/failure-model.md")));
    assert!(named.len() > 50, "{named:?}");
    let existing: BTreeSet<String> =
        CRATES.iter().flat_map(|name| tests(&root().join(name))).collect();
    let faults = read(&root().join(FAULTS));
    let is_there = |name: &&String| {
        existing.contains(*name) || faults.contains(&format!("Nature::new(\"{name}\""))
    };
    let missing: Vec<&String> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
