//! Looking at something all the while, as often as the machine allows without being filled by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Rest between two looks: a takeover takes some ten milliseconds, and the processes under test need
/// the processors too.
const REST: Duration = Duration::from_micros(200);

/// A thread that looks at something until it is finished.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a watch has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often it has looked.
    pub looks: u64,
    /// The first thing that was wrong.
    pub trouble: Option<String>,
}

impl Watch {
    /// Looks with `look`, which says what is wrong, until it is finished or something is.
    #[must_use]
    pub fn start(mut look: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while seen.trouble.is_none() && !stopped.load(Ordering::Relaxed) {
                seen.trouble = look().err();
                seen.looks += 1;
                std::thread::sleep(REST);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Stops looking.
    ///
    /// # Panics
    ///
    /// When the look panicked.
    #[must_use]
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a look says what is wrong, and does not panic")
    }

    /// Stops looking; nothing was wrong, however often it looked.
    ///
    /// # Panics
    ///
    /// When something was wrong, or it looked less than `least` times.
    #[track_caller]
    pub fn assert_right(self, least: u64) {
        let seen = self.finish();
        assert_eq!(seen.trouble, None, "at look {}", seen.looks);
        assert!(seen.looks >= least, "only {} looks", seen.looks);
    }
}
