//! Several containers at one instance.

use holdfast_lab::supervisor::GRANTED;
use holdfast_lab::{Backend, Lab, Target, TestResult, eventually, isolated};
use holdfast_tests::scene::{WEB, assert_reached};
use nix::sys::signal::Signal;

use crate::bundle::Bundle;
use crate::container::Container;
use crate::lives::configure;

/// `EX_TEMPFAIL`: somebody else holds it.
const HELD: i32 = 75;

/// A container beside one that serves is refused, and that one does not notice.
fn second_is_refused(lab: &Lab, run: &str, words: &[&str]) -> TestResult {
    let red = Backend::tcp("red")?;
    configure(lab, &[&red])?;
    let first = Container::start(lab, &Bundle::new(lab, "run")?)?;
    let before = first.status()?;
    let mut second = Container::spawn(lab, &Bundle::new(lab, run)?)?;
    let (code, said) = (second.ended_beside_another()?, second.log());
    assert_eq!(code, HELD, "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    let after = first.status()?;
    assert_eq!((after.worker.pid, after.epoch), (before.worker.pid, before.epoch));
    assert_eq!(after.drift.repairs, 0, "nothing of it was touched");
    assert_reached(&Target::tcp(WEB, &["red"]));
    Ok(())
}

#[test]
fn a_second_container_with_the_same_run_directory_is_refused() {
    isolated(|lab| second_is_refused(lab, "run", &["lock is held by"]));
}

#[test]
fn a_second_container_with_a_run_directory_of_its_own_is_refused() {
    isolated(|lab| second_is_refused(lab, "other", &["links", "another container"]));
}

#[test]
fn a_container_that_is_started_again_until_the_former_one_is_dead_takes_over() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        let mut former = Container::start(lab, &Bundle::new(lab, "run")?)?;
        let (links, epoch) = (former.status()?.links, former.status()?.epoch);
        let mut next = Container::spawn(lab, &Bundle::new(lab, "other")?)?;
        // It is waiting for the lock, or has been refused, when the former one dies.
        former.init()?.signal(Signal::SIGKILL)?;
        let status = eventually("the next container to serve", || {
            if next.has_ended() {
                let bundle = Bundle::new(lab, "other").map_err(|error| error.to_string())?;
                next = Container::spawn(lab, &bundle).map_err(|error| error.to_string())?;
            }
            let status = next.status().map_err(|error| error.to_string())?;
            if status.worker.state == GRANTED { Ok(status) } else { Err(format!("{status:?}")) }
        })?;
        assert_eq!(status.links, links, "adopted");
        assert!(status.epoch > epoch);
        former.ended()?;
        assert_reached(&Target::tcp(WEB, &["red"]));
        Ok(())
    });
}

#[test]
fn of_two_containers_that_start_at_once_one_serves() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        let mut rivals = Vec::new();
        for run in ["left", "right"] {
            rivals.push(Container::spawn(lab, &Bundle::new(lab, run)?)?);
        }
        eventually("one of them to have given up", || {
            let given_up = rivals.iter_mut().filter_map(|rival| rival.has_ended().then_some(()));
            if given_up.count() == 1 { Ok(()) } else { Err("not yet") }
        })?;
        let place = rivals.iter_mut().position(|rival| !rival.has_ended());
        let mut winner = rivals.swap_remove(place.ok_or("both have given up")?);
        let status = winner.wait_until("a worker", |status| status.worker.state == GRANTED)?;
        assert!(status.links.iter().all(|link| link.ok && link.pinned), "{status:?}");
        assert_ne!(rivals[0].ended_beside_another()?, 0, "{}", rivals[0].log());
        assert_reached(&Target::tcp(WEB, &["red"]));
        Ok(())
    });
}
