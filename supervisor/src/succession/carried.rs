//! The state that goes from one binary to the next, and its bytes:
//!
//! ```text
//! byte 0..8    magic "HOLDFAST"
//! byte 8..10   version of the state, little endian
//! byte 10..18  checksum (FNV-1a, 64 bits) of what follows
//! byte 18..    the state, in postcard's encoding
//! ```
//!
//! A binary takes exactly its own version over: a supervisor that guesses what its predecessor
//! meant is worse than one that stays.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

use holdfast_protocol::control::{DriftStatus, Replacements, Takeovers};
use holdfast_protocol::handover::{CHILD_DESCRIPTOR, ConfigReport, SetAside};
use holdfast_protocol::manifest::Entry;
use serde::{Deserialize, Serialize};

/// The version of [`Carried`]. It grows with every change of that or of anything in it.
pub const VERSION: u16 = 3;

/// Largest state in bytes: an estate's manifest, a few texts of 4 KiB, and room.
pub const MAX_BYTES: usize = 256 * 1024;

const MAGIC: [u8; 8] = *b"HOLDFAST";

/// Magic, version and checksum.
const HEADER_BYTES: usize = 18;

/// Everything a supervisor knows that its successor cannot find out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// The version of the binary that wrote it, for people.
    pub build: String,
    /// The process it is for.
    pub pid: u32,
    /// The governed cgroup's path.
    pub cgroup: Vec<u8>,
    /// Age of the process as a supervisor, in microseconds.
    pub age_us: u64,
    /// The newest epoch that was granted.
    pub epoch: u64,
    /// The worker that writes, if there is one.
    pub worker: Option<CarriedWorker>,
    /// The configuration in force.
    pub config: ConfigReport,
    /// Digest of the newest configuration that has proved itself.
    pub proved: String,
    /// Configurations that are not to be tried again.
    pub set_aside: Vec<SetAside>,
    /// Why the worker before this one is gone.
    pub trouble: String,
    /// Statistics.
    pub takeovers: Takeovers,
    /// Statistics.
    pub drift: DriftStatus,
    /// Statistics; this replacement included.
    pub replacements: Replacements,
    /// The manifest.
    pub entries: Vec<Entry>,
    /// The objects' descriptors, in the order of `entries`.
    pub objects: Vec<RawFd>,
    /// The instance's lock.
    pub lock: RawFd,
    /// The estate's lock.
    pub pins_lock: Option<RawFd>,
    /// The worker's binary that has proved itself.
    pub binary: Option<RawFd>,
    /// The control socket.
    pub listener: RawFd,
    /// Connections to it, at most a few.
    pub sessions: Vec<RawFd>,
    /// Where scrapes arrive, if metrics are served.
    pub scrapes: Option<RawFd>,
    /// When the process started as a supervisor, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Since when the configuration in force is, in milliseconds since the Unix epoch.
    pub config_since_ms: u64,
}

/// A worker that goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CarriedWorker {
    /// Its process.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: RawFd,
    /// This process's end of its socket.
    pub socket: RawFd,
    /// What it watches its configuration with.
    pub watch: Option<RawFd>,
    /// Its age in microseconds.
    pub age_us: u64,
    /// Its build.
    pub version: String,
    /// What it last said about its configuration.
    pub report: ConfigReport,
}

/// Why bytes are not a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarriedError {
    /// Not written by a supervisor.
    #[error("it is not the state of a supervisor")]
    Foreign,
    /// By another version.
    #[error(
        "it is a state of version {0}, and this binary takes version {VERSION} over; stop the \
         supervisor and start the new one instead: governance stays meanwhile"
    )]
    Version(u16),
    /// Not what was written.
    #[error("it is damaged: its checksum does not fit")]
    Damaged,
    /// The encoding.
    #[error("it cannot be decoded: {0}")]
    Malformed(postcard::Error),
    /// Too much.
    #[error("it has {0} bytes, and may have {MAX_BYTES}")]
    TooLong(usize),
    /// It contradicts itself.
    #[error("it is inconsistent: {0}")]
    Inconsistent(&'static str),
}

impl Carried {
    /// As bytes.
    ///
    /// # Errors
    ///
    /// When it is too long.
    pub fn encode(&self) -> Result<Vec<u8>, CarriedError> {
        let body = postcard::to_allocvec(self).map_err(CarriedError::Malformed)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&checksum(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        if bytes.len() > MAX_BYTES { Err(CarriedError::TooLong(bytes.len())) } else { Ok(bytes) }
    }

    /// From bytes.
    ///
    /// # Errors
    ///
    /// Any [`CarriedError`]; nothing may be taken over then.
    pub fn decode(bytes: &[u8]) -> Result<Self, CarriedError> {
        if bytes.len() > MAX_BYTES {
            return Err(CarriedError::TooLong(bytes.len()));
        }
        let (magic, rest) = bytes.split_first_chunk().ok_or(CarriedError::Foreign)?;
        let (version, rest) = rest.split_first_chunk().ok_or(CarriedError::Foreign)?;
        let (sum, body) = rest.split_first_chunk().ok_or(CarriedError::Foreign)?;
        if *magic != MAGIC {
            return Err(CarriedError::Foreign);
        }
        match u16::from_le_bytes(*version) {
            VERSION => {}
            other => return Err(CarriedError::Version(other)),
        }
        if u64::from_le_bytes(*sum) != checksum(body) {
            return Err(CarriedError::Damaged);
        }
        let (carried, rest): (Self, _) =
            postcard::take_from_bytes(body).map_err(CarriedError::Malformed)?;
        if !rest.is_empty() {
            return Err(CarriedError::Inconsistent("bytes follow it"));
        }
        carried.check()?;
        Ok(carried)
    }

    /// Every descriptor it names: those that have to survive.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        let worker = self.worker.iter().flat_map(|worker| {
            [Some(worker.pidfd), Some(worker.socket), worker.watch].into_iter().flatten()
        });
        let mut all: Vec<RawFd> = self.objects.iter().copied().chain(worker).collect();
        all.extend([self.lock, self.listener]);
        all.extend(self.pins_lock);
        all.extend(self.binary);
        all.extend(self.scrapes);
        all.extend(&self.sessions);
        all
    }

    fn check(&self) -> Result<(), CarriedError> {
        if self.entries.len() != self.objects.len() {
            return Err(CarriedError::Inconsistent("a manifest of another length"));
        }
        let all = self.descriptors();
        if all.iter().any(|fd| *fd <= CHILD_DESCRIPTOR) {
            return Err(CarriedError::Inconsistent("a descriptor that is reserved"));
        }
        // Two owners of one descriptor would close it under each other.
        if all.iter().collect::<BTreeSet<_>>().len() != all.len() {
            return Err(CarriedError::Inconsistent("a descriptor that is named twice"));
        }
        Ok(())
    }
}

/// What a rehearsal says when all is well: it proves that this very state was read.
#[must_use]
pub fn acknowledgement(bytes: &[u8]) -> String {
    format!("holdfast takes over {:016x}", checksum(bytes))
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): against accidents, not malice;
/// nobody but this process can write the sealed file.
fn checksum(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(BASIS, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::golden::carried;
    use super::*;

    #[test]
    fn a_state_is_read_back_whole() {
        let bytes = carried().encode().expect("small");
        assert_eq!(Carried::decode(&bytes), Ok(carried()));
        let mut all = carried().descriptors();
        all.sort_unstable();
        assert_eq!(all, (8..=18).collect::<Vec<_>>(), "each descriptor that is carried is kept");
    }

    #[test]
    fn another_version_is_refused_before_anything_else_is_looked_at() {
        let mut bytes = carried().encode().expect("small");
        bytes[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        bytes.truncate(40);
        assert_eq!(Carried::decode(&bytes), Err(CarriedError::Version(VERSION + 1)));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let broken: [fn(&mut Carried); 5] = [
            |carried| carried.objects.push(20),
            |carried| carried.lock = 10,
            |carried| carried.sessions = vec![14, 14],
            |carried| carried.listener = -1,
            |carried| carried.listener = CHILD_DESCRIPTOR,
        ];
        for change in broken {
            let mut carried = carried();
            change(&mut carried);
            let bytes = carried.encode().expect("small");
            let refused = Carried::decode(&bytes);
            assert!(matches!(refused, Err(CarriedError::Inconsistent(_))), "{refused:?}");
        }
    }

    #[test]
    fn an_acknowledgement_is_for_one_state() {
        let one = carried().encode().expect("small");
        let other = Carried { epoch: 301, ..carried() }.encode().expect("small");
        assert_ne!(acknowledgement(&one), acknowledgement(&other));
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_state(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(Carried::decode(&bytes).is_err());
        }

        /// Also when the checksum fits, which damage can only do by intent.
        #[test]
        fn random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(VERSION.to_le_bytes());
            bytes.extend(checksum(&body).to_le_bytes());
            bytes.extend(body);
            let _ = Carried::decode(&bytes);
        }

        #[test]
        fn one_changed_byte_is_noticed(at in any::<prop::sample::Index>(), by in 1_u8..) {
            let mut bytes = carried().encode().expect("small");
            let at = at.index(bytes.len());
            bytes[at] = bytes[at].wrapping_add(by);
            prop_assert!(Carried::decode(&bytes).is_err());
        }
    }
}
