//! The files under `deploy/` themselves.

use std::fs;
use std::process::Command;

use holdfast_lab::TestResult;
use holdfast_lab::inside::Ended;

use crate::bundle::documented_capabilities;
use crate::dockerfile::{Copied, Dockerfile, context};

#[test]
fn the_image_is_built_by_make_from_what_is_committed() -> TestResult {
    let file = Dockerfile::of_repository()?;
    assert_eq!(file.build_stage("RUN"), ["make image"]);
    let mut make = Command::new("make");
    let ended = Ended::run(make.args(["--dry-run", "image"]).current_dir(context()))?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let builds: Vec<_> = ended.stdout.lines().filter(|line| line.contains(" build ")).collect();
    assert!(!builds.is_empty(), "{ended:?}");
    for build in builds {
        for word in ["--locked", "--release", "crt-static"] {
            assert!(build.contains(word), "no {word} in `{build}`");
        }
    }
    let manifest = fs::read_to_string(context().join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let version = version.ok_or("the workspace has a rust-version")?.trim_matches('"');
    let expected = format!("rust:{version}-bookworm AS build");
    assert_eq!(file.build_stage("FROM"), [expected]);
    Ok(())
}

#[test]
fn the_image_holds_what_its_command_needs_and_leaves_on_sigterm() -> TestResult {
    let file = Dockerfile::of_repository()?;
    assert_eq!(file.last_stage("FROM"), ["scratch"]);
    assert_eq!(file.last_stage("STOPSIGNAL"), ["SIGTERM"]);
    let copied = file.copied()?;
    let holds = |path: &str| copied.iter().any(|Copied { destination, .. }| destination == path);
    let (entrypoint, command) = file.process()?;
    let [program] = &entrypoint[..] else { panic!("{entrypoint:?}") };
    for path in [program, "/usr/bin/holdfast-worker", "/usr/bin/holdfastctl", "/etc/passwd"] {
        assert!(holds(path), "{path} is not in the image: {copied:?}");
    }
    assert_eq!(command.first().map(String::as_str), Some("run"));
    Ok(())
}

#[test]
fn the_unit_is_given_the_documented_capabilities() -> TestResult {
    let text = fs::read_to_string(context().join("deploy/holdfast.service"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let mut given: Vec<_> = line.ok_or("no bounding set")?.split(' ').map(str::to_owned).collect();
    given.sort();
    assert_eq!(given, documented_capabilities()?);
    Ok(())
}
