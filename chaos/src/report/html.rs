//! A report as one HTML page: no script, nothing from the network.

use std::fmt::{self, Write};

use holdfast_lab::page::{self, escape, grouped};

use super::Report;
use super::figures::{bytes, faults, ms, saves, takeovers, troubles, windows};
use super::timeline::draw;
use crate::history::Percentiles;

/// How the drawing looks.
const STYLE: &str = include_str!("page.css");

/// What the colours of the drawing mean.
const LEGEND: [(&str, &str); 6] = [
    ("--area", "new connections"),
    ("--amber", "takeover: no worker could write"),
    ("--fault", "fault, from its begin to its end"),
    ("--shade", "declared: something was impossible by nature"),
    ("--dim", "trouble that a declaration excuses"),
    ("--bad", "failure"),
];

/// The page.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(report, &mut out);
    out
}

fn write_page(report: &Report, out: &mut String) -> fmt::Result {
    out.push_str(&page::begin("Holdfast under faults", STYLE));
    head(report, out)?;
    cards(report, out)?;
    write!(out, "<h2>Timeline</h2><figure>{}", draw(&report.history))?;
    out.push_str("<div class=\"legend\">");
    for (colour, what) in LEGEND {
        write!(out, "<span><i style=\"background:var({colour})\"></i>{what}</span>")?;
    }
    out.push_str("</div></figure>");
    curves(report, out)?;
    promises(report, out)?;
    takeover_table(report, out)?;
    fault_table(report, out)?;
    declarations(report, out)?;
    again(report, out)?;
    out.push_str(page::END);
    Ok(())
}

fn head(report: &Report, out: &mut String) -> fmt::Result {
    let (mark, verdict) = match report.is_kept() {
        true => ("good", "every promise was kept"),
        false => ("bad", "a promise was broken"),
    };
    let (machine, order) = (&report.machine, &report.script.plan.order);
    write!(
        out,
        "<h1>Holdfast under faults: <span class=\"{mark}\">{verdict}</span></h1>\
         <p class=\"dim\">{} s of faults ({}), seed {}, on {} · {} processors ({}), Linux {}, \
         load {}</p>",
        order.duration_ms / 1000,
        escape(&order.kinds.to_string()),
        order.seed,
        machine.time(),
        machine.processors,
        escape(&machine.processor),
        escape(&machine.kernel),
        escape(&machine.load)
    )
}

fn cards(report: &Report, out: &mut String) -> fmt::Result {
    let history = &report.history;
    out.push_str("<div class=\"cards\">");
    let mut card = |figure: String, what: &str, mark: &str| {
        write!(out, "<div class=\"card\"><b class=\"{mark}\">{figure}</b><span>{what}</span></div>")
    };
    card(grouped(history.connections.all()), "new connections", "")?;
    for it in troubles(history) {
        let bad = it.all.saturating_sub(it.excused);
        let what = match it.excused {
            0 => it.name.to_owned(),
            excused => format!("{}; {} more declared", it.name, grouped(excused)),
        };
        card(grouped(bad), &what, if bad == 0 { "good" } else { "bad" })?;
    }
    let broken = history.streams.iter().filter(|stream| stream.broken.is_some()).count();
    let streams = format!("of {} long connections broken", history.streams.len());
    card(broken.to_string(), &streams, if broken == 0 { "good" } else { "bad" })?;
    card(grouped(bytes(history) >> 20), "MiB checked on them", "")?;
    let hits = history.injected.iter().filter(|fault| fault.hit).count();
    card(grouped(hits as u64), "faults", "")?;
    out.push_str("</div>");
    Ok(())
}

fn curves(report: &Report, out: &mut String) -> fmt::Result {
    if let Some(drawing) = super::curves::draw(&report.history) {
        write!(
            out,
            "<h2>Memory and descriptors</h2><figure>{drawing}</figure><p class=\"dim\">Once a second, \
             of the supervisor and of the worker that writes.</p>"
        )?;
    }
    Ok(())
}

fn promises(report: &Report, out: &mut String) -> fmt::Result {
    out.push_str("<h2>Promises</h2><div class=\"scroll\"><table>");
    for verdict in &report.verdicts {
        let (mark, word) = match verdict.complaints.is_empty() {
            true => ("good", "kept"),
            false => ("bad", "broken"),
        };
        write!(
            out,
            "<tr><td>{}</td><td class=\"text\">{}",
            escape(&verdict.promise),
            escape(&verdict.about)
        )?;
        if !verdict.complaints.is_empty() {
            out.push_str("<ul>");
            for complaint in &verdict.complaints {
                write!(out, "<li class=\"bad\">{}</li>", escape(complaint))?;
            }
            out.push_str("</ul>");
        }
        write!(out, "</td><td class=\"{mark}\">{word}</td></tr>")?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn percentile_cells(time: &Percentiles, out: &mut String) -> fmt::Result {
    write!(out, "<td>{}</td>", time.count)?;
    if time.count == 0 {
        out.push_str("<td>-</td><td>-</td><td>-</td><td>-</td></tr>");
        return Ok(());
    }
    for us in [time.p50_us, time.p90_us, time.p99_us, time.longest_us] {
        write!(out, "<td>{}</td>", ms(us))?;
    }
    out.push_str("</tr>");
    Ok(())
}

fn takeover_table(report: &Report, out: &mut String) -> fmt::Result {
    let history = &report.history;
    out.push_str(
        "<h2>Times</h2><p class=\"dim\">Takeovers: from just before the fault until the supervisor \
         says that another worker is granted. Percentiles are of the nearest rank, of what was \
         measured.</p><div class=\"scroll\"><table><tr><th>in milliseconds</th><th>measured</th>\
         <th>p50</th><th>p90</th><th>p99</th><th>longest</th></tr>",
    );
    for it in takeovers(history) {
        let how = if it.alone { "" } else { ", while others went on" };
        write!(out, "<tr><td>takeover after {}{how}</td>", it.because_of)?;
        percentile_cells(&it.time, out)?;
    }
    out.push_str("<tr><td>a save, until it is in force</td>");
    percentile_cells(&saves(history), out)?;
    out.push_str("<tr><td>a connection, until its backend answers</td>");
    percentile_cells(&history.connections.time, out)?;
    out.push_str("</table></div>");
    Ok(())
}

fn fault_table(report: &Report, out: &mut String) -> fmt::Result {
    out.push_str(
        "<h2>Faults</h2><div class=\"scroll\"><table><tr><th>fault</th><th class=\"text\">what it \
         does</th><th>injected</th><th>nothing to hit</th><th>as before after at most</th></tr>",
    );
    for (kind, tally) in faults(&report.history) {
        let longest = match tally.restoring.count {
            0 => "-".to_owned(),
            _ => format!("{} ms", ms(tally.restoring.longest_us)),
        };
        write!(
            out,
            "<tr><td>{kind}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{longest}</td>\
             </tr>",
            escape(kind.about()),
            tally.hit,
            tally.missed
        )?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn declarations(report: &Report, out: &mut String) -> fmt::Result {
    let declared = windows(&report.history);
    if declared.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<h2>Declared impossible</h2><p class=\"dim\">From the fault until the state was seen to be \
         as before. Nothing else excuses a connection.</p><div class=\"scroll\"><table><tr>\
         <th>fault</th><th class=\"text\">why</th><th>times</th><th>in all</th></tr>",
    );
    for it in declared {
        write!(
            out,
            "<tr><td>{}</td><td class=\"text\">{}</td><td>{}</td><td>{} ms</td></tr>",
            it.because_of,
            it.reason,
            it.count,
            ms(it.total_us)
        )?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn again(report: &Report, out: &mut String) -> fmt::Result {
    write!(
        out,
        "<h2>Again</h2><p>Made by <code>{}</code></p><p>The same faults at the same instants: \
         <code>holdfast-chaos replay REPORT.json</code>, with the JSON report of this run, or \
         <code>--seed {}</code> with the same options.</p>",
        escape(&report.command),
        report.script.plan.order.seed
    )
}
