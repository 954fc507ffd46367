//! Clients that open connections as fast as they can, and count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_lab::{Attempt, Target, attempt};

/// A client's rest after a connection: a machine of two processors has others to run too.
pub const REST: Duration = Duration::from_micros(200);

/// What became of all connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// All of them.
    pub connections: u64,
    /// Those that were not answered.
    pub failed: u64,
    /// How long the longest one took.
    pub longest: Duration,
}

/// Clients that run. Dropping them lets them go on; [`Clients::stop`] ends them.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Counted>>,
}

impl Clients {
    /// Starts `count` of them.
    pub fn start(target: &Target, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let (target, stop) = (target.clone(), Arc::clone(&stop));
            std::thread::spawn(move || connect(&target, &stop))
        };
        let threads = (0..count).map(|_| client()).collect();
        Self { stop, threads }
    }

    /// Ends them, and says what they counted.
    pub fn stop(self) -> Counted {
        self.stop.store(true, Ordering::Relaxed);
        let each = self.threads.into_iter().map(|it| it.join().expect("a client does not panic"));
        each.fold(Counted::default(), |all, one| Counted {
            connections: all.connections + one.connections,
            failed: all.failed + one.failed,
            longest: all.longest.max(one.longest),
        })
    }
}

fn connect(target: &Target, stop: &AtomicBool) -> Counted {
    let mut counted = Counted::default();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let attempt = attempt(target);
        counted.longest = counted.longest.max(begin.elapsed());
        counted.connections += 1;
        counted.failed += u64::from(!matches!(attempt, Attempt::Reached(_)));
        std::thread::sleep(REST);
    }
    counted
}
