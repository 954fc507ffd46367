//! A spare is granted long after it was ready.

use holdfast_protocol::handover::{ConfigReport, FromChild, Occasion, ToChild};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::configuration::{file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::{Worker, eventually};

fn estate() -> Estate {
    Estate::new(16, 64)
}

fn signal(worker: &Worker, signal: Signal) {
    let pid = i32::try_from(worker.child.id()).expect("process ids are small");
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

/// Says what is in force, and grants.
fn promote(spare: &Worker, in_force: ConfigReport, epoch: u64) {
    spare.tell(&ToChild::InForce(in_force), &[]);
    spare.tell(&ToChild::Grant { epoch }, &[]);
}

fn await_granted(spare: &Worker, epoch: u64) {
    spare.hear_until(|message| *message == FromChild::Granted { epoch });
}

#[test]
fn a_spare_makes_sure_of_what_it_took_for_granted() {
    let (_directory, path) = file(&services(2, &[1001]));
    let estate = estate();
    let mut writer = Worker::granted(&path, &estate, 1);
    let (spare, report) = Worker::ready(&path, &estate, Occasion::Standby);
    writer.kill();
    estate.frontends.delete(&key(1)).unwrap();
    promote(&spare, report, 2);
    await_granted(&spare, 2);
    eventually(|| estate.connect(&key(1)) == Some(vec![1001]));
}

#[test]
fn a_spare_puts_in_force_what_the_former_worker_had_not() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let mut writer = Worker::granted(&path, &estate, 1);
    let (spare, report) = Worker::ready(&path, &estate, Occasion::Standby);
    signal(&writer, Signal::SIGSTOP);
    write(&path, &services(1, &[1002]));
    writer.kill();
    promote(&spare, report, 2);
    await_granted(&spare, 2);
    eventually(|| estate.connect(&key(0)) == Some(vec![1002]));
}

/// It slept through a save that the former worker had put in force.
#[test]
fn a_spare_that_lags_behind_never_puts_back_what_was_before() {
    for round in 0..5_u16 {
        let (former, newer) = (1001 + round, 2001 + round);
        let (_directory, path) = file(&services(1, &[former]));
        let estate = estate();
        let mut writer = Worker::granted(&path, &estate, 1);
        let (spare, _) = Worker::ready(&path, &estate, Occasion::Standby);
        signal(&spare, Signal::SIGSTOP);
        write(&path, &services(1, &[newer]));
        let report = writer.await_config(|_| true);
        assert_eq!(estate.connect(&key(0)), Some(vec![newer]));
        writer.kill();
        promote(&spare, report, 2);
        signal(&spare, Signal::SIGCONT);
        await_granted(&spare, 2);
        assert_eq!(estate.connect(&key(0)), Some(vec![newer]));
        // By the time that another save is in force, it has dealt with everything before.
        let newest = 3001 + round;
        write(&path, &services(1, &[newest]));
        let mut seen = vec![newer];
        eventually(|| {
            seen.extend(estate.connect(&key(0)).expect("governed all the while"));
            seen.last() == Some(&newest)
        });
        assert!(!seen.contains(&former), "{seen:?}");
    }
}
