//! The worker's actors, all on one thread. Each is a thin shell: a message comes in, something pure
//! decides, the shell acts.
//!
//! ```text
//!   inotify ──► Source ──text──► Compiler ──configuration──► Tables ◄──────► the maps
//!                                                               ▲
//!   supervisor ◄───────────────── Lifeline ◄────────────────────┤
//!   whoever scrapes ◄──────────────────────────── Scrapes ◄─────┤
//!   endpoints ◄────────────────────────────────── Checks ◄──────┘
//! ```
//!
//! Reading, parsing and grace periods, which take milliseconds or wait, happen on helper threads;
//! the actors' thread itself never waits for anything but its messages.

mod checks;
mod compiler;
mod lifeline;
mod scrapes;
mod source;
mod tables;

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use actix::{Actor, AsyncContext, System};
use nix::sys::inotify::Inotify;
use tokio::runtime::Runtime;

use self::checks::Checks;
use self::compiler::Compiler;
use self::lifeline::Link;
use self::scrapes::Scrapes;
use self::source::Source;
use self::tables::{Checking, Fallback, Tables};
use super::Configuration;
use crate::lifeline::Lifeline;

/// Helper threads: one for the configuration, one for a grace period.
const HELPERS: usize = 2;

/// How long a helper thread may take to start: microseconds, unless the machine hardly moves. It is
/// below what the supervisor allows a worker, so that the reason is heard.
const STARTING: Duration = Duration::from_secs(2);

/// What runs the actors, with every thread that there will be.
pub struct Reactor(Runtime);

/// A [`Reactor`] whose helper threads are starting. The filter of system calls, which is installed
/// next, lets none be started later: one that is only just starting would need calls it denies.
pub struct Starting {
    /// Each thread waits until its one is dropped: before the runtime, which waits for the threads.
    held: Vec<mpsc::Sender<()>>,
    /// Hears of each that runs.
    started: mpsc::Receiver<()>,
    runtime: Runtime,
}

impl Starting {
    /// Returns when every helper thread runs.
    ///
    /// # Errors
    ///
    /// When one does not.
    pub fn finish(self) -> io::Result<Reactor> {
        for _ in &self.held {
            self.started.recv_timeout(STARTING).map_err(|_| {
                let why = "a helper thread does not start; is there a limit on the threads of the \
                           worker's user (RLIMIT_NPROC) or of its cgroup (pids.max)?";
                io::Error::new(io::ErrorKind::TimedOut, why)
            })?;
        }
        Ok(Reactor(self.runtime))
    }
}

impl Reactor {
    /// Makes it, and starts the helper threads.
    ///
    /// # Errors
    ///
    /// When the kernel has no more descriptors or threads to give.
    pub fn start() -> io::Result<Starting> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(HELPERS)
            .thread_keep_alive(Duration::MAX)
            .build()?;
        let (starting, started) = mpsc::channel();
        let start = |_| {
            let (starting, (hold, held)) = (starting.clone(), mpsc::channel::<()>());
            // While one waits, it takes another one to run the next.
            drop(runtime.spawn_blocking(move || {
                // Without a receiver nobody waits any more.
                let _unheard = starting.send(());
                let _let_go = held.recv();
            }));
            hold
        };
        let held = (0..HELPERS).map(start).collect();
        Ok(Starting { held, started, runtime })
    }

    /// Serves `configuration`, with `watch` to notice changes of it, until the supervisor says to leave, or is gone.
    ///
    /// # Errors
    ///
    /// When the socket cannot be watched.
    pub fn run(
        self,
        lifeline: Lifeline,
        configuration: Configuration,
        watch: Option<Inotify>,
    ) -> io::Result<()> {
        // The system asks for a runtime by a closure that could be called more than once.
        let mut runtime = Some(self.0);
        let system =
            System::with_tokio_rt(move || runtime.take().expect("one system asks for it once"));
        system.block_on(async { start(lifeline, configuration, watch) })?;
        system.run()
    }
}

fn start(
    lifeline: Lifeline,
    configuration: Configuration,
    watch: Option<Inotify>,
) -> io::Result<()> {
    let socket = lifeline::register(lifeline)?;
    Link::create(|link| {
        let tables = Tables::new(link.address()).start();
        let compiler = Compiler::new(tables.clone(), link.address()).start();
        tables.do_send(Fallback(compiler.clone()));
        tables.do_send(Checking(Checks::new(tables.clone()).start()));
        let source =
            Source::new(configuration, watch, compiler.clone(), tables.clone(), link.address())
                .start();
        let scrapes = Scrapes::new(tables.clone()).start();
        Link::new(socket, tables, source, compiler, scrapes)
    });
    Ok(())
}
