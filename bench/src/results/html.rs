//! Results as one HTML page: no script, nothing from the network (pure).

use std::fmt::{self, Write};

use holdfast_lab::page::{self, escape, grouped};

use super::Results;
use super::plot::draw;
use super::section::{Outcome, Section, Table, Target};

/// How drawings and verdicts look.
const STYLE: &str = include_str!("page.css");

/// The page.
pub fn render(results: &Results) -> String {
    let mut out = page::begin("Holdfast, measured", STYLE);
    // Writing to a String cannot fail.
    let _ = write_page(results, &mut out);
    out.push_str(page::END);
    out
}

fn write_page(results: &Results, out: &mut String) -> fmt::Result {
    head(results, out)?;
    contents(results, out)?;
    targets(results, out)?;
    for section in &results.sections {
        write_section(section, out)?;
    }
    write!(
        out,
        "<h2>Left out</h2><p>Whether memory and descriptors stay flat over hours under faults is what \
         <code>make soak</code> judges; its page is one of its own.</p>\
         <h2>Again</h2><p>Made by <code>{}</code>, of the build <code>{}</code>. \
         <code>make bench</code> measures all of it, <code>holdfast-bench {{connect,…}}</code> one of \
         it.</p>",
        escape(&results.command),
        escape(&results.build)
    )
}

fn head(results: &Results, out: &mut String) -> fmt::Result {
    let machine = &results.machine;
    write!(
        out,
        "<h1>Holdfast, measured</h1><p class=\"dim\">on {} · {} processors ({}), {} MiB, Linux {} · \
         measured in {}, load {} at the end</p>",
        machine.time(),
        machine.processors,
        escape(&machine.processor),
        grouped(machine.memory_mib),
        escape(&machine.kernel),
        took(results.took_s),
        escape(&machine.load)
    )?;
    if results.quick {
        out.push_str(
            "<p class=\"bad\">A smoke test: so few rounds that its figures say nothing.</p>",
        );
    }
    out.push_str(
        "<p>Each dot is a round, the bar goes from the tenth to the ninetieth percentile, the line is \
         the median. What is compared took turns in the same rounds, and ratios are of figures of the \
         same round: what else the machine did has hit both. Times are this machine's.</p>",
    );
    Ok(())
}

fn took(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        _ => format!("{:.0} minutes", seconds / 60.0),
    }
}

fn contents(results: &Results, out: &mut String) -> fmt::Result {
    out.push_str("<p>");
    for (number, section) in results.sections.iter().enumerate() {
        let comma = if number == 0 { "" } else { " · " };
        let (name, title) = (escape(&section.name), escape(&section.title));
        write!(out, "{comma}<a href=\"#{name}\">{title}</a>")?;
    }
    out.push_str("</p>");
    Ok(())
}

fn targets(results: &Results, out: &mut String) -> fmt::Result {
    let all = || results.sections.iter().flat_map(|section| &section.targets);
    if all().next().is_none() {
        return Ok(());
    }
    out.push_str(
        "<h2>Targets</h2><div class=\"scroll\"><table><tr><th>what</th><th>found</th><th>at \
         most</th><th></th></tr>",
    );
    for target in all() {
        write_target(target, out)?;
    }
    out.push_str("</table></div>");
    Ok(())
}

fn write_target(target: &Target, out: &mut String) -> fmt::Result {
    let (mark, verdict) = match target.is_met() {
        Some(true) => ("good", "met"),
        Some(false) => ("bad", "missed"),
        None => ("dim", "not measured"),
    };
    let found = target.found.map_or_else(|| "-".to_owned(), |found| target.unit.with_name(found));
    write!(
        out,
        "<tr><td>{}</td><td>{found}</td><td>{}</td><td class=\"{mark}\">{verdict}</td></tr>",
        escape(&target.what),
        target.unit.with_name(target.at_most)
    )
}

fn write_section(section: &Section, out: &mut String) -> fmt::Result {
    write!(out, "<h2 id=\"{0}\">{1}</h2>", escape(&section.name), escape(&section.title))?;
    let [before, after] = &section.load;
    write!(
        out,
        "<p class=\"dim\">{} {:.0} s; load {} before, {} after.</p>",
        escape(&section.method),
        section.took_s,
        escape(before),
        escape(after)
    )?;
    for table in &section.tables {
        write_table(table, out)?;
    }
    if !section.notes.is_empty() {
        out.push_str("<ul>");
        for note in &section.notes {
            write!(out, "<li>{}</li>", escape(note))?;
        }
        out.push_str("</ul>");
    }
    Ok(())
}

fn write_table(table: &Table, out: &mut String) -> fmt::Result {
    write!(out, "<h3>{}</h3>", escape(&table.title))?;
    match draw(table) {
        Some(drawing) => {
            write!(out, "<figure>{drawing}</figure><details><summary>figures</summary>")?;
            figures(table, out)?;
            out.push_str("</details>");
            Ok(())
        }
        None => figures(table, out),
    }
}

fn figures(table: &Table, out: &mut String) -> fmt::Result {
    let unit = table.unit;
    let name = if unit.name().is_empty() { "" } else { unit.name() };
    write!(
        out,
        "<div class=\"scroll\"><table><tr><th>{name}</th><th>rounds</th><th>min</th><th>p10</th>\
         <th>p50</th><th>p90</th><th>p99</th><th>max</th></tr>"
    )?;
    for row in &table.rows {
        write!(out, "<tr><td>{}</td>", escape(&row.name))?;
        match &row.outcome {
            Outcome::Measured(it) => {
                write!(out, "<td>{}</td>", it.count)?;
                for (value, mark) in [
                    (it.min, ""),
                    (it.p10, ""),
                    (it.p50, " class=\"strong\""),
                    (it.p90, ""),
                    (it.p99, ""),
                    (it.max, ""),
                ] {
                    write!(out, "<td{mark}>{}</td>", unit.figure(value))?;
                }
            }
            Outcome::NotMeasured(why) => {
                let why = escape(why);
                write!(out, "<td colspan=\"7\" class=\"text dim\">not measured: {why}</td>")?;
            }
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_lab::machine::Machine;

    use super::super::{Scale, Summary, Unit, VERSION};
    use super::*;

    fn results() -> Results {
        let mut section = Section::new("connect", "A <connection>", "By turns.");
        let mut table = Table::new("connect(2)", Unit::Microseconds, Scale::Linear);
        table.measured("Holdfast", Summary::of([1.0, 2.0, 3.0]));
        table.not_measured("IPVS", "this kernel has none");
        section.tables.push(table);
        section.target("flat", Unit::Times, 1.2, Some(1.3));
        section.note("a & b");
        Results {
            version: VERSION,
            command: "holdfast-bench all".to_owned(),
            build: "0.1.0".to_owned(),
            quick: false,
            machine: Machine::default(),
            took_s: 60.0,
            sections: vec![section, Section::not_measured("apply", "no memory")],
        }
    }

    #[test]
    fn the_page_says_what_was_missed_and_what_was_not_measured() {
        let page = render(&results());
        for part in [
            "A &lt;connection&gt;",
            "not measured: this kernel has none",
            "not measured: no memory",
            "<td class=\"bad\">missed</td>",
            "a &amp; b",
            "<svg",
            "judges; its page is one of its own",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        let page = render(&results());
        for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.ends_with("</body></html>\n"));
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let text = serde_json::to_string(&results()).expect("plain data");
        let read: Results = serde_json::from_str(&text).expect("its own form");
        assert_eq!(read, results());
    }
}
