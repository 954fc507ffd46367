//! The kernel object that is built into this program: which maps and programs it has, and how they
//! get into the kernel.
//!
//! `aya-obj` parses the object file and relocates its programs. The larger `aya` is not used: its
//! `EbpfLoader` parses the type information of the whole kernel whether or not a program asks for
//! it (tens of megabytes of memory on every start), takes maps to reuse only by path, and verifies
//! nothing about them. Our programs carry no CO-RE relocation, which a test asserts, so what is left
//! are the few commands in [`create`].

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::btf::{BtfError, BtfFeatures};
use aya_obj::generated::{bpf_attach_type, bpf_map_type, bpf_prog_type};
use aya_obj::relocation::EbpfRelocationError;
use aya_obj::{Map, Object, ParseError, ProgramSection};
use holdfast_protocol::kernel::{self, limit, map};
use holdfast_protocol::manifest::MapShape;

use super::create::{self, CreateError, MapTypes, ProgramKind};

/// `aya-obj` reads headers in place, so the bytes have to be aligned as they are.
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../ebpf/holdfast.bpf.o"));

/// The types of our programs: `enum bpf_prog_type`.
pub const PROGRAM_TYPES: [u32; 4] = [
    bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32,
    bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK as u32,
    bpf_prog_type::BPF_PROG_TYPE_SOCK_OPS as u32,
    bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB as u32,
];

/// `BPF_MAP_TYPE_RINGBUF`.
const RING_BUFFER: u32 = bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;

/// What is wrong with the embedded object, or with this kernel.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A build that was put together wrongly.
    #[error("the kernel object in this build cannot be read: {0}")]
    Parse(#[from] ParseError),
    /// A build that was put together wrongly.
    #[error("the kernel object in this build has no usable type information: {0}")]
    Types(#[from] BtfError),
    /// A build that was put together wrongly.
    #[error("the kernel object in this build has no {0}")]
    Missing(String),
    /// A build that was put together wrongly.
    #[error("the kernel object in this build cannot be relocated: {0}")]
    Relocation(#[from] EbpfRelocationError),
    /// The kernel refused an object.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// How large the maps are to be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Service numbers.
    pub services: u32,
    /// Slots of `TABLES`.
    pub slots: u32,
    /// Flows: elements of `FLOWS` and of `REPLIES`.
    pub flows: u32,
}

impl Sizes {
    /// Entries of the map `name`, if its size is a matter of configuration.
    #[must_use]
    pub fn entries(self, name: &str) -> Option<u32> {
        match name {
            // Larger than any kernel accepts is refused by the kernel, by name.
            map::FRONTENDS => Some(self.services.saturating_mul(limit::FRONTENDS_PER_SERVICE)),
            map::HEADS
            | map::SERVICES
            | map::COUNTERS
            | map::CURSORS
            | map::TRAFFIC
            | map::RATES => Some(self.services),
            map::TABLES => Some(self.slots),
            map::ENDPOINTS => Some(limit::endpoints(self.slots)),
            map::FLOWS | map::REPLIES => Some(self.flows),
            _ => None,
        }
    }
}

/// The kernel object, parsed, with its type information in the kernel.
pub struct KernelObject {
    object: Object,
    maps: HashMap<String, Map>,
    types: OwnedFd,
}

/// What the kernel has to be told of a program beside its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hook {
    /// `enum bpf_prog_type`: one of [`PROGRAM_TYPES`].
    program_type: u32,
    /// `enum bpf_attach_type`: the only hook it may be attached to.
    attach_type: u32,
}

/// A program that is in the kernel and not attached anywhere.
#[derive(Debug)]
pub struct Fresh {
    /// Its name.
    pub name: &'static str,
    /// The only hook it may be attached to.
    pub attach_type: u32,
    /// Keeps it in the kernel.
    pub descriptor: OwnedFd,
}

impl KernelObject {
    /// Parses the embedded object for maps of these sizes, and loads its type information.
    ///
    /// # Errors
    ///
    /// Any [`ObjectError`].
    pub fn prepare(sizes: Sizes) -> Result<Self, ObjectError> {
        let mut object = Object::parse(&OBJECT.0)?;
        let types = load_types(&mut object)?;
        let mut maps = std::mem::take(&mut object.maps);
        for (name, map) in &mut maps {
            if let Some(entries) = sizes.entries(name) {
                map.set_max_entries(entries);
            }
        }
        Ok(Self { object, maps, types })
    }

    /// The shape the map `name` is to have.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Missing`].
    pub fn shape(&self, name: &str) -> Result<MapShape, ObjectError> {
        let map = self.map(name)?;
        Ok(MapShape {
            map_type: map.map_type(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
        })
    }

    /// The hook the program `name` is made for.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Missing`].
    pub fn attach_type(&self, name: &str) -> Result<u32, ObjectError> {
        Ok(self.hook(name)?.attach_type)
    }

    fn hook(&self, name: &str) -> Result<Hook, ObjectError> {
        let (program_type, attach_type) = match self.program(name)?.section {
            ProgramSection::CgroupSockAddr { attach_type } => {
                (bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, bpf_attach_type::from(attach_type))
            }
            ProgramSection::CgroupSock { attach_type } => {
                (bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK, bpf_attach_type::from(attach_type))
            }
            ProgramSection::SockOps => {
                (bpf_prog_type::BPF_PROG_TYPE_SOCK_OPS, bpf_attach_type::BPF_CGROUP_SOCK_OPS)
            }
            ProgramSection::CgroupSkb { attach_type: Some(attach_type) } => {
                (bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB, bpf_attach_type::from(attach_type))
            }
            _ => {
                return Err(ObjectError::Missing(format!("program {name} for a hook of a cgroup")));
            }
        };
        Ok(Hook { program_type: program_type as u32, attach_type: attach_type as u32 })
    }

    /// Creates the map `name`, empty.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn create_map(&self, name: &str) -> Result<OwnedFd, ObjectError> {
        // Socket storage cannot be created without types, and a ring buffer not with them; for the
        // others they are what `bpftool map dump` shows fields by.
        let types = match self.map(name)? {
            map if map.map_type() == RING_BUFFER => None,
            Map::Btf(map) => Some(MapTypes {
                btf: self.types.as_fd(),
                key: map.def.btf_key_type_id,
                value: map.def.btf_value_type_id,
            }),
            Map::Legacy(_) => None,
        };
        Ok(create::map(name, self.shape(name)?, types)?)
    }

    /// Loads every program on `maps`, and binds all of them to each, used or not: whoever finds one
    /// of our programs finds the whole estate from it, and a map only the worker uses is not lost
    /// with its pin.
    ///
    /// # Errors
    ///
    /// When a map is missing, or the kernel refuses a program; those loaded before are gone then.
    pub fn load_programs(
        mut self,
        maps: &[(&'static str, BorrowedFd<'_>)],
    ) -> Result<Vec<Fresh>, ObjectError> {
        let sections: HashSet<usize> =
            self.object.functions.keys().map(|(section, _)| *section).collect();
        let mut bound = Vec::with_capacity(maps.len());
        for (name, descriptor) in maps {
            bound.push((*name, descriptor.as_raw_fd(), self.map(name)?.clone()));
        }
        let bound = bound.iter().map(|(name, descriptor, map)| (*name, *descriptor, map));
        self.object.relocate_maps(bound, &sections)?;
        self.object.relocate_calls(&sections)?;
        let load = |name| {
            let fresh = self.load_program(name)?;
            for (_, map) in maps {
                create::bind(name, fresh.descriptor.as_fd(), *map)?;
            }
            Ok(fresh)
        };
        kernel::program::ALL.into_iter().map(load).collect()
    }

    fn load_program(&self, name: &'static str) -> Result<Fresh, ObjectError> {
        let program = self.program(name)?;
        let function = self
            .object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| ObjectError::Missing(format!("code of program {name}")))?;
        let Hook { program_type, attach_type } = self.hook(name)?;
        let license = &program.license;
        let kind = ProgramKind { name, program_type, attach_type, license };
        let descriptor = create::program(kind, function, self.types.as_fd())?;
        Ok(Fresh { name, attach_type, descriptor })
    }

    fn map(&self, name: &str) -> Result<&Map, ObjectError> {
        self.maps.get(name).ok_or_else(|| ObjectError::Missing(format!("map {name}")))
    }

    fn program(&self, name: &str) -> Result<&aya_obj::Program, ObjectError> {
        self.object
            .programs
            .get(name)
            .ok_or_else(|| ObjectError::Missing(format!("program {name}")))
    }
}

/// Loads the object's type information: as it is, or else without the kinds of type that came
/// after Linux 5.8, the first kernel that has all our hooks.
fn load_types(object: &mut Object) -> Result<OwnedFd, ObjectError> {
    // In order: func, global func, datasec, empty datasec, float, decl tag, type tag, 64-bit enum.
    let newest = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let oldest = BtfFeatures::new(true, true, true, false, false, false, false, false);
    let mut simpler = object.clone();
    let load = |object: &mut Object, features: &BtfFeatures| {
        let types = object.fixup_and_sanitize_btf(features)?;
        let types = types.ok_or_else(|| ObjectError::Missing("type information".to_owned()))?;
        Ok::<_, ObjectError>(create::btf(&types.to_bytes())?)
    };
    load(object, &newest).or_else(|first| {
        let types = load(&mut simpler, &oldest).map_err(|_| first)?;
        *object = simpler;
        Ok(types)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded() -> Object {
        Object::parse(&OBJECT.0).expect("the embedded object parses")
    }

    #[test]
    fn the_embedded_object_has_exactly_the_maps_and_programs_of_the_contract() {
        let object = embedded();
        let mut maps: Vec<&str> = object.maps.keys().map(String::as_str).collect();
        let mut wanted = map::ALL.to_vec();
        maps.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(maps, wanted);
        let mut programs: Vec<&str> = object.programs.keys().map(String::as_str).collect();
        let mut wanted = kernel::program::ALL.to_vec();
        programs.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(programs, wanted);
    }

    #[test]
    fn the_embedded_object_does_not_depend_on_the_kernel_it_was_built_beside() {
        assert!(!embedded().has_btf_relocations());
    }

    #[test]
    fn sizes_follow_the_configuration() {
        let sizes = Sizes { services: 10, slots: 70, flows: 30 };
        let entries: Vec<_> = map::ALL.iter().map(|name| sizes.entries(name)).collect();
        let frontends = 10 * limit::FRONTENDS_PER_SERVICE;
        let of_services = [Some(frontends), Some(10), Some(70), Some(10), Some(10)];
        assert_eq!(entries[..5], of_services);
        assert_eq!(entries[5..11], [None, None, Some(10), Some(30), Some(30), None]);
        assert_eq!(entries[11..18], [None, None, None, Some(70), Some(10), Some(10), None]);
        assert!(entries[18..].iter().all(Option::is_none), "{entries:?}");
        let sized = |slots| Sizes { services: 1, slots, flows: 1 }.entries(map::ENDPOINTS);
        assert_eq!([65_537, 1 << 20].map(sized), [Some(65_536), Some(1 << 18)]);
        let huge = Sizes { services: u32::MAX, slots: 1, flows: 1 };
        assert_eq!(huge.entries(map::FRONTENDS), Some(u32::MAX));
    }
}
