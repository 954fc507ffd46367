//! From a save to the kernel, as a running worker does it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_bpf::mapped::MappedArray;
use holdfast_bpf::object;
use holdfast_lab::{Lab, Supervisor};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;
use holdfast_protocol::kernel::{HeadWord, map};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{CHANGES, Change, estate, text};
use crate::rounds::Rounds;
use crate::sized::Size;

/// How long a save may take to be in force.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the kernel's map is looked at meanwhile.
const LOOK: Duration = Duration::from_micros(20);

/// Rest before a save: the worker is done with everything of the one before.
const REST: Duration = Duration::from_millis(50);

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// From the event that the file is renamed to its place until the service is published, in
    /// milliseconds.
    pub times: Rounds<Change>,
    /// The same from just before the call that renames it: a file system may write the file first.
    pub from_call: Rounds<Change>,
    /// How many services were published anew.
    pub rewritten: Rounds<Change>,
}

/// Measures `changes` changes of each kind.
pub fn measure(lab: &Lab, size: Size, changes: usize) -> anyhow::Result<Found> {
    let texts = CHANGES.map(|change| text(size, change));
    let save = |change: usize| lab.write("live.yaml", &texts[change]);
    let live = save(2)?;
    let mut supervisor = lab.supervisor(&live).start()?;
    wait_until_settled(&mut supervisor, size)?;
    let heads = heads(lab)?;
    let number = {
        // Which number the watched service has shows with the first change.
        let before = all(&heads);
        save(0)?;
        wait_until_changed(&heads, &before)?
    };
    let mut found = Found::default();
    for change in 1..=changes * CHANGES.len() {
        wait_until_settled(&mut supervisor, size)?;
        let which = change % CHANGES.len();
        let aside = lab.write("live.next", &texts[which])?;
        std::thread::sleep(REST);
        let before = all(&heads);
        // Told of the one event that is about to come.
        let events = Inotify::init(InitFlags::empty())?;
        events.add_watch(
            live.parent().context("a file is in a directory")?,
            AddWatchFlags::IN_MOVED_TO,
        )?;
        // The kernel tells of it before the call returns: it then frees the former file.
        let renaming = std::thread::spawn({
            let live = live.clone();
            move || (Instant::now(), std::fs::rename(aside, live))
        });
        events.read_events().context("waiting for the file's event")?;
        let begin = Instant::now();
        while heads.read(number) == before[number as usize] {
            ensure!(begin.elapsed() < PATIENCE, "a save did not come into force");
            // Whatever is looked at needs the processor too.
            std::thread::sleep(LOOK);
        }
        let end = Instant::now();
        let (called, renamed) = renaming.join().map_err(|_| anyhow::anyhow!("a thread ended"))?;
        renamed.context("cannot rename")?;
        wait_until_settled(&mut supervisor, size)?;
        let after = all(&heads);
        let rewritten = after.iter().zip(&before).filter(|(after, before)| after != before);
        let ms = |begin| end.duration_since(begin).as_secs_f64() * 1e3;
        found.times.add(CHANGES[which], ms(begin));
        found.from_call.add(CHANGES[which], ms(called));
        found.rewritten.add(CHANGES[which], rewritten.count() as f64);
    }
    supervisor.end(nix::sys::signal::Signal::SIGTERM)?;
    Ok(found)
}

/// The map whose words say which table of a service is in force, read as a worker in shadow does.
fn heads(lab: &Lab) -> anyhow::Result<MappedArray<HeadWord>> {
    for descriptor in estate::pinned(&lab.bpffs())? {
        if object::map_info(descriptor.as_fd())?.name == map::HEADS {
            return Ok(MappedArray::map(descriptor)?);
        }
    }
    anyhow::bail!("no map {} is pinned", map::HEADS)
}

fn all(heads: &MappedArray<HeadWord>) -> Vec<HeadWord> {
    (0..heads.length()).map(|number| heads.read(number)).collect()
}

/// The first number whose word is another one than `before`.
fn wait_until_changed(heads: &MappedArray<HeadWord>, before: &[HeadWord]) -> anyhow::Result<u32> {
    let begin = Instant::now();
    loop {
        if let Some(number) = (0..heads.length()).find(|n| heads.read(*n) != before[*n as usize]) {
            return Ok(number);
        }
        ensure!(begin.elapsed() < PATIENCE, "the first change was never seen");
    }
}

/// Waits until the supervisor says that what is on disk is in force.
fn wait_until_settled(supervisor: &mut Supervisor, size: Size) -> anyhow::Result<()> {
    let is_settled = |status: &Status| {
        status.config.state == ConfigState::InForce && status.services == size.services + 1
    };
    supervisor.wait_until("the configuration to be in force", is_settled).context("settling")?;
    Ok(())
}
