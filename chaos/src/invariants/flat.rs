//! Nothing grows with time or with faults.

use crate::history::{History, Sample, Taken};

/// What a run takes at its begin says nothing: heaps grow to what the largest change needs.
const WARM_UP_US: u64 = 120_000_000;

/// Shortest time after that in which growth would show, in microseconds. Runs that are shorter are not
/// judged, and say so in the report's samples.
const SHORTEST_US: u64 = 480_000_000;

/// How much more the last third may take than the first one: what a heap's fragments come to, and what
/// is open in the middle of a takeover.
const MARGIN_KIB: u64 = 256;
const MARGIN_PER_CENT: u64 = 5;
const MARGIN_DESCRIPTORS: u64 = 2;

/// Memory and descriptors of supervisor and worker: the median of the last third of the samples is not
/// above that of the first, but for a margin.
pub fn flat(history: &History) -> Vec<String> {
    let warm = history.resources.iter().filter(|sample| sample.at_us >= WARM_UP_US);
    let warm: Vec<&Sample> = warm.collect();
    let (Some(first), Some(last)) = (warm.first(), warm.last()) else { return Vec::new() };
    if last.at_us - first.at_us < SHORTEST_US {
        return Vec::new();
    }
    let third = warm.len() / 3;
    let (begin, end) = (&warm[..third], &warm[warm.len() - third..]);
    let mut complaints = Vec::new();
    for (who, of) in [("supervisor", supervisor as fn(&Sample) -> Taken), ("worker", worker)] {
        let medians = |get: fn(Taken) -> u64| {
            [begin, end].map(|part| median(part.iter().map(|sample| get(of(sample))).collect()))
        };
        let [before, after] = medians(|taken| taken.memory_kib);
        if after > before + before * MARGIN_PER_CENT / 100 + MARGIN_KIB {
            complaints.push(format!("the {who}'s memory went from {before} to {after} KiB"));
        }
        let [before, after] = medians(|taken| taken.descriptors as u64);
        if after > before + MARGIN_DESCRIPTORS {
            complaints.push(format!("the {who}'s descriptors went from {before} to {after}"));
        }
    }
    complaints
}

const fn supervisor(sample: &Sample) -> Taken {
    sample.supervisor
}

const fn worker(sample: &Sample) -> Taken {
    sample.worker
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::breaks;
    use super::*;

    /// Samples of a run of `seconds`, whose worker takes `grow` KiB more each second.
    fn run(seconds: u64, grow: fn(u64, &mut Sample)) -> Vec<Sample> {
        let steady = Taken { memory_kib: 2_000, descriptors: 40 };
        let sample = |second: u64| {
            let at_us = second * 1_000_000;
            let mut sample = Sample { at_us, supervisor: steady, worker: steady };
            grow(second, &mut sample);
            sample
        };
        (0..seconds).map(sample).collect()
    }

    #[test]
    fn what_grows_all_the_while_is_complained_of() {
        let grow: [fn(u64, &mut Sample); 4] = [
            |second, sample| sample.worker.memory_kib += second,
            |second, sample| sample.supervisor.memory_kib += second,
            |second, sample| {
                sample.worker.descriptors += usize::try_from(second / 100).unwrap_or(0)
            },
            |second, sample| {
                sample.supervisor.descriptors += usize::try_from(second / 100).unwrap_or(0)
            },
        ];
        for grow in grow {
            breaks("flat", |history| history.resources = run(3_600, grow));
        }
    }

    #[test]
    fn what_grows_at_first_and_peaks_now_and_then_is_not() {
        let grow = |second: u64, sample: &mut Sample| {
            sample.worker.memory_kib += second.min(100) * 100;
            sample.worker.descriptors += if second.is_multiple_of(7) { 20 } else { 0 };
        };
        let history = History { resources: run(3_600, grow), ..History::default() };
        assert_eq!(flat(&history), Vec::<String>::new());
        let short = run(300, |second, sample| sample.worker.memory_kib += second * 100);
        assert_eq!(flat(&History { resources: short, ..History::default() }), Vec::<String>::new());
    }
}
