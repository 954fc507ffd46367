//! A report as lines for a terminal.

use std::fmt::Write as _;

use super::Report;
use holdfast_lab::page::grouped;

use super::figures::{bytes, faults, ms, saves, takeovers, troubles, windows};

/// The figures and the verdicts.
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let (history, machine) = (&report.history, &report.machine);
    writeln!(
        out,
        "on {} processors, Linux {}, {}, load {}",
        machine.processors,
        machine.kernel,
        machine.time(),
        machine.load
    )?;
    let troubles = troubles(history).map(|it| match it.excused {
        0 => format!("{} {}", it.all, it.name),
        excused => format!("{} {} ({excused} of them could not be helped)", it.all, it.name),
    });
    writeln!(out, "connections  {}: {}", grouped(history.connections.all()), troubles.join(", "))?;
    let broken = history.streams.iter().filter(|stream| stream.broken.is_some()).count();
    let streams = history.streams.len();
    writeln!(
        out,
        "streams      {streams}, {broken} broken, {} bytes checked",
        grouped(bytes(history))
    )?;
    let saves = saves(history);
    writeln!(
        out,
        "saves        {}, in force after p50 {} ms, p99 {} ms",
        history.saves.len(),
        ms(saves.p50_us),
        ms(saves.p99_us)
    )?;
    for (kind, tally) in faults(history) {
        let missed =
            if tally.missed > 0 { format!(", {} missed", tally.missed) } else { String::new() };
        let longest = ms(tally.restoring.longest_us);
        writeln!(
            out,
            "{:<23}{:>6} injected{missed}, as before after at most {longest} ms",
            kind.name(),
            tally.hit
        )?;
    }
    for it in takeovers(history) {
        let (how, time) = (if it.alone { "alone" } else { "among others" }, it.time);
        writeln!(
            out,
            "takeover after {} ({how}): {} measured, p50 {} ms, p99 {} ms, longest {} ms",
            it.because_of,
            time.count,
            ms(time.p50_us),
            ms(time.p99_us),
            ms(time.longest_us)
        )?;
    }
    for window in windows(history) {
        let (because_of, total) = (window.because_of, ms(window.total_us));
        writeln!(
            out,
            "declared for {because_of}: {} times, {total} ms in all: {}",
            window.count, window.reason
        )?;
    }
    for verdict in &report.verdicts {
        let mark = if verdict.complaints.is_empty() { "kept  " } else { "BROKEN" };
        writeln!(out, "{mark} {}: {}", verdict.promise, verdict.about)?;
        for complaint in &verdict.complaints {
            writeln!(out, "       {complaint}")?;
        }
    }
    Ok(())
}
