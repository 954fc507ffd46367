//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

use crate::error::LabError;

/// How long a condition is waited for before the wait is called failed. Far above anything that
/// happens on a healthy machine, so that a loaded one does not raise false alarms.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at a condition: short against what is waited for (processes starting),
/// long against what a look costs.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `probe` gives a value, at most [`PATIENCE`].
///
/// # Errors
///
/// [`LabError::Overdue`] with `what` and the last thing the probe said instead.
pub fn eventually<T, E: std::fmt::Display>(
    what: &str,
    probe: impl FnMut() -> Result<T, E>,
) -> Result<T, LabError> {
    within(PATIENCE, what, probe)
}

/// Waits until `probe` gives a value, at most `deadline`.
///
/// # Errors
///
/// [`LabError::Overdue`] with `what` and the last thing the probe said instead.
pub fn within<T, E: std::fmt::Display>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, E>,
) -> Result<T, LabError> {
    let begin = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if begin.elapsed() >= deadline => {
                let (what, last) = (what.to_owned(), last.to_string());
                return Err(LabError::Overdue { what, deadline, last });
            }
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// `Ok` when `condition` holds, else what `otherwise` says: for the last line of a probe.
///
/// # Errors
///
/// The text of `otherwise` when the condition does not hold.
pub fn holds(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let seen = eventually("the third look", || {
            looks += 1;
            if looks < 3 { Err("too early") } else { Ok(looks) }
        });
        assert!(matches!(seen, Ok(3)));
    }

    #[test]
    fn a_condition_that_stays_false_is_reported_with_what_was_there() {
        let seen = within(Duration::ZERO, "rain", || Err::<(), _>("sunshine"));
        let error = seen.expect_err("the probe never gives a value").to_string();
        assert!(error.contains("rain") && error.contains("sunshine"), "{error}");
    }
}
