//! A table as a drawing: a strip for each quantity, with a dot for each round (pure).
//!
//! Dots show the noise, a bar goes from the tenth to the ninetieth percentile, and a line marks the
//! median, which stands in figures at the right.

use std::fmt::{self, Write};

use holdfast_lab::page::escape;

use super::section::{Outcome, Row, Scale, Table};
use super::summary::Summary;

/// Sizes in units of the drawing, which is scaled to the page's width.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 6.0;
const STRIP: f64 = 24.0;
const AXIS: f64 = 24.0;

/// Heights a dot may have beside the middle of its strip: so that they hide each other less.
const JITTER: [f64; 5] = [0.0, 3.5, -3.5, 6.5, -6.5];

/// Most characters of a label: what the left side has room for.
const LABEL: usize = 50;

/// Most lines of an axis.
const MOST_TICKS: f64 = 7.0;

/// From a figure to a place.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

/// The drawing of a table; nothing when it has nothing to draw.
pub fn draw(table: &Table) -> Option<String> {
    if table.scale == Scale::Undrawn {
        return None;
    }
    let axis = Axis::of(table)?;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_drawing(table, &axis, &mut out);
    Some(out)
}

fn write_drawing(table: &Table, axis: &Axis, out: &mut String) -> fmt::Result {
    let bottom = TOP + STRIP * table.rows.len() as f64;
    let height = bottom + AXIS;
    write!(out, "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">")?;
    write!(out, "<title>{}</title>", escape(&table.title))?;
    for tick in axis.ticks() {
        let (x, text) = (axis.x(tick), bottom + AXIS - 8.0);
        let class = if table.scale == Scale::AroundOne && (tick - 1.0).abs() < 1e-9 {
            "grid one"
        } else {
            "grid"
        };
        write!(
            out,
            "<path class=\"{class}\" d=\"M{x:.1} {TOP}V{bottom:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{text:.1}\">{} {}</text>",
            short(tick),
            table.unit.name()
        )?;
    }
    for (number, row) in table.rows.iter().enumerate() {
        strip(table, axis, row, TOP + STRIP * (number as f64 + 0.5), out)?;
    }
    out.push_str("</svg>");
    Ok(())
}

fn strip(table: &Table, axis: &Axis, row: &Row, middle: f64, out: &mut String) -> fmt::Result {
    let (end, baseline) = (LEFT - 10.0, middle + 4.0);
    let name = escape(&shortened(&row.name));
    write!(out, "<text class=\"label\" x=\"{end}\" y=\"{baseline:.1}\">{name}</text>")?;
    let summary = match &row.outcome {
        Outcome::Measured(summary) => summary,
        Outcome::NotMeasured(why) => {
            let why = escape(&shortened(&format!("not measured: {why}")));
            return write!(
                out,
                "<text class=\"absent\" x=\"{LEFT}\" y=\"{baseline:.1}\">{why}</text>"
            );
        }
    };
    let ours = if row.name.contains("Holdfast") || !table.has_others() { " ours" } else { "" };
    for (number, value) in summary.rounds.iter().enumerate() {
        let (x, y) = (axis.x(*value), middle + JITTER[number % JITTER.len()]);
        let beyond = if *value > axis.high || *value < axis.low { " beyond" } else { "" };
        write!(out, "<circle class=\"dot{ours}{beyond}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\"/>")?;
    }
    let (from, to, median) = (axis.x(summary.p10), axis.x(summary.p90), axis.x(summary.p50));
    let (top, low, right) = (middle - 8.0, middle + 8.0, WIDTH - RIGHT + 10.0);
    write!(
        out,
        "<path class=\"bar{ours}\" d=\"M{from:.1} {middle:.1}H{to:.1}\"/>\
         <path class=\"median\" d=\"M{median:.1} {top:.1}V{low:.1}\"/>\
         <text class=\"value\" x=\"{right}\" y=\"{baseline:.1}\">{}</text>",
        table.unit.with_name(summary.p50)
    )
}

impl Axis {
    /// One that shows every median and nearly every round of a table.
    fn of(table: &Table) -> Option<Self> {
        let all: Vec<&Summary> = table.summaries().collect();
        let extreme = |of: fn(&Summary) -> f64, choose: fn(f64, f64) -> f64| {
            all.iter().map(|summary| of(summary)).reduce(choose)
        };
        // A few rounds that something else has hit must not press all others together.
        let high = extreme(|it| it.p99.min(it.p90 * 1.5).max(it.p90), f64::max)?;
        let low = extreme(|it| it.min.max(it.p10 / 1.5).min(it.p10), f64::min)?;
        let axis = match table.scale {
            Scale::Logarithmic if low > 0.0 => {
                Self { low: low * 0.9, high: high * 1.1, logarithmic: true }
            }
            Scale::AroundOne => {
                let margin = ((high - low) * 0.05).max(0.01);
                Self {
                    low: low.min(1.0) - margin,
                    high: high.max(1.0) + margin,
                    logarithmic: false,
                }
            }
            _ => Self { low: 0.0, high: high * 1.05, logarithmic: false },
        };
        (axis.high > axis.low).then_some(axis)
    }

    /// Where a figure is; at the edge when it is beyond.
    fn x(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// Round figures on it.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades =
                (-9..=12).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(power)));
            let inside: Vec<f64> =
                decades.filter(|tick| (self.low..=self.high).contains(tick)).collect();
            // Of wide ranges only the powers of ten.
            return match inside.len() as f64 > MOST_TICKS + 1.0 {
                true => inside.into_iter().filter(|tick| is_power_of_ten(*tick)).collect(),
                false => inside,
            };
        }
        let rough = (self.high - self.low) / MOST_TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let factors = [1.0, 2.0, 5.0, 10.0];
        let factor = factors.into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
        let step = factor * power;
        let first = (self.low / step).ceil();
        (0..32)
            .map(|n| (first + f64::from(n)) * step)
            .take_while(|tick| *tick <= self.high)
            .collect()
    }
}

impl Table {
    /// Whether it has quantities of others beside Holdfast's.
    fn has_others(&self) -> bool {
        self.rows.iter().any(|row| row.name.contains("Holdfast"))
    }
}

fn is_power_of_ten(value: f64) -> bool {
    (value.log10() - value.log10().round()).abs() < 1e-9
}

/// A figure of an axis: without digits that say nothing.
fn short(value: f64) -> String {
    match value.abs() {
        1_000_000.0.. => format!("{}M", trimmed(value / 1e6)),
        10_000.0.. => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LABEL * 2) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;

    fn table(scale: Scale, figures: &[&[f64]]) -> Table {
        let mut table = Table::new("<t>", Unit::Milliseconds, scale);
        for (number, figures) in figures.iter().enumerate() {
            table.measured(format!("row {number}"), Summary::of(figures.iter().copied()));
        }
        table
    }

    #[test]
    fn every_scale_draws_any_figures() {
        for scale in [Scale::Linear, Scale::Logarithmic, Scale::AroundOne] {
            let some: [&[&[f64]]; 5] =
                [&[&[1.0, 2.0, 300.0], &[5.0]], &[&[1.0]], &[&[0.5, 1.5]], &[&[7e6]], &[&[2e-4]]];
            for figures in some {
                let drawing = draw(&table(scale, figures)).expect("something to draw");
                assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>"));
                assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
                assert!(drawing.contains("&lt;t&gt;"));
            }
        }
    }

    #[test]
    fn a_figure_beyond_the_axis_is_marked_at_its_edge() {
        let mut figures = vec![1.0; 200];
        figures[7] = 500.0;
        let drawing = draw(&table(Scale::Linear, &[&figures])).expect("something to draw");
        assert_eq!(drawing.matches("beyond").count(), 1);
    }

    #[test]
    fn nothing_measured_is_nothing_to_draw() {
        let mut table = Table::new("t", Unit::Count, Scale::Linear);
        table.not_measured("a", "b");
        assert_eq!(draw(&table), None);
        assert_eq!(short(20_000.0), "20k");
        assert_eq!(short(0.25), "0.25");
    }
}
