//! The drawing of a run over its time, as SVG.
//!
//! From above: new connections a second; takeovers as bars, the taller the longer; connections that
//! did not go as promised; and a row for each kind of fault. What a window declares is shaded.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use holdfast_lab::page::{escape, grouped};

use super::figures::ms;
use crate::fault::Kind;
use crate::history::{BIN_US, History, Trouble};

/// Sizes in units of the drawing, which is scaled to the page's width.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 10.0;
const CONNECTIONS_HEIGHT: f64 = 110.0;
const TAKEOVERS_HEIGHT: f64 = 60.0;
const TROUBLES_HEIGHT: f64 = 22.0;
const ROW: f64 = 15.0;
const GAP: f64 = 16.0;
const AXIS: f64 = 22.0;

/// Nothing is drawn narrower than this.
const LEAST_WIDTH: f64 = 1.6;

/// Takeovers from 1 ms up to this are told apart by their height, which is logarithmic.
const TALLEST_MS: f64 = 10_000.0;

/// At most so many marks on the time axis.
const MOST_TICKS: u64 = 12;

/// Distances of the time axis's marks, in seconds.
const TICKS_S: [u64; 11] = [1, 2, 5, 10, 30, 60, 120, 300, 600, 3_600, 7_200];

/// A drawing under way.
struct Drawing<'h> {
    history: &'h History,
    out: String,
    /// Where the next part begins.
    y: f64,
}

/// The drawing of `history`.
pub fn draw(history: &History) -> String {
    let mut drawing = Drawing { history, out: String::new(), y: 4.0 };
    // Writing to a String cannot fail.
    let _ = drawing.parts();
    let height = drawing.y;
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"timeline of the run\">{}</svg>",
        drawing.out
    )
}

impl Drawing<'_> {
    fn parts(&mut self) -> fmt::Result {
        let below = {
            let kinds = self.kinds().len();
            #[expect(clippy::cast_precision_loss, reason = "twenty at most")]
            let rows = kinds as f64 * ROW;
            CONNECTIONS_HEIGHT + TAKEOVERS_HEIGHT + TROUBLES_HEIGHT + rows + 4.0 * GAP
        };
        self.windows(self.y + below)?;
        self.ticks(self.y + below)?;
        self.connections()?;
        self.takeovers()?;
        self.troubles()?;
        self.faults()?;
        self.y += AXIS + 4.0;
        Ok(())
    }

    /// The kinds that were injected, in their order.
    fn kinds(&self) -> BTreeSet<Kind> {
        let hits = self.history.injected.iter().filter(|fault| fault.hit);
        hits.map(|fault| fault.fault.kind()).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a drawing is not that exact")]
    fn x(&self, at_us: u64) -> f64 {
        let share = at_us as f64 / self.history.end_us.max(1) as f64;
        LEFT + share.min(1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn label(&mut self, y: f64, text: &str) -> fmt::Result {
        let x = LEFT - 8.0;
        write!(self.out, "<text class=\"label\" x=\"{x}\" y=\"{y:.1}\">{text}</text>")
    }

    /// Shades the times in which new connections could not be governed by nature.
    fn windows(&mut self, bottom: f64) -> fmt::Result {
        let (top, height) = (self.y, bottom - self.y);
        let mut seen = BTreeSet::new();
        for window in &self.history.windows {
            let (from, to) = (self.x(window.from_us), self.x(window.to_us));
            if !seen.insert((window.from_us, window.to_us, window.effect.reason())) {
                continue;
            }
            let (width, why) = ((to - from).max(LEAST_WIDTH), window.effect.reason());
            write!(
                self.out,
                "<rect class=\"window\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\"><title>{}: {why}</title></rect>",
                window.because_of
            )?;
        }
        Ok(())
    }

    fn ticks(&mut self, bottom: f64) -> fmt::Result {
        let seconds = self.history.end_us / 1_000_000;
        let fits = |step: &&u64| seconds / **step <= MOST_TICKS;
        let step = TICKS_S.iter().find(fits).copied().unwrap_or(seconds.max(1));
        for second in (0..=seconds).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let (x, top, text) = (self.x(second * 1_000_000), self.y, bottom + AXIS - 6.0);
            write!(
                self.out,
                "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{text:.1}\">{second} s</text>"
            )?;
        }
        Ok(())
    }

    /// New connections a second, as an area.
    fn connections(&mut self) -> fmt::Result {
        let bins = &self.history.connections.per_bin;
        // The last bin is not whole.
        let bins = &bins[..bins.len().saturating_sub(1)];
        let per_second = |count: &u32| u64::from(*count) * 1_000_000 / BIN_US;
        let most = bins.iter().map(per_second).max().unwrap_or(0).max(1);
        let bottom = self.y + CONNECTIONS_HEIGHT;
        let mut path = String::new();
        for (count, begin_us) in bins.iter().zip((0..).map(|n| n * BIN_US)) {
            #[expect(clippy::cast_precision_loss, reason = "a drawing is not that exact")]
            let share = per_second(count) as f64 / most as f64;
            let (from, to) = (self.x(begin_us), self.x(begin_us + BIN_US));
            let y = bottom - share * (CONNECTIONS_HEIGHT - 12.0);
            let command =
                if path.is_empty() { format!("M{from:.1} {bottom:.1}") } else { String::new() };
            write!(path, "{command}V{y:.1}H{to:.1}")?;
        }
        write!(self.out, "<path class=\"connections\" d=\"{path}V{bottom:.1}Z\"/>")?;
        self.label(self.y + 14.0, "connections")?;
        self.label(self.y + 28.0, "a second")?;
        let (x, y) = (LEFT + 4.0, self.y + 10.0);
        let most = grouped(most);
        write!(self.out, "<text class=\"note\" x=\"{x}\" y=\"{y:.1}\">at most {most}</text>")?;
        self.y = bottom + GAP;
        Ok(())
    }

    /// Takeovers as bars: as wide as they took, and the taller the longer.
    fn takeovers(&mut self) -> fmt::Result {
        let bottom = self.y + TAKEOVERS_HEIGHT;
        let level =
            |ms: f64| (ms.max(1.0).log10() / TALLEST_MS.log10()).min(1.0) * TAKEOVERS_HEIGHT;
        for (value, text) in [(10.0, "10 ms"), (100.0, "100 ms"), (1_000.0, "1 s")] {
            let (y, right) = (bottom - level(value), WIDTH - RIGHT);
            write!(self.out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>")?;
            let x = LEFT - 8.0;
            write!(
                self.out,
                "<text class=\"tick end\" x=\"{x}\" y=\"{:.1}\">{text}</text>",
                y + 3.0
            )?;
        }
        for outage in &self.history.outages {
            let took_us = outage.to_us.saturating_sub(outage.from_us);
            #[expect(clippy::cast_precision_loss, reason = "a drawing is not that exact")]
            let height = level(took_us as f64 / 1000.0).max(2.0);
            let (from, to) = (self.x(outage.from_us), self.x(outage.to_us));
            let (width, y) = ((to - from).max(LEAST_WIDTH), bottom - height);
            write!(
                self.out,
                "<rect class=\"takeover\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\"><title>after {}: {} ms</title></rect>",
                outage.because_of,
                ms(took_us)
            )?;
        }
        let (x, y) = (LEFT - 60.0, self.y + TAKEOVERS_HEIGHT / 2.0);
        write!(self.out, "<text class=\"label\" x=\"{x}\" y=\"{y:.1}\">takeovers</text>")?;
        self.y = bottom + GAP;
        Ok(())
    }

    /// Connections that did not go as promised; those that nothing excuses on top.
    fn troubles(&mut self) -> fmt::Result {
        let (top, height) = (self.y, TROUBLES_HEIGHT - 6.0);
        let marks = |excused: bool| {
            let incidents = self.history.connections.incidents.iter();
            let those = incidents.filter(|it| self.history.is_excused(it) == excused);
            // Those that would be drawn at the same place are drawn once.
            #[expect(clippy::cast_possible_truncation, reason = "a thousand units")]
            let places: BTreeSet<i64> =
                those.map(|it| (self.x(it.from_us) * 2.0).round() as i64).collect();
            places.into_iter().fold(String::new(), |path, place| {
                #[expect(clippy::cast_precision_loss, reason = "a thousand units")]
                let x = place as f64 / 2.0;
                path + &format!("M{x:.1} {top:.1}v{height}")
            })
        };
        let (excused, failures) = (marks(true), marks(false));
        write!(self.out, "<path class=\"excused\" d=\"{excused}\"/>")?;
        write!(self.out, "<path class=\"failure\" d=\"{failures}\"/>")?;
        let bad = [Trouble::Failed, Trouble::Ungoverned, Trouble::Misrouted, Trouble::Reset];
        let count: usize = bad.iter().map(|it| self.history.inexcusable(*it).count()).sum();
        self.label(self.y + 12.0, &format!("failures: {count}"))?;
        self.y += TROUBLES_HEIGHT + GAP;
        Ok(())
    }

    /// A row for each kind, with a mark for each fault.
    fn faults(&mut self) -> fmt::Result {
        for kind in self.kinds() {
            self.label(self.y + 10.0, kind.name())?;
            let (y, height, history) = (self.y + 2.0, ROW - 4.0, self.history);
            for fault in history.injected.iter().filter(|it| it.hit && it.fault.kind() == kind) {
                let (from, to) = (self.x(fault.at_us), self.x(fault.end_us));
                let (width, at) = ((to - from).max(LEAST_WIDTH), ms(fault.at_us));
                let note = escape(&fault.note);
                write!(
                    self.out,
                    "<rect class=\"fault\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                     height=\"{height}\"><title>{kind} at {at} ms: {note}</title></rect>"
                )?;
            }
            self.y += ROW;
        }
        self.y += GAP;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_no_time_and_without_any_event_can_be_drawn() {
        let drawing = draw(&History::default());
        assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>"));
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    }
}
