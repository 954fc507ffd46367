//! Who answers scrapes, and how long that takes with many services.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use holdfast_protocol::handover::{FromChild, Occasion, ToChild, Vitals};

use crate::configuration::{file, services};
use crate::estate::Estate;
use crate::supervisor::Worker;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn hand(worker: &Worker, listener: &TcpListener) {
    let vitals = Vitals { listens: true, version: "test".to_owned(), ..Vitals::default() };
    worker.tell(&ToChild::Vitals(vitals), &[listener.as_raw_fd()]);
}

/// A connection on which the metrics have been asked for.
fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn only_the_worker_that_writes_answers() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let (listener, address) = listener();
    let (former, _) = Worker::ready(&path, &estate, Occasion::Start);
    hand(&former, &listener);
    // In shadow it has the listener, and leaves it alone.
    let waiting = ask(address);
    let (next, _) = Worker::ready(&path, &estate, Occasion::Start);
    hand(&next, &listener);
    next.grant(1);
    assert!(answer(waiting).contains("\nholdfast_epoch 1\n"));
    assert!(answer(ask(address)).contains("supervisor_version=\"test\""));
    // Released, it does not accept any more; the other one, now granted, does.
    next.tell(&ToChild::Release, &[]);
    next.hear_until(|said| *said == FromChild::Released);
    let waiting = ask(address);
    former.grant(2);
    assert!(answer(waiting).contains("\nholdfast_epoch 2\n"));
}

#[test]
fn a_worker_that_leaves_finishes_what_it_answers() {
    let (_directory, path) = file(&services(4000, &[1001]));
    let estate = Estate::new(16_384, 65_536);
    let (listener, address) = listener();
    let (mut worker, _) = Worker::ready(&path, &estate, Occasion::Start);
    hand(&worker, &listener);
    worker.grant(1);
    let mut stream = ask(address);
    // More than the socket holds: it is being answered from here on.
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    worker.tell(&ToChild::Leave, &[]);
    let rest = answer(stream);
    let last = "holdfast_service_endpoints{";
    assert_eq!(rest.lines().filter(|line| line.starts_with(last)).count(), 4000);
    assert!(worker.await_end().0.success());
}

#[test]
#[ignore = "a measurement: it asserts nothing"]
fn how_long_a_scrape_takes() {
    for count in [100, 1000, 10_000, 65_536] {
        let (_directory, path) = file(&services(count, &[1001]));
        let estate = Estate::new(65_536, 1_048_576);
        let (listener, address) = listener();
        let (worker, _) = Worker::ready(&path, &estate, Occasion::Start);
        hand(&worker, &listener);
        worker.grant(1);
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..11 {
            let start = Instant::now();
            bytes = answer(ask(address)).len();
            times.push(start.elapsed());
        }
        times.sort_unstable();
        // A question asked while a scrape is answered waits for a turn.
        let mut waits = Vec::new();
        for _ in 0..5 {
            let scraping = std::thread::spawn(move || answer(ask(address)).len());
            while !scraping.is_finished() {
                let start = Instant::now();
                worker.tell(&ToChild::Query { id: 7, body: vec![1] }, &[]);
                worker.hear_until(|said| matches!(said, FromChild::Answer { .. }));
                waits.push(start.elapsed());
            }
            scraping.join().unwrap();
        }
        waits.sort_unstable();
        let at = |times: &[Duration], part: usize| times[(times.len() - 1) * part / 100];
        println!(
            "{count:>6} services: {bytes} bytes; scrape p50 {:?}, most {:?}; a question meanwhile \
             p50 {:?}, p99 {:?}, most {:?} of {}",
            at(&times, 50),
            at(&times, 100),
            at(&waits, 50),
            at(&waits, 99),
            at(&waits, 100),
            waits.len()
        );
    }
}
