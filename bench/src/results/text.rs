//! A section as lines for a terminal (pure).

use std::fmt::Write;

use super::section::{Outcome, Section, Table};

/// Width of the names.
const NAME: usize = 46;

/// The lines of a section.
pub fn lines(section: &Section) -> String {
    let mut out = format!("{}\n", section.title);
    for table in &section.tables {
        // Writing to a String cannot fail.
        let _ = write_table(table, &mut out);
    }
    for target in &section.targets {
        let verdict = match target.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        };
        let found =
            target.found.map_or_else(|| "-".to_owned(), |found| target.unit.with_name(found));
        let bound = target.unit.with_name(target.at_most);
        let _ = writeln!(out, "target {verdict}: {}: {found}, at most {bound}", target.what);
    }
    for note in &section.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn write_table(table: &Table, out: &mut String) -> std::fmt::Result {
    let Table { title, unit, rows, .. } = table;
    let head = match unit.name() {
        "" => title.clone(),
        name => format!("{title}, {name}"),
    };
    write!(out, "\n{head:<NAME$}{:>7}", "n")?;
    for name in ["min", "p10", "p50", "p90", "p99", "max"] {
        write!(out, "{name:>10}")?;
    }
    out.push('\n');
    for row in rows {
        write!(out, "{:<NAME$}", row.name)?;
        match &row.outcome {
            Outcome::Measured(summary) => {
                write!(out, "{:>7}", summary.count)?;
                let cells =
                    [summary.min, summary.p10, summary.p50, summary.p90, summary.p99, summary.max];
                for cell in cells {
                    write!(out, "{:>10}", unit.figure(cell))?;
                }
            }
            Outcome::NotMeasured(why) => write!(out, " not measured: {why}")?,
        }
        out.push('\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Scale, Summary, Unit};
    use super::*;

    #[test]
    fn what_was_not_measured_says_why() {
        let mut section = Section::new("s", "Something", "");
        let mut table = Table::new("times", Unit::Milliseconds, Scale::Linear);
        table.measured("ours", Summary::of([1.0]));
        table.not_measured("IPVS", "not in this kernel");
        section.tables.push(table);
        section.target("ours", Unit::Milliseconds, 0.5, Some(1.0));
        let text = lines(&section);
        assert!(
            text.contains("IPVS") && text.contains("not measured: not in this kernel"),
            "{text}"
        );
        assert!(text.contains("target missed: ours: 1.00 ms, at most 0.500 ms"), "{text}");
    }
}
