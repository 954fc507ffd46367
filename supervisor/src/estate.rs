//! The kernel objects this process holds, and what is said about them.
//!
//! **Architecture Invariant:** only maps are ever offered to a worker. With the descriptor of a
//! link, a process without any capability can detach it (`BPF_LINK_DETACH` asks for none), and
//! with that of a program it could attach it elsewhere if it ever gained one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_bpf::{BpfError, object, policies};
use holdfast_protocol::control::LinkStatus;
use holdfast_protocol::handover::Offer;
use holdfast_protocol::kernel::{map, program};
use holdfast_protocol::manifest::{Entry, Kind, Shape};
use holdfast_protocol::pin;
use holdfast_protocol::wire::MAX_DESCRIPTORS;

/// Most objects an estate may have: several times what it has, and few enough that a confused
/// loader cannot fill this process's descriptor table.
pub const MAX_OBJECTS: usize = 128;

/// The cgroup of a link that is attached nowhere.
const GONE: &str = "gone";

/// Why an object is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum EstateError {
    /// The kernel says nothing about it.
    #[error("{kind} {name}: {source}")]
    Unknown {
        /// What it should be.
        kind: Kind,
        /// What it should be called.
        name: String,
        /// The kernel's answer.
        source: BpfError,
    },
    /// The kernel says something else about it than the loader.
    #[error("{kind} {name} is not what the loader says: the kernel says {found}")]
    Different {
        /// What it should be.
        kind: Kind,
        /// What it should be called.
        name: String,
        /// What it is.
        found: String,
    },
    /// A packet lost descriptors.
    #[error(
        "{received} of {expected} descriptors arrived; raise this process's limit of open files \
         (ulimit -n, LimitNOFILE)"
    )]
    Short {
        /// How many arrived.
        received: usize,
        /// How many the message names.
        expected: usize,
    },
    /// A packet has descriptors it does not name.
    #[error("{received} descriptors arrived with a message that names {expected}")]
    Surplus {
        /// How many arrived.
        received: usize,
        /// How many the message names.
        expected: usize,
    },
    /// More objects than an estate may have.
    #[error("the loader offers more than {MAX_OBJECTS} objects")]
    TooMany,
    /// It has no maps, or no links.
    #[error("the loader's estate has {maps} maps and {links} links, which cannot govern anything")]
    Incomplete {
        /// Maps it has.
        maps: usize,
        /// Links it has.
        links: usize,
    },
}

/// What the kernel holds for one instance, through this process's descriptors.
#[derive(Debug, Default)]
pub struct Estate {
    objects: Vec<(Entry, OwnedFd)>,
}

impl Estate {
    /// Takes `descriptors` over as what `offer` says they are, after asking the kernel about each.
    ///
    /// # Errors
    ///
    /// When one of them is not what it should be; none is kept then.
    pub fn adopt(&mut self, offer: Offer, descriptors: Vec<OwnedFd>) -> Result<(), EstateError> {
        let (received, expected) = (descriptors.len(), offer.entries.len());
        if received < expected {
            return Err(EstateError::Short { received, expected });
        }
        if received > expected {
            return Err(EstateError::Surplus { received, expected });
        }
        if self.objects.len() + expected > MAX_OBJECTS {
            return Err(EstateError::TooMany);
        }
        for (entry, descriptor) in offer.entries.iter().zip(&descriptors) {
            verify(entry, descriptor.as_fd())?;
        }
        self.objects.extend(offer.entries.into_iter().zip(descriptors));
        Ok(())
    }

    /// The estate that a predecessor in this process held. What its objects are was asked already.
    ///
    /// # Errors
    ///
    /// When there is nothing to govern with, or too much.
    pub fn restore(objects: impl Iterator<Item = (Entry, OwnedFd)>) -> Result<Self, EstateError> {
        let estate = Self { objects: objects.collect() };
        if estate.objects.len() > MAX_OBJECTS {
            return Err(EstateError::TooMany);
        }
        estate.check_complete()?;
        Ok(estate)
    }

    /// Checks that there is something to govern with.
    ///
    /// # Errors
    ///
    /// [`EstateError::Incomplete`] otherwise.
    pub fn check_complete(&self) -> Result<(), EstateError> {
        let (maps, links) = (self.of(Kind::Map).count(), self.of(Kind::Link).count());
        if maps == 0 || links == 0 {
            return Err(EstateError::Incomplete { maps, links });
        }
        Ok(())
    }

    /// What a worker is offered, packet by packet: the maps.
    #[must_use]
    pub fn offers(&self) -> Vec<(Offer, Vec<BorrowedFd<'_>>)> {
        let maps: Vec<_> = self.of(Kind::Map).collect();
        let packets = maps.chunks(MAX_DESCRIPTORS);
        let of = u16::try_from(packets.len()).expect("MAX_OBJECTS fit a few packets");
        packets
            .zip(0..)
            .map(|(packet, index)| {
                let entries = packet.iter().map(|(entry, _)| (*entry).clone()).collect();
                let descriptors = packet.iter().map(|(_, descriptor)| *descriptor).collect();
                (Offer { index, of, entries }, descriptors)
            })
            .collect()
    }

    /// Those of the maps called `names` that there are, in that order, as one packet.
    #[must_use]
    pub fn offer_of(&self, names: &[&str]) -> (Offer, Vec<BorrowedFd<'_>>) {
        let maps = names.iter().filter_map(|name| self.find(Kind::Map, name));
        let (entries, descriptors) = maps.map(|(entry, map)| (entry.clone(), map)).unzip();
        (Offer { index: 0, of: 1, entries }, descriptors)
    }

    /// Every object: what it is, and its descriptor.
    pub fn objects(&self) -> impl Iterator<Item = (&Entry, BorrowedFd<'_>)> {
        self.objects.iter().map(|(entry, descriptor)| (entry, descriptor.as_fd()))
    }

    /// What every object has to be, in the order of [`objects`](Self::objects).
    #[must_use]
    pub fn manifest(&self) -> Vec<Entry> {
        self.objects.iter().map(|(entry, _)| entry.clone()).collect()
    }

    /// Becomes `fresh`, a later loader's estate of the same instance. Objects that are still the
    /// same keep their descriptors; whether all maps are among them.
    pub fn renew(&mut self, fresh: Self) -> bool {
        let mut former = std::mem::take(&mut self.objects);
        let mut maps_stay = true;
        for (entry, descriptor) in fresh.objects {
            let kind = entry.shape.kind();
            let is_same = |(known, _): &(Entry, OwnedFd)| {
                known.shape.kind() == kind && known.id == entry.id && known.name == entry.name
            };
            let kept = former.iter().position(is_same).map(|index| former.swap_remove(index).1);
            if kept.is_none() {
                tracing::info!(%kind, name = entry.name, id = entry.id, "holding another object");
                maps_stay &= kind != Kind::Map;
            }
            self.objects.push((entry, kept.unwrap_or(descriptor)));
        }
        maps_stay
    }

    /// Whether what judges arriving connections is attached, by the kernel's word; `None` without a link for it.
    #[must_use]
    pub fn arrivals_attached(&self) -> Option<bool> {
        let (_, link) = self.find(Kind::Link, program::INGRESS)?;
        let found = describe(Kind::Link, link);
        Some(found.is_ok_and(|(_, shape)| !shape.is_detached()))
    }

    /// Whether it was when the estate was handed over.
    #[must_use]
    pub fn arrivals_were_attached(&self) -> bool {
        let link = self.find(Kind::Link, program::INGRESS);
        link.is_some_and(|(entry, _)| !entry.shape.is_detached())
    }

    /// Whether the policies in force judge arriving connections. If the maps do not say, it is as if they did:
    /// what is attached needlessly does no harm.
    #[must_use]
    pub fn judges_arrivals(&self) -> bool {
        let [head, cells] =
            [map::POLICY_HEAD, map::POLICIES].map(|name| self.find(Kind::Map, name));
        head.zip(cells).is_some_and(|((_, head), (_, cells))| {
            policies::judge_arrivals(head, cells).unwrap_or(true)
        })
    }

    /// How many objects it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Every link as the kernel describes it at this moment. `cgroup` is the governed directory,
    /// `bpffs` and `instance` say where the pins should be.
    #[must_use]
    pub fn links(&self, cgroup: &Path, bpffs: &Path, instance: &str) -> Vec<LinkStatus> {
        let governed = std::fs::metadata(cgroup).map_or(0, |found| found.ino());
        let status = |(entry, descriptor): (&Entry, BorrowedFd<'_>)| {
            let pin = pin::path(bpffs, instance, Kind::Link, &entry.name);
            let mut status = link_status(entry, descriptor, &pin, (governed, cgroup));
            if entry.shape.is_detached() && status.cgroup == GONE && !self.judges_arrivals() {
                LinkStatus::NOT_NEEDED.clone_into(&mut status.cgroup);
                status.ok =
                    (status.link_id, status.prog_id) == (entry.id, program_id(&entry.shape));
            }
            status
        };
        self.of(Kind::Link).map(status).collect()
    }

    fn find(&self, kind: Kind, name: &str) -> Option<(&Entry, BorrowedFd<'_>)> {
        self.of(kind).find(|(entry, _)| entry.name == name)
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (&Entry, BorrowedFd<'_>)> {
        self.objects
            .iter()
            .filter(move |(entry, _)| entry.shape.kind() == kind)
            .map(|(entry, descriptor)| (entry, descriptor.as_fd()))
    }
}

/// The program of a link; 0 of anything else.
const fn program_id(shape: &Shape) -> u32 {
    match shape {
        Shape::Link { program_id, .. } => *program_id,
        Shape::Map(_) | Shape::Program { .. } => 0,
    }
}

/// Asks the kernel whether `descriptor` is what `entry` says.
fn verify(entry: &Entry, descriptor: BorrowedFd<'_>) -> Result<(), EstateError> {
    let kind = entry.shape.kind();
    let (id, shape) = describe(kind, descriptor).map_err(|source| EstateError::Unknown {
        kind,
        name: entry.name.clone(),
        source,
    })?;
    if (id, &shape) == (entry.id, &entry.shape) {
        return Ok(());
    }
    let found = format!("id {id}, {shape:?}");
    Err(EstateError::Different { kind, name: entry.name.clone(), found })
}

/// Id and shape of `descriptor`, from the kernel.
pub(crate) fn describe(kind: Kind, descriptor: BorrowedFd<'_>) -> Result<(u32, Shape), BpfError> {
    Ok(match kind {
        Kind::Map => {
            let info = object::map_info(descriptor)?;
            (info.id, Shape::Map(info.shape))
        }
        Kind::Program => {
            let info = object::program_info(descriptor)?;
            (info.id, Shape::Program { program_type: info.program_type, tag: info.tag })
        }
        Kind::Link => {
            let info = object::link_info(descriptor)?;
            let (cgroup_id, attach_type) =
                info.cgroup.map_or((0, u32::MAX), |found| (found.cgroup_id, found.attach_type));
            (info.id, Shape::Link { attach_type, program_id: info.program_id, cgroup_id })
        }
    })
}

fn link_status(
    entry: &Entry,
    descriptor: BorrowedFd<'_>,
    pin: &Path,
    (governed, directory): (u64, &Path),
) -> LinkStatus {
    let mut status =
        LinkStatus { name: entry.name.clone(), link_id: entry.id, ..LinkStatus::default() };
    let Ok((id, shape)) = describe(Kind::Link, descriptor) else { return status };
    let Shape::Link { attach_type, program_id, cgroup_id } = shape else { return status };
    status.link_id = id;
    status.attach_type = hook_name(attach_type);
    status.prog_id = program_id;
    status.cgroup = match cgroup_id {
        // The kernel detaches a link whose cgroup is removed, and forgets which it was.
        0 => GONE.to_owned(),
        found if found == governed => directory.display().to_string(),
        other => format!("cgroup id {other}"),
    };
    status.pinned = pinned_link(pin) == Some(id);
    // Attached to the cgroup the manifest names, and that is still the one at the directory:
    // one that was removed and made again has another id.
    status.ok = (id, &shape) == (entry.id, &entry.shape) && cgroup_id == governed;
    status
}

/// The id of the link pinned at `path`.
fn pinned_link(path: &Path) -> Option<u32> {
    let descriptor = object::get(path).ok()?;
    Some(object::link_info(descriptor.as_fd()).ok()?.id)
}

/// The kernel's name of an attach type (`enum bpf_attach_type`), in lower case and without `BPF_`.
pub(crate) fn hook_name(attach_type: u32) -> String {
    let name = match attach_type {
        0 => "cgroup_inet_ingress",
        1 => "cgroup_inet_egress",
        3 => "cgroup_sock_ops",
        10 => "cgroup_inet4_connect",
        11 => "cgroup_inet6_connect",
        14 => "cgroup_udp4_sendmsg",
        15 => "cgroup_udp6_sendmsg",
        19 => "cgroup_udp4_recvmsg",
        20 => "cgroup_udp6_recvmsg",
        29 => "cgroup_inet4_getpeername",
        30 => "cgroup_inet6_getpeername",
        34 => "cgroup_inet_sock_release",
        other => return format!("attach type {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use holdfast_protocol::manifest::MapShape;

    use super::*;

    fn entry() -> Entry {
        let shape =
            MapShape { map_type: 2, key_bytes: 4, value_bytes: 8, max_entries: 1, flags: 0 };
        Entry { name: "HEADS".to_owned(), id: 1, shape: Shape::Map(shape) }
    }

    fn offer(count: usize) -> Offer {
        Offer { index: 0, of: 1, entries: vec![entry(); count] }
    }

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| File::open("/dev/null").expect("opens").into()).collect()
    }

    #[test]
    fn a_delivery_of_another_length_is_refused() {
        let refused = Estate::default().adopt(offer(2), descriptors(1));
        assert!(matches!(refused, Err(EstateError::Short { received: 1, expected: 2 })));
        let refused = Estate::default().adopt(offer(1), descriptors(2));
        assert!(matches!(refused, Err(EstateError::Surplus { received: 2, expected: 1 })));
    }

    #[test]
    fn what_is_no_kernel_object_is_refused() {
        let mut estate = Estate::default();
        let refused = estate.adopt(offer(1), descriptors(1));
        assert!(matches!(refused, Err(EstateError::Unknown { .. })), "{refused:?}");
        assert!(estate.is_empty());
    }

    #[test]
    fn too_much_is_refused() {
        let count = MAX_OBJECTS + 1;
        let refused = Estate::default().adopt(offer(count), descriptors(count));
        assert!(matches!(refused, Err(EstateError::TooMany)));
    }

    fn held(id: u32, name: &str) -> (Entry, OwnedFd) {
        (Entry { id, name: name.to_owned(), ..entry() }, descriptors(1).remove(0))
    }

    #[test]
    fn a_renewed_estate_keeps_the_descriptors_of_what_is_still_the_same() {
        use std::os::fd::AsRawFd;
        let mut estate = Estate { objects: vec![held(1, "HEADS"), held(2, "TABLES")] };
        let numbers: Vec<_> = estate.objects().map(|(_, fd)| fd.as_raw_fd()).collect();
        assert!(estate.renew(Estate { objects: vec![held(1, "HEADS"), held(2, "TABLES")] }));
        let after: Vec<_> = estate.objects().map(|(_, fd)| fd.as_raw_fd()).collect();
        assert_eq!(after, numbers);
        assert!(!estate.renew(Estate { objects: vec![held(1, "HEADS"), held(3, "TABLES")] }));
        let ids: Vec<_> = estate.manifest().iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [1, 3]);
        assert_eq!(estate.objects().next().map(|(_, fd)| fd.as_raw_fd()), Some(numbers[0]));
    }

    #[test]
    fn nothing_is_not_an_estate() {
        assert!(matches!(
            Estate::default().check_complete(),
            Err(EstateError::Incomplete { maps: 0, links: 0 })
        ));
        assert_eq!(Estate::default().offers().len(), 0);
    }
}
