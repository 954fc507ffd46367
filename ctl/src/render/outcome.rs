//! How a change ended, and versions.

use super::{FAINT, GOOD, micros, paint, printable};
use crate::session::Reloaded;

/// A new worker serves.
pub fn reloaded(outcome: Reloaded) -> String {
    let Reloaded { epoch, pid, total_us } = outcome;
    let granted = paint(GOOD, "granted");
    format!("{granted}: worker {pid} serves in epoch {epoch}, after {}\n", micros(total_us))
}

/// Everything is gone.
pub fn uninstalled(removed: &[String]) -> String {
    if removed.is_empty() {
        return "nothing was left to remove\n".to_owned();
    }
    let lines: String = removed.iter().map(|item| format!("  {}\n", printable(item))).collect();
    format!("removed:\n{lines}")
}

/// This program's version, and the supervisor's or why it is unknown.
pub fn version(own: &str, supervisor: Result<&str, &str>) -> String {
    match supervisor {
        Ok(supervisor) => format!("holdfastctl {own}\nsupervisor  {}\n", printable(supervisor)),
        Err(reason) => {
            format!("holdfastctl {own}\nsupervisor  {}\n", paint(FAINT, &printable(reason)))
        }
    }
}
