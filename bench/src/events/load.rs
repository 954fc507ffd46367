//! Clients that open connections at a rate, and close each at once.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::connect::backend::Backends;
use crate::connect::case::{self, Case};

/// How long a client sleeps that has opened all that were due: below what a buffer of events notices.
const TICK: Duration = Duration::from_millis(1);

/// How often it is looked whether a load is over.
const LOOK: Duration = Duration::from_millis(5);

/// Connections of a client between two looks at the time.
const BURST: u64 = 16;

/// What a load came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opened {
    /// Connections of all clients.
    pub connections: u64,
    /// From the first one to the last.
    pub took: Duration,
}

impl Opened {
    /// Connections a second.
    pub fn rate(self) -> f64 {
        self.connections as f64 / self.took.as_secs_f64()
    }
}

/// Opens connections at `rate` a second, as far as the clients can, with one client for each processor,
/// for `time` or until `is_over`.
pub fn open(
    (backends, case): (&Backends, Case),
    rate: f64,
    time: Duration,
    mut is_over: impl FnMut() -> bool,
) -> anyhow::Result<Opened> {
    let clients = thread::available_parallelism().map_or(1, NonZero::get);
    let (stop, opened) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = Client {
        backends,
        case,
        to: case::frontend(case.family, 1, 0),
        rate: rate / clients as f64,
        stop: &stop,
        opened: &opened,
    };
    let begin = Instant::now();
    let took = thread::scope(|scope| {
        let running: Vec<_> = (0..clients).map(|_| scope.spawn(|| client.run(begin))).collect();
        let is_alive = || running.iter().all(|client| !client.is_finished());
        while begin.elapsed() < time && is_alive() && !is_over() {
            thread::sleep(LOOK.min(time.saturating_sub(begin.elapsed())));
        }
        stop.store(true, Ordering::Relaxed);
        for client in running {
            client.join().expect("a client does not panic")?;
        }
        anyhow::Ok(begin.elapsed())
    })?;
    Ok(Opened { connections: opened.into_inner(), took })
}

struct Client<'a> {
    backends: &'a Backends,
    case: Case,
    to: SocketAddr,
    /// Connections a second.
    rate: f64,
    stop: &'a AtomicBool,
    opened: &'a AtomicU64,
}

impl Client<'_> {
    fn run(&self, begin: Instant) -> anyhow::Result<()> {
        let mut own = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if own as f64 > begin.elapsed().as_secs_f64() * self.rate {
                thread::sleep(TICK);
                continue;
            }
            for _ in 0..BURST {
                self.backends.connect(self.case, self.to)?;
            }
            own += BURST;
            self.opened.fetch_add(BURST, Ordering::Relaxed);
        }
        Ok(())
    }
}
