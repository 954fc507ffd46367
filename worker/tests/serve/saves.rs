//! Every way in which a configuration is saved, and what becomes of a bad one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use holdfast_protocol::handover::{ConfigState, FromChild, Occasion};

use crate::configuration::{directory, file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::Worker;

fn estate() -> Estate {
    Estate::new(16, 64)
}

fn await_in_force(worker: &Worker) {
    worker.await_config(|report| report.state == ConfigState::InForce);
}

#[test]
fn every_way_to_save_is_noticed() {
    let (directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let worker = Worker::granted(&path, &estate, 1);
    write(&path, &services(1, &[1002]));
    await_in_force(&worker);
    assert_eq!(estate.connect(&key(0)), Some(vec![1002]), "written in place");

    let other = directory.path().join("holdfast.yaml.new");
    write(&other, &services(1, &[1003]));
    fs::rename(&other, &path).unwrap();
    await_in_force(&worker);
    assert_eq!(estate.connect(&key(0)), Some(vec![1003]), "renamed over");

    fs::remove_file(&path).unwrap();
    let report = worker.await_config(|report| report.state == ConfigState::Rejected);
    assert!(report.error.contains("cannot find the configuration"), "{}", report.error);
    assert_eq!(estate.connect(&key(0)), Some(vec![1003]), "a missing file removes nothing");
    write(&path, &services(1, &[1004]));
    await_in_force(&worker);
    assert_eq!(estate.connect(&key(0)), Some(vec![1004]), "made again");
}

#[test]
fn a_replaced_link_is_a_save() {
    let directory = directory();
    let generation = |name: &str, port| {
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        write(&path.join("app.yaml"), &services(1, &[port]));
    };
    generation("..1", 1001);
    generation("..2", 1002);
    let data = directory.path().join("..data");
    symlink("..1", &data).unwrap();
    symlink("..data/app.yaml", directory.path().join("app.yaml")).unwrap();
    for path in [directory.path().join("app.yaml"), directory.path().to_owned()] {
        let estate = estate();
        let worker = Worker::granted(&path, &estate, 1);
        assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
        let next = directory.path().join("..data_tmp");
        symlink("..2", &next).unwrap();
        fs::rename(&next, &data).unwrap();
        await_in_force(&worker);
        assert_eq!(estate.connect(&key(0)), Some(vec![1002]));
        symlink("..1", &next).unwrap();
        fs::rename(&next, &data).unwrap();
        await_in_force(&worker);
        assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
    }
}

#[test]
fn an_invalid_save_changes_nothing_and_says_where() {
    let (_directory, path) = file(&services(2, &[1001]));
    let estate = estate();
    let worker = Worker::granted(&path, &estate, 1);
    let before = estate.published();
    write(
        &path,
        "services:\n  - name: s0\n    addresses: [127.64.0.0]\n    ports: [{ name: http, port: 0 }]\n",
    );
    let report = worker.await_config(|_| true);
    assert_eq!(report.state, ConfigState::Rejected);
    assert!(report.error.contains("holdfast.yaml:4:33"), "{}", report.error);
    assert_eq!((report.digest.len(), report.services), (64, 2), "what is in force");
    assert_eq!(estate.published(), before);
    write(&path, &services(2, &[1001]));
    await_in_force(&worker);
    assert_eq!(estate.published(), before, "what is in force already is no change");
}

#[test]
fn what_does_not_fit_changes_nothing_and_is_named() {
    let (_directory, path) = file(&services(2, &[1001]));
    let estate = estate();
    let worker = Worker::granted(&path, &estate, 1);
    let before = estate.published();
    write(&path, &services(20, &[1001]));
    let report = worker.await_config(|_| true);
    assert_eq!(report.state, ConfigState::DoesNotFit);
    assert!(report.error.contains("s16, port http"), "{}", report.error);
    assert_eq!(estate.published(), before);
}

#[test]
fn a_configuration_that_may_not_be_read_says_who_may_not() {
    let (_directory, path) = file(&services(1, &[1001]));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let estate = estate();
    let (worker, report) = Worker::ready(&path, &estate, Occasion::Start);
    assert_eq!(report.state, ConfigState::Rejected);
    assert!(
        report.error.contains("user nobody (uid") && report.error.contains("chmod"),
        "{}",
        report.error
    );
    worker.grant(1);
    assert_eq!(estate.published(), []);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    await_in_force(&worker);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn an_invalid_configuration_at_a_start_keeps_what_is_programmed() {
    let (_directory, path) = file(&services(2, &[1001]));
    let estate = estate();
    Worker::granted(&path, &estate, 1).kill();
    write(&path, "services: 7\n");
    let before = estate.published();
    for occasion in [Occasion::Start, Occasion::Recovery] {
        let (mut worker, report) = Worker::ready(&path, &estate, occasion);
        assert_eq!((report.state, report.services), (ConfigState::Rejected, 2));
        worker.grant(2);
        assert_eq!(estate.published(), before);
        worker.kill();
    }
    let mut reload = Worker::spawn(&path);
    reload.hand_over(&estate, Occasion::Reload);
    let refused = reload.hear();
    assert!(
        matches!(&refused, FromChild::Refused { reason } if reason.contains("holdfast.yaml:1:11")),
        "{refused:?}"
    );
    assert!(!reload.await_end().0.success());
}

/// Saves until every slot has been used several times over: room is used again after a grace period.
#[test]
fn room_is_used_again() {
    let (_directory, path) = file(&services(5, &[1001, 1002]));
    let estate = Estate::new(16, 40);
    let worker = Worker::granted(&path, &estate, 1);
    for port in 2001..2020_u16 {
        write(&path, &services(5, &[port, port + 1]));
        await_in_force(&worker);
        for number in 0..5 {
            assert_eq!(estate.connect(&key(number)), Some(vec![port, port + 1]));
        }
    }
}

/// A writer is killed at random moments while it applies saves. Whenever somebody looks, every
/// service is one of the two configurations.
#[test]
fn a_service_is_whole_whenever_its_writer_dies() {
    let texts = [services(12, &[1001, 1002]), services(12, &[2001, 2002, 2003])];
    let whole = [Some(vec![1001, 1002]), Some(vec![2001, 2002, 2003])];
    let (_directory, path) = file(&texts[0]);
    let estate = Estate::new(16, 200);
    Worker::granted(&path, &estate, 1).kill();
    for round in 0..40_usize {
        write(&path, &texts[round % 2]);
        let (mut worker, _) = Worker::ready(&path, &estate, Occasion::Recovery);
        let epoch = 2 + round as u64;
        worker.tell(&holdfast_protocol::handover::ToChild::Grant { epoch }, &[]);
        // Some tens of microseconds, a little later each time: somewhere in the plan.
        (0..round * 200).for_each(|_| std::hint::spin_loop());
        worker.kill();
        for number in 0..12 {
            let seen = estate.connect(&key(number));
            assert!(whole.contains(&seen), "round {round}: service {number} is {seen:?}");
        }
    }
    write(&path, &texts[1]);
    let _last = Worker::granted(&path, &estate, 100);
    assert!((0..12).all(|number| estate.connect(&key(number)) == whole[1]));
    assert_eq!((estate.published().len(), estate.frontends.entries().unwrap().len()), (12, 12));
}
