//! The steps of a load and of a change, apart, on the maps of a real estate.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_config::{Config, Sources, parse};
use holdfast_lab::Lab;
use holdfast_worker::serve::compile::compile;
use holdfast_worker::serve::tables::apply::Application;
use holdfast_worker::serve::tables::desired::Desired;
use holdfast_worker::serve::tables::maps::GrantedMaps;
use holdfast_worker::serve::tables::observe::observe;
use holdfast_worker::serve::tables::plan::{Operation, plan};
use holdfast_worker::serve::tables::rest::Rest;

use super::{CHANGES, estate, text};
use crate::rounds::Rounds;
use crate::sized::Size;

/// What a figure is of, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Parse,
    Compile,
    Plan,
    Write,
    Whole,
    ChangeParse,
    ChangeCompile,
    ChangePlan,
    ChangeWrite,
}

/// The steps of a load.
pub const LOAD: [Step; 5] = [Step::Parse, Step::Compile, Step::Plan, Step::Write, Step::Whole];

/// The steps of a change.
pub const CHANGE: [Step; 4] =
    [Step::ChangeParse, Step::ChangeCompile, Step::ChangePlan, Step::ChangeWrite];

impl Step {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse | Self::ChangeParse => "parse the text",
            Self::Compile | Self::ChangeCompile => "compile the tables",
            Self::Plan | Self::ChangePlan => "read the maps and plan",
            Self::Write | Self::ChangeWrite => "write the maps",
            Self::Whole => "all of it",
        }
    }
}

/// Measures `loads` loads, each followed by the changes, and by the removal of everything.
pub fn measure(lab: &Lab, size: Size, loads: usize) -> anyhow::Result<Rounds<Step>> {
    let mut maps = estate::abandoned(lab)?;
    let texts = CHANGES.map(|change| Sources::single("bench.yaml", text(size, change)));
    let mut rounds = Rounds::default();
    // The first load warms up, and leaves nothing of the former worker.
    for load in 0..=loads {
        let mut warming = Rounds::default();
        let figures = if load == 0 { &mut warming } else { &mut rounds };
        let (parse_ms, config) = timed(|| parsed(&texts[2]))?;
        let (compile_ms, desired) = timed(|| Ok(compile(&config)))?;
        let (plan_ms, write_ms, _) = put(&mut maps, &desired)?;
        let all = [parse_ms, compile_ms, plan_ms, write_ms];
        for (step, ms) in LOAD.into_iter().zip(all) {
            figures.add(step, ms);
        }
        figures.add(Step::Whole, all.iter().sum());
        for sources in &texts {
            let (parse_ms, config) = timed(|| parsed(sources))?;
            let (compile_ms, desired) = timed(|| Ok(compile(&config)))?;
            let (plan_ms, write_ms, rewritten) = put(&mut maps, &desired)?;
            ensure!(rewritten <= 1, "one endpoint's change rewrites {rewritten} services");
            let all = [parse_ms, compile_ms, plan_ms, write_ms];
            for (step, ms) in CHANGE.into_iter().zip(all) {
                figures.add(step, ms);
            }
        }
        put(&mut maps, &Desired::default())?;
    }
    Ok(rounds)
}

fn parsed(sources: &Sources) -> anyhow::Result<Config> {
    parse(sources).map_err(|errors| anyhow::anyhow!("{errors}")).context("the text is valid")
}

/// Brings `desired` into the maps: milliseconds of looking and planning, milliseconds of writing, and
/// how many tables were written.
fn put(maps: &mut GrantedMaps, desired: &Desired) -> anyhow::Result<(f64, f64, usize)> {
    // Nobody connects in this patch: what was freed is free at once.
    let mut rest = Rest::default();
    rest.end();
    let (plan_ms, plan) = timed(|| {
        let observed = observe(maps)?;
        let space = &mut rest.space(maps, &observed);
        Ok(plan(&observed, desired, space)?)
    })?;
    let tables =
        plan.operations.iter().filter(|it| matches!(it, Operation::WriteTable { .. })).count();
    let mut application = Application::new(plan);
    let (write_ms, is_done) = timed(|| Ok(application.advance(desired, maps, usize::MAX)?))?;
    ensure!(is_done, "a plan that was carried out whole is done");
    Ok((plan_ms, write_ms, tables))
}

fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let begin = Instant::now();
    let done = work()?;
    let took: Duration = begin.elapsed();
    Ok((took.as_secs_f64() * 1e3, done))
}
