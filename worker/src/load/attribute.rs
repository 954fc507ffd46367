//! The structs of the commands in [`create`](super::create): the beginnings of the members of the
//! kernel's `union bpf_attr` (`include/uapi/linux/bpf.h`). The kernel takes what is missing at their
//! end for zero.

/// Bytes of a name in the kernel, its final zero included (`BPF_OBJ_NAME_LEN`).
pub(super) const NAME_BYTES: usize = 16;

/// `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Default)]
pub(super) struct MapAttribute {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: u32,
    pub numa_node: u32,
    pub name: [u8; NAME_BYTES],
    pub ifindex: u32,
    pub btf_fd: u32,
    pub btf_key_type_id: u32,
    pub btf_value_type_id: u32,
    pub btf_vmlinux_value_type_id: u32,
}

/// `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Default)]
pub(super) struct BtfAttribute {
    pub btf: u64,
    pub log: u64,
    pub size: u32,
    pub log_size: u32,
    pub log_level: u32,
    pub padding: u32,
}

/// `BPF_PROG_BIND_MAP`.
#[repr(C)]
#[derive(Default)]
pub(super) struct BindAttribute {
    pub program_fd: u32,
    pub map_fd: u32,
    pub flags: u32,
}

/// `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
pub(super) struct ProgramAttribute {
    pub program_type: u32,
    pub instruction_count: u32,
    pub instructions: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_size: u32,
    pub log: u64,
    pub kernel_version: u32,
    pub flags: u32,
    pub name: [u8; NAME_BYTES],
    pub ifindex: u32,
    pub expected_attach_type: u32,
    pub btf_fd: u32,
    pub func_info_rec_size: u32,
    pub func_info: u64,
    pub func_info_count: u32,
    pub line_info_rec_size: u32,
    pub line_info: u64,
    pub line_info_count: u32,
    pub attach_btf_id: u32,
}

// Offsets of `include/uapi/linux/bpf.h`.
const _: () = {
    assert!(std::mem::offset_of!(MapAttribute, name) == 28);
    assert!(std::mem::offset_of!(MapAttribute, btf_fd) == 48);
    assert!(std::mem::offset_of!(ProgramAttribute, name) == 48);
    assert!(std::mem::offset_of!(ProgramAttribute, btf_fd) == 72);
    assert!(std::mem::offset_of!(ProgramAttribute, line_info) == 96);
    assert!(size_of::<ProgramAttribute>() == 112);
};
