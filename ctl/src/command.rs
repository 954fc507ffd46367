//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use holdfast_protocol::control::SOCKET_NAME;

const EXAMPLES: &str = "\
Examples:
  holdfastctl status
      What runs, which configuration is in force, whether every link is in place.
  holdfastctl check /etc/holdfast.d && holdfastctl reload
      Replace the worker, but only if its configuration is valid.
  holdfastctl services --json | jq '.[] | select(.refused > 0)'
      The services that refused a connection.

  holdfastctl top --interval 5s
      Which services are busy, and which refuse connections, right now.
  holdfastctl trace --service web
      What happens to each connection to `web`, as it happens.
  holdfastctl schema > holdfast.schema.json
      What a configuration may say, for an editor that completes and checks.

Exit status:
  0   done; for `check`: the configuration is valid
  1   refused, with the reason; for `check`: the configuration is invalid
  2   wrong arguments
  66  the configuration to check cannot be read
  69  no supervisor runs for this instance
  74  the output could not be written
  75  the supervisor did not answer in time
  76  the answer was not understood: another version, or not a supervisor
  77  permission denied";

/// Shows and controls a running Holdfast, and checks its configuration.
#[derive(Debug, Parser)]
#[command(name = "holdfastctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct CommandLine {
    // A documentation comment here would replace the command's own in --help.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What holds for every verb.
#[derive(Debug, Args)]
pub struct Options {
    /// Name of the instance
    #[arg(long, global = true, default_value = "default", value_name = "NAME", value_parser = instance)]
    pub instance: String,
    /// Where the supervisor keeps its control socket: DIR/NAME/control.sock
    #[arg(long, global = true, default_value = "/run/holdfast", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the supervisor, the worker, the configuration, the links and the takeovers
    Status,
    /// List the services in force, one line per port, with their counters
    Services,
    /// Show what happens to the services, live: connections and refusals per second, the busiest first
    #[command(
        long_about = "Show what happens to the services, live: connections and refusals per \
        second, the busiest first.\n\nOn a terminal it goes on until it is interrupted. In a pipe it \
        prints one interval, or as many as --count says. With --json it prints a line per interval \
        until nobody reads it any more."
    )]
    Top(Pace),
    /// Follow connections, live: a line for each that is sent, established, closed, denied or refused
    #[command(
        long_about = "Follow connections, live: a line for each that is sent, established, closed, \
        denied or refused.\n\nIt goes on until it is interrupted, or as long as --for says. Connections \
        that were made before are not shown. What the kernel had no room for is counted on standard \
        error. docs/access-log.md describes the lines."
    )]
    Trace(Following),
    /// List the endpoints in force, one line per endpoint of a port
    Endpoints,
    /// List the access policies in force, one line per policy, with what they denied
    Policies,
    /// List the links in the kernel, and whether each is what it should be
    Links,
    /// Replace the worker by a new one, and wait for the outcome; the old one serves meanwhile,
    /// and serves on if the new one is refused
    Reload,
    /// Remove all of this instance from the kernel and the file system, and stop its supervisor
    #[command(long_about = "Remove all of this instance from the kernel and the file system, and \
        stop its supervisor.\n\nConnections made afterwards are not governed. When no supervisor \
        runs, use `holdfast uninstall`.")]
    Uninstall,
    /// Check a configuration without touching anything: every error with file, line and column
    Check {
        /// The configuration: a file, or a directory of *.yaml and *.yml files
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Print the JSON Schema (draft 2020-12) of a configuration file
    Schema,
    /// Show the version of this program, and of the supervisor if one runs
    Version,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// What `trace` shows.
#[derive(Debug, Args)]
pub struct Following {
    /// Of this service only
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// End after this time: a whole number and `ms`, `s` or `m`
    #[arg(long = "for", value_name = "TIME", value_parser = interval)]
    pub duration: Option<Duration>,
}

/// How often `top` shows something.
#[derive(Debug, Args)]
pub struct Pace {
    /// How long an interval is: a whole number and `ms`, `s` or `m`
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = interval)]
    pub interval: Duration,
    /// End after so many intervals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

/// Shortest interval: below it, asking would be most of what the supervisor does.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// Longest interval.
const MOST_INTERVAL: Duration = Duration::from_secs(3600);

fn interval(text: &str) -> Result<Duration, String> {
    let wanted = "write a whole number and a unit, between `100ms` and `60m`";
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wanted.to_owned())?;
    let interval = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(wanted.to_owned()),
    };
    let is_possible = (LEAST_INTERVAL..=MOST_INTERVAL).contains(&interval);
    is_possible.then_some(interval).ok_or_else(|| wanted.to_owned())
}

impl Options {
    /// Where the instance's supervisor listens.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join(&self.instance).join(SOCKET_NAME)
    }
}

/// A name that is one part of a path. Whether such an instance exists is the socket's to say.
fn instance(name: &str) -> Result<String, String> {
    let one_part = Path::new(name).components().eq([std::path::Component::Normal(name.as_ref())]);
    if one_part { Ok(name.to_owned()) } else { Err("an instance's name is one word".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_a_unit_and_bounds() {
        for (text, expected) in [
            ("100ms", Some(Duration::from_millis(100))),
            ("2s", Some(Duration::from_secs(2))),
            ("60m", Some(Duration::from_secs(3600))),
            ("99ms", None),
            ("61m", None),
            ("2", None),
            ("-1s", None),
            ("1.5s", None),
            ("s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(interval(text).ok(), expected, "{text}");
        }
    }
}
