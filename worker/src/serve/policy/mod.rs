//! Access policies: from a configuration to what the kernel programs judge connections by.
//!
//! In reading order:
//!
//! - [`resolve`]: the ids of cgroups, asked of the file system.
//! - [`terms`]: policies as terms, one for each rule or more. Pure, as is all that follows.
//! - [`vectors`]: which terms an address, a port, a cgroup satisfies.
//! - [`image`]: all of it as the cells that the programs read, and back.
//! - [`plan`]: from the image in force to the wanted one.
//! - [`estate`]: the narrow interface to the maps.
//!
//! An image names no place and no generation, so that two are equal if they mean the same. That is
//! how a worker that takes over knows that nothing is to be done, and there is nothing to repair: what a
//! dead writer has left half-written is in nobody's way and is written over.

pub mod estate;
pub mod image;
pub mod plan;
pub mod resolve;
pub mod terms;
pub mod vectors;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
