//! The takeover machine, explored exhaustively.
//!
//! [`holdfast::takeover::State`] is the one that runs in production; everything around it is
//! played. In reading order:
//!
//! - [`process`]: a worker's process, as a small automaton between two queues of messages.
//! - [`world`]: the machine, the processes, what outlives the supervisor, and what is done when the
//!   machine says so.
//! - [`steps`]: what can happen: by itself, on request, and as a fault.
//! - [`rules`]: what has to hold in every state.
//!
//! Any step can come at any moment, which is what delay means here: a message that is not read yet,
//! a process that gets no processor, a SIGKILL that has not taken effect. Messages of one direction
//! keep their order, as SEQPACKET sockets do, and are lost only with their reader. Faults and
//! requests are limited in number ([`Budget`]); within that the exploration is complete.
//!
//! Time is a number the machine compares deadlines with. It stands still until nothing else can
//! happen or, as a fault, although something could; then it jumps to the next deadline.
//!
//! The supervisor may die at any moment, and become another binary in the same process (SIGUSR2) at any
//! quiet one: between two steps, which is what its gate and its empty mailbox come to. It is then told
//! what [`holdfast::takeover::State::resumed`] is told, and everything in the sockets stays there.
//!
//! That every behaviour ends well once faults stop is shown in two halves, because a model checker
//! that remembers states and not paths cannot check it in one: whoever can go no further serves
//! ([`rules::SERVED`], in every state), and nobody goes on for ever
//! ([`every_behaviour_ends`]: the graph of all states has no cycle).
//!
//! What is not here: the loader's part in an uninstall, pins that somebody unlinks (the drift
//! audit's tests have that), an epoch that cannot be recorded, and a worker that lies, against which
//! only its lack of privilege helps.

mod process;
mod rules;
mod steps;
mod world;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use steps::{Bounds, Step};
use world::{Budget, Fence, World};

/// Tests run side by side, so that more would not make them faster.
const THREADS: usize = 2;

/// One fault and a reload: enough to take any fence down.
const NARROW: Budget = Budget {
    faults: 1,
    deaths: 1,
    reloads: 1,
    successions: 1,
    departures: 0,
    heartbeats: 0,
    spare: false,
};

/// Explores everything within `budget`. Fails with a way to any state that breaks a rule, and also
/// when fewer than `least` states are found: a model that shrinks proves less.
fn explore(budget: Budget, least: usize) {
    let started = Instant::now();
    let checker = Bounds { budget, fence: Fence::Whole }
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let (states, steps) = (checker.unique_state_count(), checker.state_count());
    let depth = checker.max_depth();
    println!("{budget:?}: {states} states, {steps} steps, depth {depth}, {:?}", started.elapsed());
    checker.assert_properties();
    assert!(states >= least, "only {states} states");
}

#[test]
fn the_rules_hold_when_workers_fail_and_the_supervisor_dies() {
    let budget = Budget {
        faults: 2,
        deaths: 1,
        reloads: 1,
        successions: 0,
        departures: 0,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 240_000);
}

#[test]
fn the_rules_hold_when_the_supervisor_is_told_to_leave_or_dies_again_and_again() {
    let budget = Budget {
        faults: 1,
        deaths: 2,
        reloads: 1,
        successions: 0,
        departures: 1,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 240_000);
}

#[test]
fn the_rules_hold_when_reloads_meet_late_heartbeats() {
    let budget = Budget {
        faults: 1,
        deaths: 0,
        reloads: 3,
        successions: 0,
        departures: 0,
        heartbeats: 2,
        spare: false,
    };
    explore(budget, 210_000);
}

#[test]
fn the_rules_hold_when_the_supervisor_becomes_another_binary() {
    let budget = Budget {
        faults: 2,
        deaths: 1,
        reloads: 0,
        successions: 2,
        departures: 0,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 85_000);
    let budget = Budget {
        faults: 1,
        deaths: 1,
        reloads: 2,
        successions: 1,
        departures: 0,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 65_000);
}

#[test]
fn the_rules_hold_when_workers_fail_so_often_that_the_next_is_delayed() {
    let budget = Budget {
        faults: 3,
        deaths: 0,
        reloads: 0,
        successions: 0,
        departures: 0,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 100_000);
}

#[test]
fn the_rules_hold_with_a_spare() {
    let (faults, departures, heartbeats, spare) = (1, 0, 0, true);
    let fixed = Budget { faults, departures, heartbeats, spare, ..NARROW };
    explore(Budget { deaths: 1, reloads: 1, successions: 0, ..fixed }, 116_000);
    explore(Budget { deaths: 0, reloads: 1, successions: 1, ..fixed }, 120_000);
    explore(Budget { deaths: 0, reloads: 1, successions: 0, heartbeats: 1, ..fixed }, 200_000);
    explore(Budget { deaths: 0, reloads: 0, successions: 0, departures: 1, ..fixed }, 14_000);
    explore(Budget { faults: 2, deaths: 0, reloads: 0, successions: 0, ..fixed }, 32_000);
}

/// `cargo test --release -p holdfast --test model -- --ignored --nocapture`
///
/// On two cores that others used as well, it took 136 seconds for the 19,775,268 states (72,667,934
/// steps) of the three budgets:
///
/// | faults | deaths | reloads | successions | departures | states | steps | depth | seconds |
/// |---|---|---|---|---|---|---|---|---|
/// | 3 | 1 | 2 | 0 | 0 | 11,028,619 | 41,816,137 | 105 | 69.8 |
/// | 2 | 1 | 2 | 0 | 1 | 6,234,001 | 22,546,292 | 104 | 53.1 |
/// | 2 | 1 | 2 | 2 | 0 | 2,512,648 | 8,305,505 | 93 | 12.7 |
#[test]
#[ignore = "takes minutes and gigabytes"]
fn the_rules_hold_within_wider_bounds() {
    let budget = Budget {
        faults: 3,
        deaths: 1,
        reloads: 2,
        successions: 0,
        departures: 0,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 11_000_000);
    let budget = Budget {
        faults: 2,
        deaths: 1,
        reloads: 2,
        successions: 0,
        departures: 1,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 6_000_000);
    let budget = Budget {
        faults: 2,
        deaths: 1,
        reloads: 2,
        successions: 2,
        departures: 0,
        heartbeats: 0,
        spare: false,
    };
    explore(budget, 2_500_000);
}

/// The same command runs this:
///
/// | faults | deaths | reloads | successions | departures | heartbeats | states | steps | depth |
/// |---|---|---|---|---|---|---|---|---|
/// | 2 | 1 | 1 | 0 | 0 | 0 | 3,569,754 | 14,373,344 | 106 |
/// | 1 | 0 | 1 | 1 | 1 | 0 | 2,269,117 | 10,012,886 | 91 |
/// | 1 | 0 | 2 | 0 | 0 | 1 | 907,897 | 3,479,622 | 92 |
/// | 3 | 0 | 0 | 0 | 0 | 0 | 664,487 | 2,032,721 | 100 |
#[test]
#[ignore = "takes minutes and gigabytes"]
fn the_rules_hold_with_a_spare_within_wider_bounds() {
    let none = Budget { faults: 0, deaths: 0, reloads: 0, successions: 0, spare: true, ..NARROW };
    explore(Budget { faults: 2, deaths: 1, reloads: 1, ..none }, 3_500_000);
    explore(Budget { faults: 1, reloads: 1, successions: 1, departures: 1, ..none }, 2_200_000);
    explore(Budget { faults: 1, reloads: 2, heartbeats: 1, ..none }, 900_000);
    explore(Budget { faults: 3, ..none }, 660_000);
}

/// Fails unless two writers are found without `fence`; prints a way there.
fn two_writers_without(fence: Fence) {
    for spare in [false, true] {
        find_two_writers(Budget { spare, ..NARROW }, fence);
    }
}

fn find_two_writers(budget: Budget, fence: Fence) {
    let checker = Bounds { budget, fence }
        .checker()
        .finish_when(HasDiscoveries::AnyOf([rules::ONE_WRITER].into()))
        .spawn_bfs()
        .join();
    let path = checker.discovery(rules::ONE_WRITER).expect("two writers are found");
    println!("{fence:?}, {}: two writers after", if budget.spare { "spare" } else { "no spare" });
    for (world, step) in path.into_vec() {
        if world.writers() > 1 {
            return;
        }
        println!("  {:?}", step.expect("the path leads to two writers"));
    }
}

#[test]
fn without_waiting_for_the_dead_there_are_two_writers() {
    two_writers_without(Fence::DeadOnceKilled);
}

#[test]
fn without_waiting_for_the_release_there_are_two_writers() {
    two_writers_without(Fence::ReleasedOnceAsked);
}

#[test]
fn without_waiting_for_the_orphans_there_are_two_writers() {
    two_writers_without(Fence::OrphansIgnored);
}

#[test]
fn without_waiting_for_a_quiet_moment_there_are_two_writers() {
    two_writers_without(Fence::UnquietSuccession);
}

#[test]
fn every_behaviour_ends() {
    walk(Budget { departures: 1, ..NARROW }, 50_000);
    walk(Budget { deaths: 0, spare: true, ..NARROW }, 120_000);
}

fn walk(budget: Budget, least: usize) {
    let mut walk = Walk::new(Bounds { budget, fence: Fence::Whole });
    let longest = walk.longest_from(&World::new(budget));
    println!("{budget:?}: {} states, at most {longest} steps to an end", walk.longest.len());
    assert!(walk.longest.len() >= least, "only {} states", walk.longest.len());
}

/// Walks all behaviours depth first.
struct Walk {
    bounds: Bounds,
    /// The most steps that can follow a state; `None` while its followers are being walked.
    longest: HashMap<u64, Option<usize>>,
}

impl Walk {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, longest: HashMap::new() }
    }

    fn longest_from(&mut self, world: &World) -> usize {
        let name = name(world);
        match self.longest.insert(name, None) {
            Some(Some(known)) => {
                self.longest.insert(name, Some(known));
                return known;
            }
            Some(None) => panic!("this state comes back: {world:?}"),
            None => {}
        }
        let mut steps = Vec::new();
        self.bounds.actions(world, &mut steps);
        let mut longest = 0;
        for step in steps {
            longest = longest.max(self.after(world, step));
        }
        self.longest.insert(name, Some(longest));
        longest
    }

    fn after(&mut self, world: &World, step: Step) -> usize {
        let next = self.bounds.next_state(world, step);
        next.map_or(0, |next| 1 + self.longest_from(&next))
    }
}

fn name(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}
