//! Holdfast's kernel programs: `connect(2)` to a service address becomes `connect(2)` to one of its
//! endpoints, and `getpeername(2)` tells the client the address it asked for; `sendto(2)` and
//! `recvfrom(2)` of sockets that are not connected likewise.
//!
//! - [`programs`], [`datagrams`]: the programs, of connections and of datagrams.
//! - [`arrivals`]: the program for packets that arrive, which only access policies are about.
//! - [`steps`]: what they do one after the other, each a function of its own to the verifier.
//! - [`straight`]: the way of a connection of which nothing has to be asked.
//! - [`caller`], [`sock_addr`]: the socket and the address of the system call.
//! - [`maps`], [`address_cache`], [`enrolled`], [`flows`], [`recents`], [`seats`], [`search`]: the maps, and the only code that reads and
//!   writes them; [`elements`]: elements of several words that programs write.
//! - [`counting`]: what is counted of a connection after the system call.
//! - [`telling`]: where what becomes of a connection is told to whoever asks.
//! - [`finish`]: those steps at once, when nothing more has to be asked.
//! - [`court`], [`precedents`]: where access policies are judged, and what they have said before.
//! - [`places`], [`rates`]: places under a bound, taken and given back, and connections a second.
//! - The decisions are in the library of this package, which is tested on the host.
//!
//! They run once for each system call and each change of a connection's state. For packets there is
//! nothing to do, as long as no policy is about what arrives.
//!
//! **Architecture Invariant:** a connection that cannot be decided is refused with an errno, never
//! let through; and nothing here knows how large a map is.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod address_cache;
#[cfg(target_arch = "bpf")]
mod arrivals;
#[cfg(target_arch = "bpf")]
mod caller;
#[cfg(target_arch = "bpf")]
mod counting;
#[cfg(target_arch = "bpf")]
mod court;
#[cfg(target_arch = "bpf")]
mod datagrams;
#[cfg(target_arch = "bpf")]
mod elements;
#[cfg(target_arch = "bpf")]
mod enrolled;
#[cfg(target_arch = "bpf")]
mod finish;
#[cfg(target_arch = "bpf")]
mod flows;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod places;
#[cfg(target_arch = "bpf")]
mod precedents;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod rates;
#[cfg(target_arch = "bpf")]
mod recents;
#[cfg(target_arch = "bpf")]
mod search;
#[cfg(target_arch = "bpf")]
mod seats;
#[cfg(target_arch = "bpf")]
mod sock_addr;
#[cfg(target_arch = "bpf")]
mod steps;
#[cfg(target_arch = "bpf")]
mod straight;
#[cfg(target_arch = "bpf")]
mod telling;

/// On any other target there is nothing to run: `build.sh` compiles this for the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
