//! All metrics as text. 65,536 services are some 30 MB of it: it is made a step at a time, as fast as
//! whoever scrapes reads, and never all at once.

use super::Known;
use super::family::{Family, Nanoseconds, head, histogram, sample};
use super::services::{self, OfServices, Row, Rows, Value};
use super::system;

/// Samples written in one step: some 60 KiB, and a tenth of a millisecond.
const SAMPLES_A_STEP: usize = 512;

/// One answer to a scrape, as far as it has been written.
#[derive(Debug)]
pub struct Exposition {
    /// What comes first.
    system: Option<String>,
    rows: Rows,
    /// The family that is being written, and its first row that is not.
    at: (usize, usize),
}

impl Exposition {
    /// Everything that is `known`, and the `rows` of all services.
    #[must_use]
    pub fn new(known: &Known, rows: Rows) -> Self {
        Self { system: Some(system::text(known, rows.fill())), rows, at: (0, 0) }
    }

    /// The next part; `None` at the end.
    pub fn step(&mut self) -> Option<String> {
        if let Some(system) = self.system.take() {
            return Some(system);
        }
        let mut text = String::new();
        let mut left = SAMPLES_A_STEP;
        while left > 0 && self.at.0 < services::FAMILIES.len() {
            let samples = self.samples(&services::FAMILIES[self.at.0], left, &mut text);
            left = left.saturating_sub(samples);
        }
        (!text.is_empty()).then_some(text)
    }

    /// Writes the samples of `of`, the family that is being written, of as many rows as come to `most` of them;
    /// how many there were.
    fn samples(&mut self, of: &OfServices, most: usize, text: &mut String) -> usize {
        let from = self.at.1;
        let rows = self.rows.all();
        let mut written = 0;
        let mut until = from;
        if from == 0 && !rows.is_empty() {
            head(text, &of.family);
        }
        while until < rows.len() && written < most {
            written += put(text, of, &rows[until]);
            until += 1;
        }
        self.at = if until == rows.len() { (self.at.0 + 1, 0) } else { (self.at.0, until) };
        written
    }
}

/// Writes what `of` says of `row`; how many samples that were.
fn put(text: &mut String, of: &OfServices, row: &Row) -> usize {
    match of.value {
        Value::Number(value) => {
            sample(text, &of.family, &row.labels, value(row));
            1
        }
        Value::Histogram(value) => {
            let times = value(&row.traffic);
            if times.counts.iter().all(|count| *count == 0) {
                // It costs a look.
                return 1;
            }
            let sum = Nanoseconds(times.sum_ns);
            histogram(text, &of.family, &row.labels, times.bounds(), times.counts, sum);
            times.counts.len() + 2
        }
    }
}

/// Every family there is, in the order they are written.
pub fn families() -> impl Iterator<Item = Family> {
    let of_services = services::FAMILIES.iter().map(|of| of.family);
    system::FAMILIES.iter().copied().chain(of_services)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_protocol::kernel::traffic::{HANDSHAKE_BUCKETS, Traffic};
    use holdfast_protocol::kernel::{PROTOCOL_TCP, ServiceCounters, ServiceRecord};

    use super::super::sample::Counted;
    use super::*;

    fn counted(number: usize) -> Counted {
        let mut record = ServiceRecord {
            service: [0; 64],
            port_name: *b"http\0\0\0\0\0\0\0\0\0\0\0\0",
            port_be: 80_u16.to_be(),
            protocol: PROTOCOL_TCP,
            family: 4,
            reserved: 0,
        };
        let name = format!("web-{number}");
        record.service[..name.len()].copy_from_slice(name.as_bytes());
        let connections = number.try_into().expect("small");
        let counters = ServiceCounters { connections, ..ServiceCounters::default() };
        let mut traffic = Traffic::default();
        traffic.handshakes[3] = 1;
        let traffic = number.is_multiple_of(2).then(|| Box::new(traffic));
        Counted { record, endpoints: 2, aliases: 0, unhealthy: 0, ejected: 0, counters, traffic }
    }

    fn whole(count: usize) -> (String, usize) {
        let counted: Vec<_> = (0..count).map(counted).collect();
        let mut rows = Rows::default();
        rows.add(&counted);
        let mut exposition = Exposition::new(&Known::default(), rows);
        let mut steps = 0;
        let mut text = String::new();
        while let Some(part) = exposition.step() {
            steps += 1;
            assert!(part.lines().count() <= SAMPLES_A_STEP + 2 * services::FAMILIES.len() + 40);
            text.push_str(&part);
        }
        (text, steps)
    }

    #[test]
    fn every_sample_is_written_once_behind_the_head_of_its_family() {
        for count in [0, 1, 511, 512, 513, 1500] {
            let (text, steps) = whole(count);
            let lines: BTreeSet<&str> = text.lines().collect();
            assert_eq!(lines.len(), text.lines().count(), "{count}: a line is there twice");
            for of in services::FAMILIES {
                let name = of.family.name;
                let lines = |suffix| {
                    let start = format!("{name}{suffix}{{");
                    text.lines().filter(|line| line.starts_with(&start)).count()
                };
                let heads = text.matches(&format!("# TYPE {name} ")).count();
                assert_eq!(heads, usize::from(count > 0), "{name}");
                match of.value {
                    Value::Number(_) => assert_eq!(lines(""), count, "{name}"),
                    // Every other service has had a handshake, and none has ended.
                    Value::Histogram(_) if name.contains("handshake") => {
                        let busy = count.div_ceil(2);
                        let found = [lines("_bucket"), lines("_sum"), lines("_count")];
                        assert_eq!(found, [busy * HANDSHAKE_BUCKETS, busy, busy], "{name}");
                    }
                    Value::Histogram(_) => assert_eq!(lines("_bucket"), 0, "{name}"),
                }
            }
            assert!(steps > text.lines().count() / (SAMPLES_A_STEP + 64), "{count}: {steps} steps");
        }
    }

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for family in families() {
            assert!(seen.insert(family.name), "{}", family.name);
            assert!(family.name.starts_with("holdfast_"), "{}", family.name);
            let is_counter = family.kind == super::super::family::Kind::Counter;
            assert_eq!(family.name.ends_with("_total"), is_counter, "{}", family.name);
            assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']));
        }
    }
}
