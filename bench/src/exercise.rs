//! A fixed piece of work without any measurement, for whoever counts its instructions.
//!
//! Times of a shared machine hide a regression of ten per cent; counts of instructions do not
//! (`bench/tests/instructions.rs`).

use anyhow::ensure;
use holdfast_config::{Sources, parse};
use holdfast_protocol::handover::{Offer, ToChild};
use holdfast_protocol::manifest::{Entry, MapShape, Shape};
use holdfast_protocol::wire::{decode, encode};
use holdfast_worker::serve::compile::compile;

use crate::sized::Size;

/// What is compiled: large enough that starting a process does not count.
const COMPILED: Size = Size { services: 500, endpoints: 10 };

/// Messages that go through the codec, and objects in each.
const MESSAGES: u16 = 500;
const OBJECTS: u32 = 16;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Nothing: what starting and ending takes.
    Nothing,
    /// Text to tables.
    Compiler,
    /// Messages to packets and back.
    Codec,
}

/// Do a fixed piece of work and end, for callgrind.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Which one
    work: Work,
}

/// `exercise`.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.work {
        Work::Nothing => Ok(()),
        Work::Compiler => compiler(),
        Work::Codec => codec(),
    }
}

fn compiler() -> anyhow::Result<()> {
    let sources = Sources::single("exercise.yaml", COMPILED.texts().concat());
    let config = parse(&sources).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let desired = compile(&config);
    ensure!(desired.services.len() == 500, "{} services", desired.services.len());
    Ok(())
}

fn codec() -> anyhow::Result<()> {
    let entry = |id: u32| {
        let (key_bytes, value_bytes) = (4, 64);
        let shape = MapShape { map_type: 2, key_bytes, value_bytes, max_entries: id, flags: 1024 };
        Entry { name: format!("MAP_{id}"), id, shape: Shape::Map(shape) }
    };
    for index in 0..MESSAGES {
        let entries = (0..OBJECTS).map(entry).collect();
        let offer = ToChild::Offer(Offer { index, of: MESSAGES, entries });
        let packet = encode(&offer)?;
        let again: ToChild = decode(&packet)?;
        ensure!(again == offer, "a message that was read is another one");
    }
    Ok(())
}
