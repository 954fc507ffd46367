//! What has to hold in every state, and what has to be reached at least once for that to mean
//! anything.

use holdfast::takeover::pace::FREE_FAILURES;
use holdfast::takeover::{MAX_SERVING, MAX_WORKERS, Phase};
use stateright::Property;

use super::process::Process;
use super::steps::Bounds;
use super::world::{Flaw, World};

pub const ONE_WRITER: &str = "never two granted writers";
pub const ONE_GRANT: &str = "no grant is on its way while another worker may write";
pub const BOUNDED: &str = "never more than two worker processes and a spare";
pub const GOVERNED: &str = "the links are held or pinned, unless somebody asked for their removal";
pub const GROWING: &str = "every grant has a newer epoch";
pub const UNDERSTOOD: &str = "every worker is told what it can make sense of, and none forgotten";
pub const SERVED: &str = "whoever has nothing left to do serves, or has removed everything";

/// Every property.
pub fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always(ONE_WRITER, |_, world: &World| world.writers() <= 1),
        Property::always(ONE_GRANT, |_, world: &World| world.possible_writers() <= 1),
        Property::always(BOUNDED, |bounds: &Bounds, world: &World| {
            world.existing() <= if bounds.budget.spare { MAX_WORKERS } else { MAX_SERVING }
        }),
        Property::always(GOVERNED, |_, world: &World| {
            world.supervisor.is_some() || world.pinned || world.removal
        }),
        Property::always(GROWING, |_, world: &World| {
            !matches!(world.flaw, Some(Flaw::StaleEpoch(_)))
        }),
        Property::always(UNDERSTOOD, |_, world: &World| {
            matches!(world.flaw, None | Some(Flaw::StaleEpoch(_)))
        }),
        Property::always(SERVED, |bounds: &Bounds, world: &World| {
            let mut steps = Vec::new();
            bounds.fair(world, &mut steps);
            !steps.is_empty() || world.serves() || world.is_removed()
        }),
        Property::sometimes("a worker gets its grant back", |bounds: &Bounds, world: &World| {
            let mut first = world.processes.iter().filter(|process| process.pid.worker.0 == 0);
            bounds.budget.reloads == 0 || world.life == 0 && first.any(|process| process.epoch > 1)
        }),
        Property::sometimes("a replacement is delayed", |bounds: &Bounds, world: &World| {
            let mut machine = world.supervisor.iter().map(|up| &up.machine);
            u32::from(bounds.budget.faults) <= FREE_FAILURES
                || machine.any(|machine| machine.workers().is_empty() && machine.awaits_takeover())
        }),
        Property::sometimes("a worker is killed while it may write", |_, world: &World| {
            let mut workers = world.supervisor.iter().flat_map(|up| up.machine.workers());
            workers.any(|worker| worker.phase == Phase::Dying { writer: true })
        }),
        Property::sometimes("a spare serves", |bounds: &Bounds, world: &World| {
            let was_spare = |process: &Process| process.writes() && process.was_spare;
            !bounds.budget.spare || world.serves() && world.processes.iter().any(was_spare)
        }),
        Property::sometimes(
            "a spare waits while two others exist",
            |bounds: &Bounds, world: &World| {
                let is_spare = |process: &Process| world.is_ready_spare(process);
                !bounds.budget.spare
                    || bounds.budget.reloads == 0
                    || world.existing() == MAX_WORKERS && world.processes.iter().any(is_spare)
            },
        ),
        Property::sometimes("a second worker serves", |_, world: &World| {
            world.serves() && world.processes.iter().any(|process| process.pid.worker.0 > 0)
        }),
        Property::sometimes(
            "a supervisor that came back serves",
            |bounds: &Bounds, world: &World| {
                bounds.budget.deaths == 0 || world.life > 0 && world.serves()
            },
        ),
        Property::sometimes(
            "a successor serves on with its predecessor's worker",
            |bounds: &Bounds, world: &World| {
                let mut workers = world.processes.iter();
                bounds.budget.successions == 0
                    || has_only_succeeded(bounds, world)
                        && world.serves()
                        && workers.any(|worker| worker.epoch == 1)
            },
        ),
        Property::sometimes(
            "a successor finds its predecessor's worker dead and serves with another",
            |bounds: &Bounds, world: &World| {
                bounds.budget.successions == 0
                    || has_only_succeeded(bounds, world)
                        && world.serves()
                        && world.left.reloads == bounds.budget.reloads
                        && world.processes.iter().any(|worker| worker.pid.worker.0 > 0)
            },
        ),
        Property::sometimes("an orphan may write", |bounds: &Bounds, world: &World| {
            bounds.budget.deaths == 0
                || world.processes.iter().any(|p| world.is_orphan(p) && p.may_write())
        }),
        Property::sometimes("everything is removed", |bounds: &Bounds, world: &World| {
            bounds.budget.departures == 0 || world.is_removed()
        }),
    ]
}

/// Whether the supervisor became another binary, and neither died nor left.
fn has_only_succeeded(bounds: &Bounds, world: &World) -> bool {
    let (budget, left) = (bounds.budget, world.left);
    left.successions < budget.successions
        && (left.deaths, left.departures) == (budget.deaths, budget.departures)
}
