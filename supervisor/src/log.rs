//! What goes to standard error: one line per event, coloured on a terminal only.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;

use crate::command::LogFormat;

/// Logs from here on. Calling it a second time changes nothing.
pub fn start(format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(LevelFilter::INFO)
        .with_target(false);
    // An error means that somebody else logs already, which only tests do.
    let _logging_already = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
