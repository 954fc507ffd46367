//! Answers to text for people. Every function here is pure: what it returns is styled, and loses
//! its styles on the way out when nobody looks at it on a terminal.

pub mod check;
pub mod outcome;
pub mod policies;
pub mod rows;
pub mod status;
pub mod table;
pub mod top;

use anstyle::{AnsiColor, Style};

/// As it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub const NOTABLE: Style = AnsiColor::Yellow.on_default();
/// Not as it should be.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// A heading.
pub const HEADING: Style = Style::new().bold();
/// Of secondary interest.
pub const FAINT: Style = Style::new().dimmed();

/// `text` in `style`.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// `text` on one line and without control characters: what another process says must not move the
/// terminal's cursor.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Seconds as `3d 4h`, `5h 2m`, `7m 1s` or `9s`.
pub fn seconds(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        DAY.. => format!("{}d {}h", seconds / DAY, seconds % DAY / HOUR),
        HOUR.. => format!("{}h {}m", seconds / HOUR, seconds % HOUR / MINUTE),
        MINUTE.. => format!("{}m {}s", seconds / MINUTE, seconds % MINUTE),
        _ => format!("{seconds}s"),
    }
}

/// Microseconds as `12.3 ms` or `1.20 s`.
pub fn micros(micros: u64) -> String {
    // A person reads three digits; what is lost beyond 2^52 microseconds is no loss.
    let milliseconds = micros as f64 / 1000.0;
    if milliseconds < 1000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.2} s", milliseconds / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        let cases = [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90_000, "1d 1h")];
        for (given, expected) in cases {
            assert_eq!(seconds(given), expected);
        }
        for (given, expected) in [(0, "0.0 ms"), (4_249, "4.2 ms"), (1_200_000, "1.20 s")] {
            assert_eq!(micros(given), expected);
        }
    }
}
