//! What a metric is, and how it is written in the Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{self, Write as _};

/// The format, as `Content-Type` says it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many values are at most so large, for several bounds.
    Histogram,
}

/// A metric: everything but its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// With the unit, and `_total` for a counter.
    pub name: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence, for people; without line breaks and backslashes.
    pub help: &'static str,
}

impl Kind {
    /// As the format names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Writes the lines that precede the samples of `family`.
pub fn head(text: &mut String, family: &Family) {
    let Family { name, kind, help, .. } = family;
    put(text, format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()));
}

/// Writes a sample with labels that [`labels`] has written.
pub fn sample(text: &mut String, family: &Family, labels: &str, value: impl fmt::Display) {
    put(text, format_args!("{}{labels} {value}\n", family.name));
}

/// Writes a histogram: `counts` of what is at most as large as each of `bounds` and larger than the one before,
/// the last of them of all the rest, and the `sum`. `labels` are what [`labels`] has written.
pub fn histogram(
    text: &mut String,
    family: &Family,
    labels: &str,
    bounds: impl Iterator<Item = Nanoseconds>,
    counts: &[u64],
    sum: Nanoseconds,
) {
    let (name, inner) = (family.name, labels.trim_end_matches('}'));
    let mut total = 0;
    let mut bounds = bounds.map(|bound| bound.to_string()).fuse();
    for count in counts {
        total += count;
        let bound = bounds.next().unwrap_or_else(|| "+Inf".to_owned());
        put(text, format_args!("{name}_bucket{inner},le=\"{bound}\"}} {total}\n"));
    }
    put(text, format_args!("{name}_sum{labels} {sum}\n{name}_count{labels} {total}\n"));
}

/// `values` with the names of `family`'s labels, as they stand behind its name.
#[must_use]
pub fn labels(family: &Family, values: &[&str]) -> String {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let mut text = String::from("{");
    for (number, (name, value)) in family.labels.iter().zip(values).enumerate() {
        if number > 0 {
            text.push(',');
        }
        put(&mut text, format_args!("{name}=\"{}\"", Escaped(value)));
    }
    text.push('}');
    text
}

/// Milliseconds as seconds, in which the format has all times.
#[must_use]
pub fn seconds_of_ms(milliseconds: u64) -> impl fmt::Display {
    Seconds { whole: milliseconds / 1000, fraction: milliseconds % 1000, digits: 3 }
}

/// Microseconds as seconds.
#[must_use]
pub fn seconds_of_us(microseconds: u64) -> impl fmt::Display {
    Seconds { whole: microseconds / 1_000_000, fraction: microseconds % 1_000_000, digits: 6 }
}

/// Nanoseconds, written as seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nanoseconds(pub u64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PER_SECOND: u64 = 1_000_000_000;
        let text = format!("{}.{:09}", self.0 / PER_SECOND, self.0 % PER_SECOND);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn put(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes everything");
}

/// Exact, as a floating-point number would not be.
struct Seconds {
    whole: u64,
    fraction: u64,
    digits: usize,
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:0digits$}", self.whole, self.fraction, digits = self.digits)
    }
}

/// A label's value: what is in the maps may be anything.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family =
        Family { name: "a_total", kind: Kind::Counter, labels: &["b", "c"], help: "Some." };

    #[test]
    fn a_family_is_a_head_and_samples() {
        let mut text = String::new();
        head(&mut text, &FAMILY);
        sample(&mut text, &FAMILY, &labels(&FAMILY, &["x", "y"]), 3);
        assert_eq!(
            text,
            "# HELP a_total Some.\n# TYPE a_total counter\na_total{b=\"x\",c=\"y\"} 3\n"
        );
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let hostile = "\"} 1\nevil{x=\"\\";
        assert_eq!(labels(&FAMILY, &[hostile, ""]), "{b=\"\\\"} 1\\nevil{x=\\\"\\\\\",c=\"\"}");
    }

    #[test]
    fn a_histogram_counts_what_is_at_most_as_large() {
        let mut text = String::new();
        let family = Family { name: "a_seconds", kind: Kind::Histogram, ..FAMILY };
        let labels = labels(&family, &["x", "y"]);
        let bounds = [1_000_000, 2_500_000_000].map(Nanoseconds).into_iter();
        histogram(&mut text, &family, &labels, bounds, &[3, 0, 2], Nanoseconds(9_000_000_001));
        assert_eq!(
            text,
            "a_seconds_bucket{b=\"x\",c=\"y\",le=\"0.001\"} 3\n\
             a_seconds_bucket{b=\"x\",c=\"y\",le=\"2.5\"} 3\n\
             a_seconds_bucket{b=\"x\",c=\"y\",le=\"+Inf\"} 5\n\
             a_seconds_sum{b=\"x\",c=\"y\"} 9.000000001\n\
             a_seconds_count{b=\"x\",c=\"y\"} 5\n"
        );
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds_of_us(1_000_002).to_string(), "1.000002");
        assert_eq!(seconds_of_ms(1_700_000_000_005).to_string(), "1700000000.005");
    }
}
