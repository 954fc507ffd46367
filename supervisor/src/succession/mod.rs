//! The supervisor replaces itself by the binary on disk, in the process it is (SIGUSR2).
//!
//! `execve(2)` keeps the process id, the children, the pending signals and every descriptor that is
//! not close-on-exec. So the new binary only has to be told which descriptor is what:
//!
//! 1. **Rehearsal.** The new binary is started as a child, with the same command line, the same
//!    state and copies of the same descriptors. It checks all of it, says so and ends. Whatever is
//!    wrong with it (missing, broken, of another version, refusing an option) shows here, and
//!    nothing has changed.
//! 2. **Silence.** Nothing is read any more from workers, signals and control sessions; what was
//!    read is dealt with. What arrives from here on waits in the kernel for the new binary.
//! 3. **Exec.** Exactly the descriptors that the state names lose their close-on-exec flag. If the
//!    kernel refuses, they get it back, and this binary goes on as if nothing had been.
//! 4. **Resumption.** The new binary takes the descriptors over, asks the kernel what each is, and
//!    goes on with the worker that is granted, which notices nothing.
//!
//! Only done between takeovers, with at most one worker, which is granted.
//!
//! - [`carried`]: the state, as bytes. Pure.
//! - [`inherit`]: taking the descriptors over, and checking without taking.
//! - [`image`]: the binary and its arguments; rehearsal and exec.
//!
//! A resumption that fails after a rehearsal that did not is a defect of the new binary. It then
//! ends with an error and takes the worker with it; governance stays, as after any death.

pub mod carried;
#[cfg(test)]
mod golden;
pub mod image;
pub mod inherit;

pub use carried::{Carried, CarriedWorker};
pub use image::{Image, Rehearsal};
pub use inherit::{Inheritance, LeftWorker, inherit, rehearse};
