//! Injects a plan, fault by fault, and follows each until the state is as before.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::stage::Stage;
use super::stopwatch::Stopwatch;
use crate::fault::{Effect, FaultError, Guard, Kind, inject};
use crate::history::{Injected, Window};
use crate::load::clients::Count;
use crate::plan::{Plan, Planned};
use crate::watch::Watch;

/// How long the state may take to be as before, in microseconds. Above the sum of everything that a
/// takeover waits for, and far above what happens: a back-off after a starved start takes seconds.
const RESTORING_US: u64 = 40_000_000;

/// Longest nap between two looks at what is due: what instants are exact to.
const NAP: Duration = Duration::from_millis(1);

/// How long a fault that finds nothing to hit (no worker is granted at this instant) is tried again.
const TRYING_US: u64 = 1_000_000;

/// Time between two live lines.
const LINE_US: u64 = 1_000_000;

/// What was injected, and what that made impossible.
#[derive(Debug, Default)]
pub struct Conducted {
    /// The faults, in the order they began.
    pub injected: Vec<Injected>,
    /// The windows.
    pub windows: Vec<Window>,
    /// Supervisors that ended by themselves.
    pub unasked_ends: Vec<String>,
}

/// A fault that goes on, or has not been made good yet.
struct Active<'s> {
    kind: Kind,
    effects: Vec<Effect>,
    /// Index among those injected.
    index: usize,
    until_us: u64,
    guard: Option<Box<dyn Guard + 's>>,
}

/// Injects plans.
pub struct Conductor<'s> {
    stage: &'s Stage<'s>,
    watch: &'s Watch<'s>,
    count: &'s Count,
    stopwatch: Stopwatch,
    active: Vec<Active<'s>>,
    done: Conducted,
}

impl<'s> Conductor<'s> {
    /// With nothing injected yet.
    pub fn new(
        stage: &'s Stage<'s>,
        (watch, count): (&'s Watch<'s>, &'s Count),
        stopwatch: Stopwatch,
    ) -> Self {
        Self { stage, watch, count, stopwatch, active: Vec::new(), done: Conducted::default() }
    }

    /// Injects `plan`, and waits until the last fault was made good. Instants of the plan count from
    /// `begin_us`.
    pub fn conduct(mut self, plan: &Plan, begin_us: u64) -> Result<Conducted, FaultError> {
        let mut waiting: VecDeque<Planned> = plan.faults.iter().copied().collect();
        let end_us = begin_us + plan.order.duration_ms * 1000;
        let mut next_line_us = begin_us + LINE_US;
        loop {
            let now = self.stopwatch.now_us();
            self.undo(now, now >= end_us);
            self.look_after();
            if now >= end_us && self.active.is_empty() {
                break;
            }
            if now < end_us {
                self.inject_due(&mut waiting, begin_us, now)?;
            }
            if now >= next_line_us {
                next_line_us += LINE_US;
                // Nobody may be reading any more; the run goes on.
                let _nobody_reads = self.show((now - begin_us) / 1_000_000);
            }
            std::thread::sleep(NAP);
        }
        if std::io::stdout().is_terminal() {
            println!();
        }
        Ok(self.done)
    }

    /// Injects what is due and nothing is in the way of.
    fn inject_due(
        &mut self,
        waiting: &mut VecDeque<Planned>,
        begin_us: u64,
        now: u64,
    ) -> Result<(), FaultError> {
        let due = waiting.iter().take_while(|planned| begin_us + planned.at_us <= now).count();
        for planned in waiting.drain(..due).collect::<Vec<_>>().into_iter().rev() {
            let kind = planned.fault.kind();
            let is_blocked = self.active.iter().any(|active| active.kind.conflicts(kind));
            if is_blocked || !self.inject(planned, begin_us)? {
                waiting.push_front(planned);
            }
        }
        Ok(())
    }

    /// Injects one fault; false when there was nothing to hit and it is worth trying again.
    fn inject(&mut self, planned: Planned, begin_us: u64) -> Result<bool, FaultError> {
        let kind = planned.fault.kind();
        let at_us = self.stopwatch.now_us();
        let (hit, guard, note) = match inject(&planned.fault, self.stage) {
            Ok(injection) => {
                if let Some((who, at_us)) = injection.stricken {
                    self.watch.stricken(kind, who, at_us);
                }
                (true, Some(injection.guard), injection.note)
            }
            // A kill that waited would hit each worker the moment it starts: that is not random.
            Err(FaultError::NoTarget(_))
                if kind != Kind::Kill && at_us < begin_us + planned.at_us + TRYING_US =>
            {
                return Ok(false);
            }
            Err(error @ (FaultError::NoTarget(_) | FaultError::Unsupported(_))) => {
                (false, None, error.to_string())
            }
            Err(error) => return Err(error),
        };
        let index = self.done.injected.len();
        self.done.injected.push(Injected {
            fault: planned.fault,
            planned_us: begin_us + planned.at_us,
            at_us,
            end_us: self.stopwatch.now_us(),
            restored_us: None,
            hit,
            note,
        });
        if hit {
            let effects = planned.fault.effects();
            let until_us = at_us + planned.hold_us;
            self.active.push(Active { kind, effects, index, until_us, guard });
        }
        Ok(true)
    }

    /// Undoes what is due, or everything, and notes what was made good.
    fn undo(&mut self, now: u64, everything: bool) {
        let healthy_us = self.watch.healthy_us();
        let Conducted { injected, windows, .. } = &mut self.done;
        for active in &mut self.active {
            let fault = &mut injected[active.index];
            if active.guard.is_some() && (everything || now >= active.until_us) {
                active.guard = None;
                fault.end_us = self.stopwatch.now_us();
                let troubles = self.stage.troubles();
                if !troubles.is_empty() {
                    fault.note = format!("{}; {}", fault.note, troubles.join("; "));
                }
            }
            if active.guard.is_none() && healthy_us > fault.end_us {
                fault.restored_us = Some(healthy_us);
                self.watch.restored(active.kind);
            } else if active.guard.is_none() && now > fault.end_us + RESTORING_US {
                fault.note = format!("{}; {}", fault.note, self.watch.ailment());
            } else {
                continue;
            }
            let (from_us, because_of) = (fault.at_us, active.kind);
            windows.extend(active.effects.drain(..).map(|effect| Window {
                from_us,
                to_us: now,
                because_of,
                effect,
            }));
            // Marks it as followed to its end.
            active.until_us = u64::MAX;
        }
        self.active.retain(|active| active.until_us != u64::MAX);
    }

    /// Does what whatever watches over a supervisor does: starts one that has ended. Only one that a
    /// fault has left without memory or descriptors may end.
    fn look_after(&mut self) {
        let Some(ended) = self.stage.look_after_supervisor() else { return };
        let now = self.stopwatch.now_us();
        let starved = self.active.iter().find(|active| active.kind.starves());
        match starved {
            Some(active) => {
                let fault = &mut self.done.injected[active.index];
                fault.note = format!("{}; {ended}", fault.note);
            }
            None => self.done.unasked_ends.push(format!("at {} ms {ended}", now / 1000)),
        }
    }

    /// Shows where things stand: redrawn on a terminal, a line of its own elsewhere.
    fn show(&self, elapsed_s: u64) -> std::io::Result<()> {
        let (connections, troubles) = self.count.so_far();
        let standing = self.watch.standing();
        let last = standing
            .last_outage_us
            .map_or_else(|| "-".to_owned(), |us| format!("{} ms", us / 1000));
        let names: Vec<&str> = self.active.iter().map(|active| active.kind.name()).collect();
        let line = format!(
            "{elapsed_s:>5} s  connections {connections:>8}  in trouble {troubles:>4}  epoch {:>5}  \
             last takeover {last:>8}  {}",
            standing.epoch,
            names.join(" "),
        );
        let mut out = std::io::stdout().lock();
        if out.is_terminal() { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") }?;
        out.flush()
    }
}
