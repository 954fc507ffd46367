//! The command line.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast_protocol::kernel::limit;

use crate::instance::{Name, Places};

const EXAMPLES: &str = "\
Examples:
  holdfast run --config /etc/holdfast.yaml
      Govern every process of this node as the file says; saves are in force at once.
  holdfast run --config /etc/holdfast.d --instance web --cgroup /sys/fs/cgroup/web.slice
      Govern one cgroup only, beside other instances.
  holdfast run --config /etc/holdfast.yaml --control-group operators
      Let members of a group look, with `holdfastctl status` and its like, without sudo.
  holdfast run --config /etc/holdfast.yaml --metrics 127.0.0.1:9150
      Answer scrapes at http://127.0.0.1:9150/metrics, also while workers come and go.
  holdfast uninstall
      Remove everything, whether a supervisor runs or not.

Signals to `holdfast run`:
  SIGHUP           replace the worker: a new binary and configuration are picked up
  SIGUSR2          go on as the binary on disk: same process, same worker; this one
                   goes on instead if that cannot
  SIGTERM, SIGINT  leave, KEEPING governance: connections go on being governed
  others           change nothing

Exit status:
  0   left or removed as asked
  1   it could not be done; what was in force still is
  2   wrong arguments
  75  another supervisor holds this instance
  77  a privilege is missing
  78  something on this machine or in the arguments has to be set up first";

/// Governs the traffic of this node from inside the kernel, and does not let go of it.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Govern until told to leave; what is in the kernel stays there afterwards
    #[command(after_help = EXAMPLES)]
    Run(Run),
    /// Remove everything of an instance, with or without a running supervisor
    Uninstall(Uninstall),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Which instance, and where it keeps what.
#[derive(Clone, Debug, Args)]
pub struct Whereabouts {
    /// Name of the instance: several can govern different cgroups of one node
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub instance: Name,
    /// The cgroup whose processes are governed [default: the root of the cgroup2 mount]
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// The bpffs that keeps the kernel objects alive
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// What outlives the supervisor
    #[arg(long, value_name = "DIR", default_value = "/var/lib/holdfast")]
    pub state_dir: PathBuf,
    /// The lock and the control socket
    #[arg(long, value_name = "DIR", default_value = "/run/holdfast")]
    pub run_dir: PathBuf,
    /// The worker's binary [default: holdfast-worker beside this binary, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub worker: Option<PathBuf>,
    /// How to log
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// `holdfast run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The configuration: a file, or a directory of files
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    #[expect(missing_docs, reason = "its documentation would replace the command's in --help")]
    #[command(flatten)]
    pub whereabouts: Whereabouts,
    /// The user the worker becomes
    #[arg(long, value_name = "NAME|UID", default_value = "nobody")]
    pub worker_user: String,
    /// Accept a worker user that is root
    #[arg(long)]
    pub allow_root_worker: bool,
    /// A group whose members may ask for status, services, endpoints, links and version [default:
    /// only root may]
    #[arg(long, value_name = "NAME|GID")]
    pub control_group: Option<String>,
    /// Keep a spare worker ready, so that one that dies is replaced within a millisecond or two
    #[arg(long)]
    pub standby: bool,
    /// Serve metrics in the Prometheus format, /healthz and /readyz at this address, for one at
    /// 127.0.0.1:9150 [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Write the access log to this file, opened anew by SIGHUP [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Room for this many services (one per service, port and address family)
    #[arg(long, value_name = "N", default_value_t = limit::DEFAULT_SERVICES)]
    pub max_services: u32,
    /// Room for this many endpoint slots (one per endpoint and one per table)
    #[arg(long, value_name = "N", default_value_t = limit::DEFAULT_SLOTS)]
    pub max_slots: u32,
    /// Room for this many flows of unconnected UDP sockets; the one used least recently makes way
    #[arg(long, value_name = "N", default_value_t = limit::DEFAULT_FLOWS)]
    pub max_flows: u32,
    /// What a predecessor in this process left is described in this descriptor
    #[arg(long, hide = true, value_name = "FD")]
    pub resume_from: Option<RawFd>,
    /// Check whether that could be taken over, and end
    #[arg(long, hide = true, requires = "resume_from")]
    pub rehearse: bool,
}

/// `holdfast uninstall`.
#[derive(Clone, Debug, Args)]
pub struct Uninstall {
    #[expect(missing_docs, reason = "its documentation would replace the command's in --help")]
    #[command(flatten)]
    pub whereabouts: Whereabouts,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

impl LogFormat {
    /// As it is given on a command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Whereabouts {
    /// Where the instance keeps what.
    #[must_use]
    pub fn places(&self) -> Places {
        Places::new(&self.instance, &self.run_dir, &self.state_dir, &self.bpffs)
    }

    /// The worker's binary: the one given, or `holdfast-worker` beside this binary, or the first
    /// one in PATH. It need not exist.
    #[must_use]
    pub fn worker_binary(&self) -> PathBuf {
        const NAME: &str = "holdfast-worker";
        if let Some(given) = &self.worker {
            return given.clone();
        }
        let beside = std::env::current_exe().ok().map(|own| own.with_file_name(NAME));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path).map(|directory| directory.join(NAME));
        let mut candidates = beside.iter().cloned().chain(in_path);
        let found = candidates.find(|candidate| candidate.is_file());
        found.or(beside).unwrap_or_else(|| Path::new(NAME).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_documented() {
        let line = CommandLine::try_parse_from(["holdfast", "run", "--config", "x"]);
        let Ok(CommandLine { verb: Verb::Run(run) }) = line else { panic!("{line:?}") };
        let places = run.whereabouts.places();
        assert_eq!(places.run, Path::new("/run/holdfast/default"));
        assert_eq!(places.state, Path::new("/var/lib/holdfast/default"));
        assert_eq!(places.pins, Path::new("/sys/fs/bpf/holdfast/default"));
        assert_eq!(run.worker_user, "nobody");
    }

    #[test]
    fn bad_instance_names_are_refused() {
        for bad in ["../x", "a.b", ""] {
            let argument = format!("--instance={bad}");
            let line = CommandLine::try_parse_from(["holdfast", "uninstall", &argument]);
            assert!(line.is_err(), "{bad:?}");
        }
    }
}
