//! The closing line, and what it means.

use std::time::Duration;

use serde::Serialize;

use super::Faults;
use super::traffic::Counted;

/// More connections than this have to be made: fewer would have left most instants untried.
const CONNECTIONS_ABOVE: u64 = 10_000;
/// More kills than this have to hit.
const KILLS_ABOVE: u64 = 20;

/// What the run came to. Its JSON form is the last line of the output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    connections: u64,
    failed: u64,
    ungoverned: u64,
    long_lived: u64,
    long_lived_broken: u64,
    worker_kills: u64,
    sighups: u64,
    takeover_p50_ms: f64,
    takeover_p99_ms: f64,
}

impl Report {
    /// The report of what was counted.
    pub fn new(counted: &Counted, faults: Faults, mut takeovers: Vec<Duration>) -> Self {
        takeovers.sort_unstable();
        let broken = counted.streams.iter().filter(|end| end.broken.is_some() || end.bytes == 0);
        Self {
            connections: counted.load.connections(),
            failed: counted.load.failed,
            ungoverned: counted.load.ungoverned,
            long_lived: counted.streams.len() as u64,
            long_lived_broken: broken.count() as u64,
            worker_kills: faults.kills,
            sighups: faults.sighups,
            takeover_p50_ms: milliseconds(percentile(&takeovers, 50)),
            takeover_p99_ms: milliseconds(percentile(&takeovers, 99)),
        }
    }

    /// Every promise that was not kept, for people.
    pub fn complaints(&self) -> Vec<String> {
        let zero = [
            (self.failed, "connections failed"),
            (self.ungoverned, "connections were not governed"),
            (self.long_lived_broken, "long connections broke"),
        ];
        let zero = zero.iter().filter(|(count, _)| *count > 0);
        let mut complaints: Vec<String> =
            zero.map(|(count, what)| format!("{count} {what}; there must be none")).collect();
        let above = [
            (self.connections, CONNECTIONS_ABOVE, "connections were made"),
            (self.worker_kills, KILLS_ABOVE, "kills hit"),
        ];
        let above = above.iter().filter(|(count, bound, _)| count <= bound);
        complaints.extend(above.map(|(count, bound, what)| {
            format!("only {count} {what}; more than {bound} are needed to say anything")
        }));
        complaints
    }
}

/// The nearest-rank percentile of `sorted`; zero when there is none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// In milliseconds with two decimals: the measure is not exact to more.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use holdfast_lab::load::Tally;
    use holdfast_lab::stream::StreamEnd;

    use super::*;

    fn good() -> Report {
        let counted = Counted {
            load: Tally { reached: CONNECTIONS_ABOVE + 1, ..Tally::default() },
            streams: vec![StreamEnd { bytes: 1, broken: None }],
        };
        let faults = Faults { kills: KILLS_ABOVE + 1, sighups: 3 };
        Report::new(&counted, faults, (1..=100).map(Duration::from_millis).collect())
    }

    #[test]
    fn the_closing_line_is_as_documented() {
        let line = serde_json::to_string(&good()).expect("plain numbers");
        let expected = "{\"connections\":10001,\"failed\":0,\"ungoverned\":0,\"long_lived\":1,\
            \"long_lived_broken\":0,\"worker_kills\":21,\"sighups\":3,\
            \"takeover_p50_ms\":50.0,\"takeover_p99_ms\":99.0}";
        assert_eq!(line, expected);
    }

    #[test]
    fn each_broken_promise_alone_is_a_complaint() {
        assert_eq!(good().complaints(), Vec::<String>::new());
        for bad in [
            Report { failed: 1, ..good() },
            Report { ungoverned: 1, ..good() },
            Report { long_lived_broken: 1, ..good() },
            Report { connections: CONNECTIONS_ABOVE, ..good() },
            Report { worker_kills: KILLS_ABOVE, ..good() },
        ] {
            assert_eq!(bad.complaints().len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn a_stream_without_a_byte_is_broken() {
        let counted =
            Counted { load: Tally::default(), streams: vec![StreamEnd { bytes: 0, broken: None }] };
        let report = Report::new(&counted, Faults::default(), Vec::new());
        assert_eq!(report.long_lived_broken, 1);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(5));
        assert_eq!(percentile(&times, 99), Duration::from_millis(10));
        assert_eq!(percentile(&times[..1], 50), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
