//! What the processes took over the time of a run, as SVG.

use std::fmt::{self, Write};

use holdfast_lab::page::grouped;

use crate::history::{History, Sample};

/// Sizes in units of the drawing, which is scaled to the page's width.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 10.0;
const HEIGHT: f64 = 54.0;
const GAP: f64 = 18.0;

/// Most points of a curve: more would not be seen.
const MOST_POINTS: usize = 800;

/// A curve's name, its unit and its value of a sample.
type Curve = (&'static str, &'static str, fn(&Sample) -> u64);

const CURVES: [Curve; 4] = [
    ("supervisor's memory", " KiB", |sample| sample.supervisor.memory_kib),
    ("worker's memory", " KiB", |sample| sample.worker.memory_kib),
    ("supervisor's descriptors", "", |sample| sample.supervisor.descriptors as u64),
    ("worker's descriptors", "", |sample| sample.worker.descriptors as u64),
];

/// The drawing; nothing of a run without two samples.
pub fn draw(history: &History) -> Option<String> {
    let samples = &history.resources;
    if samples.len() < 2 {
        return None;
    }
    let height = (HEIGHT + GAP) * CURVES.len() as f64;
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (number, curve) in CURVES.iter().enumerate() {
        let top = (HEIGHT + GAP) * number as f64 + GAP / 2.0;
        // Writing to a String cannot fail.
        let _ = write_curve(samples, history.end_us, curve, top, &mut out);
    }
    out.push_str("</svg>");
    Some(out)
}

fn write_curve(
    samples: &[Sample],
    end_us: u64,
    (name, unit, value): &Curve,
    top: f64,
    out: &mut String,
) -> fmt::Result {
    let most = samples.iter().map(value).max().unwrap_or(0).max(1);
    let bottom = top + HEIGHT;
    let (x, label, right) = (LEFT - 8.0, top + HEIGHT / 2.0, WIDTH - RIGHT);
    let step = samples.len().div_ceil(MOST_POINTS);
    let mut path = String::new();
    for sample in samples.iter().step_by(step) {
        let along = sample.at_us as f64 / end_us.max(1) as f64;
        let x = LEFT + along.min(1.0) * (WIDTH - LEFT - RIGHT);
        let y = bottom - value(sample) as f64 / most as f64 * HEIGHT;
        let command = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{command}{x:.1} {y:.1}")?;
    }
    write!(
        out,
        "<path class=\"grid\" d=\"M{LEFT} {bottom:.1}H{right}M{LEFT} {top:.1}H{right}\"/>\
         <text class=\"label\" x=\"{x}\" y=\"{label:.1}\">{name}</text>\
         <text class=\"tick end\" x=\"{x}\" y=\"{:.1}\">{}{unit}</text>\
         <path class=\"curve\" d=\"{path}\"/>",
        top + 8.0,
        grouped(most)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Taken;

    #[test]
    fn samples_are_drawn_and_too_few_are_not() {
        let taken = Taken { memory_kib: 2_000, descriptors: 40 };
        let sample = |at_us| Sample { at_us, supervisor: taken, worker: taken };
        let history =
            History { end_us: 10, resources: vec![sample(0), sample(10)], ..History::default() };
        let drawing = draw(&history).expect("two samples");
        assert_eq!(drawing.matches("class=\"curve\"").count(), CURVES.len());
        assert!(drawing.contains("2,000 KiB") && !drawing.contains("NaN"), "{drawing}");
        assert_eq!(draw(&History::default()), None);
    }
}
