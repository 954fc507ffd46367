//! What the estate consists of: a name, the kernel's own id and the shape of every object, so that
//! whoever receives its descriptors can check each against what the kernel says about it.

use serde::{Deserialize, Serialize};

/// Longest name of an estate object, in bytes. The kernel keeps 15 (`BPF_OBJ_NAME_LEN`); our own
/// names are longer only for programs and links.
pub const MAX_NAME_BYTES: usize = 32;

/// One object of the estate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// One of [`kernel::map::ALL`](crate::kernel::map::ALL) or
    /// [`kernel::program::ALL`](crate::kernel::program::ALL); a link is named after its program.
    pub name: String,
    /// The kernel's id of the object; unique per kind until the next boot.
    pub id: u32,
    /// What the object has to look like.
    pub shape: Shape,
}

/// What an object of the estate looks like to the kernel (`BPF_OBJ_GET_INFO_BY_FD`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A map, as in the kernel's `struct bpf_map_info`.
    Map(MapShape),
    /// A program, as in the kernel's `struct bpf_prog_info`.
    Program {
        /// `enum bpf_prog_type`.
        program_type: u32,
        /// The kernel's digest of the program's instructions.
        tag: [u8; 8],
    },
    /// A link to a cgroup, as in the kernel's `struct bpf_link_info`.
    Link {
        /// `enum bpf_attach_type`.
        attach_type: u32,
        /// Id of the attached program.
        program_id: u32,
        /// Id of the cgroup it is attached to.
        cgroup_id: u64,
    },
}

/// The shape of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapShape {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// How many elements it can hold.
    pub max_entries: u32,
    /// `BPF_F_*` flags it was created with.
    pub flags: u32,
}

/// The kinds of estate object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A map.
    Map,
    /// A program.
    Program,
    /// A link.
    Link,
}

impl Shape {
    /// Which kind of object this is the shape of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Map(_) => Kind::Map,
            Self::Program { .. } => Kind::Program,
            Self::Link { .. } => Kind::Link,
        }
    }

    /// Whether it is that of a link which is attached nowhere.
    #[must_use]
    pub const fn is_detached(&self) -> bool {
        matches!(self, Self::Link { cgroup_id: 0, .. })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::Program => "program",
            Self::Link => "link",
        })
    }
}
