//! The command line of `holdfast-worker`; the library maps its modules.

use std::process::ExitCode;

use clap::Parser;
use holdfast_worker::{close, load, serve};

/// Started by the Holdfast supervisor, which hands it a socket; not meant to be run by hand.
#[derive(Debug, Parser)]
#[command(name = "holdfast-worker", version)]
enum Command {
    /// Build or adopt the estate and hand it to the supervisor.
    Load(load::Arguments),
    /// Remove the estate.
    Clear(load::Arguments),
    /// Close the connections of endpoints that have drained long enough.
    Close(close::Arguments),
    /// Serve the configuration from the estate the supervisor hands over.
    Serve(serve::Arguments),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Load(arguments) => load::load(&arguments),
        Command::Clear(arguments) => load::clear(&arguments),
        Command::Close(arguments) => close::close(&arguments),
        Command::Serve(arguments) => serve::serve(&arguments),
    }
}
