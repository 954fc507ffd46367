//! The memory this process keeps between takeovers, of which the next may be months away.
//!
//! The allocator (`main.rs`) keeps little of what a takeover frees. The kernel, though, keeps the pages
//! of every function that ever ran in this process's page table, sixteen at a time.
#![expect(unsafe_code, reason = "the C library and the kernel are told through calls")]

/// A page is at least this large; on a machine with larger ones the kernel refuses the advice, and
/// nothing is given back.
const PAGE_BYTES: usize = 4096;

/// Gives back the pages of code and constants. Those that are used again come back from the page cache,
/// at a microsecond or so each; the others no longer count as this process's. Breakpoints that a
/// debugger has written into them are lost.
pub fn give_back() {
    // SAFETY: the callback has the signature that is asked for and keeps none of its arguments.
    unsafe { libc::dl_iterate_phdr(Some(give_back_object), std::ptr::null_mut()) };
}

/// Called for each loaded object. Answers 0: the next one, please.
unsafe extern "C" fn give_back_object(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library passes a description that is valid during the call.
    let object = unsafe { &*object };
    // SAFETY: `dlpi_phnum` headers stand at `dlpi_phdr`, in memory that stays as long as the object.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    let is_constant = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
    };
    for header in headers.iter().filter(is_constant) {
        let start = (object.dlpi_addr + header.p_vaddr) as usize & !(PAGE_BYTES - 1);
        let end = (object.dlpi_addr + header.p_vaddr + header.p_memsz) as usize;
        let address = start as *mut libc::c_void;
        // SAFETY: the range is a segment that is mapped from a file and that nothing ever writes, not
        // even the dynamic linker (what it relocates is in a writable segment), so every page that is
        // dropped is read back as it was.
        unsafe { libc::madvise(address, end - start, libc::MADV_DONTNEED) };
    }
    0
}
