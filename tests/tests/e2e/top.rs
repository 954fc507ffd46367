//! What `holdfastctl top` and `schema` print.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use holdfast_lab::inside::INSTANCE;
use holdfast_lab::load::Shape;
use holdfast_lab::{Lab, Load, TestResult, binaries, isolated};
use serde_json::Value;

use crate::scene::Scene;

/// One client that connects about every 5 milliseconds.
const SHAPE: Shape = Shape { clients: 1, rest: Duration::from_millis(5), seed: 4 };

/// `holdfastctl top --json` with its output in a pipe.
fn top(lab: &Lab, arguments: &[&str]) -> Result<Child, Box<dyn std::error::Error>> {
    let mut command = lab.beside(binaries::find(binaries::CTL)?)?;
    command.args(["--instance", INSTANCE, "--run-dir"]).arg(lab.run_directory());
    Ok(command.args(["top", "--json"]).args(arguments).stdout(Stdio::piped()).spawn()?)
}

#[test]
fn a_pipe_gets_one_interval() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let load = Load::start(&[scene.target()], SHAPE);
        let ended = lab.ctl(&["top", "--interval", "300ms"])?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert_eq!(lines.len(), 2, "{ended:?}");
        assert!(lines[0].starts_with("SERVICE"), "{ended:?}");
        let rate = lines[1].split_whitespace().nth(3).ok_or("no rate")?;
        assert!(rate.parse::<f64>()? > 0.0, "{ended:?}");
        assert_eq!(load.finish().failed, 0);
        Ok(())
    });
}

#[test]
fn json_is_a_line_per_interval_also_while_the_worker_is_killed() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let load = Load::start(&[scene.target()], SHAPE);
        let mut child = top(lab, &["--interval", "200ms", "--count", "5"])?;
        let mut totals = Vec::new();
        for line in BufReader::new(child.stdout.take().ok_or("no pipe")?).lines() {
            let line: Value = serde_json::from_str(&line?)?;
            assert!(line["interval_s"].as_f64() >= Some(0.2), "{line}");
            let web = &line["services"][0];
            assert!(web["connections_per_s"].as_f64() > Some(0.0), "{line}");
            totals.push(web["connections"].as_u64());
            scene.supervisor.kill_worker(scene.supervisor.status()?.worker.pid);
        }
        assert!(child.wait()?.success());
        assert_eq!(totals.len(), 5, "{totals:?}");
        assert!(totals.is_sorted(), "{totals:?}");
        assert_eq!(load.finish().failed, 0);
        Ok(())
    });
}

#[test]
fn who_has_read_enough_ends_it() {
    isolated(|lab| -> TestResult {
        let _scene = Scene::start(lab)?;
        let mut child = top(lab, &["--interval", "100ms"])?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        assert!(line.contains("\"web\""), "{line}");
        assert!(child.wait()?.success(), "nobody reads any more");
        Ok(())
    });
}

#[test]
fn the_schema_is_the_one_that_is_published() {
    isolated(|lab| {
        let ended = lab.ctl(&["schema"])?;
        assert_eq!(ended.stdout, include_str!("../../../docs/configuration.schema.json"));
        Ok(())
    });
}
