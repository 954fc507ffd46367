//! The command line.

use std::path::{Path, PathBuf};

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
    /// Show the version of this program, and of the supervisor if one runs
    Version,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
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
