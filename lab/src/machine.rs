//! Where something was measured.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A machine at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors this process may use.
    pub processors: usize,
    /// What they are called.
    pub processor: String,
    /// Memory in mebibytes.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// When, in seconds since 1970, UTC.
    pub time_s: u64,
    /// Load average over a minute when the run had ended: what else went on shows here.
    pub load: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, label: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(label)?.split_once(':'));
            line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            processor: value(&read("/proc/cpuinfo"), "model name"),
            memory_mib: memory.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            time_s: now.as_secs(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// The time as `2026-01-31 23:59 UTC`.
    #[must_use]
    pub fn time(&self) -> String {
        const DAY_S: u64 = 86_400;
        let (days, rest) = (self.time_s / DAY_S, self.time_s % DAY_S);
        // Counted from 1 March of year 0, a year's leap day is its last (Howard Hinnant,
        // "chrono-Compatible Low-Level Date Algorithms").
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + carry;
        let (hour, minute) = (rest / 3600, rest % 3600 / 60);
        format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let time = |time_s| Machine { time_s, ..Machine::default() }.time();
        assert_eq!(time(0), "1970-01-01 00:00 UTC");
        assert_eq!(time(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(time(1_767_225_599), "2025-12-31 23:59 UTC");
    }

    #[test]
    fn this_machine_has_a_kernel_and_processors() {
        let here = Machine::here();
        assert!(!here.kernel.is_empty() && here.processors > 0 && here.memory_mib > 0, "{here:?}");
    }
}
