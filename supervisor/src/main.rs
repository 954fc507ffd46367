//! `holdfast`: see the library's first page.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use holdfast::command::{CommandLine, Verb};
use holdfast::failure::Failure;
use holdfast::{log, run, uninstall};

/// Keeps less between takeovers than the C library's: it has no caches, merges what is freed at once,
/// and one thread needs no arenas.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    match execute(CommandLine::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Not through the log: in every format, the last words are for people.
            eprintln!("holdfast: {failure}");
            failure.exit_code()
        }
    }
}

fn execute(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Run(arguments) => {
            log::start(arguments.whereabouts.log_format);
            run::run(&arguments)
        }
        Verb::Uninstall(arguments) => {
            log::start(arguments.whereabouts.log_format);
            uninstall::uninstall(&arguments)
        }
        Verb::Completions { shell } => {
            let mut command = CommandLine::command();
            clap_complete::generate(shell, &mut command, "holdfast", &mut std::io::stdout());
            Ok(())
        }
    }
}
