//! What a figure is of, and how it is written (pure).

use serde::{Deserialize, Serialize};

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Kibibytes.
    Kibibytes,
    /// Something a second.
    PerSecond,
    /// How many times as much as what it is compared with.
    Times,
    /// Per cent.
    Percent,
    /// How many.
    Count,
}

impl Unit {
    /// As it stands beside a figure.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Kibibytes => "KiB",
            Self::PerSecond => "/s",
            Self::Times => "×",
            Self::Percent => "%",
            Self::Count => "",
        }
    }

    /// A figure, with as many decimals as say something.
    pub fn figure(self, value: f64) -> String {
        let decimals = match (self, value.abs()) {
            (Self::Count | Self::Kibibytes | Self::PerSecond | Self::Nanoseconds, _) => 0,
            (Self::Times, ..100.0) => 3,
            (_, 100.0..) => 0,
            (_, 10.0..) => 1,
            (_, 1.0..) => 2,
            _ => 3,
        };
        format!("{value:.decimals$}")
    }

    /// A figure with its unit behind it.
    pub fn with_name(self, value: f64) -> String {
        match self {
            Self::Count => self.figure(value),
            Self::Times => format!("{}{}", self.figure(value), self.name()),
            _ => format!("{} {}", self.figure(value), self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_decimals_that_say_something() {
        assert_eq!(Unit::Milliseconds.with_name(1.2345), "1.23 ms");
        assert_eq!(Unit::Milliseconds.with_name(123.45), "123 ms");
        assert_eq!(Unit::Milliseconds.with_name(0.01234), "0.012 ms");
        assert_eq!(Unit::Times.with_name(1.0071), "1.007×");
        assert_eq!(Unit::Count.with_name(3.0), "3");
    }
}
