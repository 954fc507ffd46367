//! Array maps in this process's memory.
//!
//! The kernel shares the pages of a `BPF_F_MMAPABLE` array with whoever maps it, so an element is
//! read and written without a system call, and a program sees a store as soon as it is made.

use std::cell::OnceCell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_protocol::kernel::rules::{Cell, PolicyCounters};
use holdfast_protocol::kernel::{
    EndpointSlot, EnrolledKey, EnrolmentWord, Frontend, FrontendKey, HeadWord, ServiceCounters,
    ServiceRecord, SocketState, TableHeader,
    cache::CacheLine,
    endpoint::EndpointState,
    event::{Event, EventControl},
    traffic::Traffic,
};

use crate::command::BpfError;
use crate::object::map_info;

/// A struct that lives in a map: every bit pattern is a valid value, and it has no padding.
///
/// # Safety
///
/// Implement it only for `#[repr(C)]` structs of integers whose size is the sum of its fields'.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        // SAFETY: `#[repr(C)]` or a primitive, integers only, and without padding: the sizes are
        // asserted beside their definitions.
        unsafe impl Plain for $type {}
    )*};
}

plain!(u32, u64, HeadWord, TableHeader, EndpointSlot, ServiceRecord, ServiceCounters);
plain!(FrontendKey, Frontend, EnrolmentWord, EnrolledKey, EndpointState, Traffic);
plain!([u8; 32], Cell, PolicyCounters, EventControl, Event, SocketState, CacheLine);

/// The `T` that `bytes` begin with; `None` if there are too few.
#[must_use]
pub fn plain<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are as many bytes, and every bit pattern is a `T`.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// Least bytes that are mapped together. The kernel enters all of them at once, so that whoever looks at one
/// element pays for 16 pages of 4 KiB, and whoever looks at all of them asks the kernel once for as many.
const WINDOW_BYTES: usize = 64 * 1024;

/// How many elements of `size` bytes are mapped together: a power of two, and whole pages of `page` bytes.
fn window(size: usize, page: usize) -> u32 {
    // A page is a power of two, and an element an odd multiple of one.
    let whole = page >> size.trailing_zeros().min(page.trailing_zeros());
    let least = WINDOW_BYTES.div_ceil(size).next_power_of_two();
    u32::try_from(whole.max(least)).expect("a page is small")
}

/// A memory-mapped array map of `T`s.
///
/// It starts out read-only: a process that may not write yet faults instead of writing.
///
/// It is mapped in windows, each when an element in it is first asked for. The kernel enters every
/// page of a mapping into the page table at once, again when the protection changes, and takes each
/// out when the process ends: for arrays that are mostly unused, that is most of what a worker's
/// start and end would cost. For the same reason whoever has looked at much of it lets it go again.
#[derive(Debug)]
pub struct MappedArray<T: Plain> {
    file: OwnedFd,
    /// The map's name, for messages.
    name: String,
    /// How many elements there are.
    length: u32,
    /// How many elements are mapped together.
    window: u32,
    /// Where each window is mapped, for as long as this value lives.
    windows: Box<[OnceCell<NonNull<T>>]>,
    /// Whether the pages may be written.
    writable: bool,
    elements: PhantomData<T>,
}

// SAFETY: the mappings belong to the process, not to a thread, and every access is by value.
unsafe impl<T: Plain> Send for MappedArray<T> {}

impl<T: Plain> MappedArray<T> {
    /// The array map `file`, read-only for now. Nothing of it is mapped before it is asked for.
    ///
    /// # Errors
    ///
    /// When it is not an array of `T`s, or was not made to be mapped.
    pub fn map(file: OwnedFd) -> Result<Self, BpfError> {
        let info = map_info(file.as_fd())?;
        let element = u32::try_from(size_of::<T>()).expect("elements are small");
        // The kernel rounds elements up to 8 bytes; ours are multiples of 8, so they lie densely.
        if info.shape.value_bytes != element || element % 8 != 0 {
            let why = format!("elements of {} bytes, expected {element}", info.shape.value_bytes);
            return Err(BpfError::invalid("mmap", info.name, why));
        }
        if info.shape.flags & MMAPABLE == 0 {
            let why = "it was not made to be mapped".to_owned();
            return Err(BpfError::invalid("mmap", info.name, why));
        }
        let length = info.shape.max_entries;
        let window = window(size_of::<T>(), page_bytes());
        let windows = (0..length.div_ceil(window)).map(|_| OnceCell::new()).collect();
        let (name, writable, elements) = (info.name, false, PhantomData);
        Ok(Self { file, name, length, window, windows, writable, elements })
    }

    /// Lets this process write the array, or stops it from doing so.
    ///
    /// # Errors
    ///
    /// When the kernel refuses (`mprotect(2)`).
    pub fn protect(&mut self, writable: bool) -> Result<(), BpfError> {
        for (window, base) in self.mapped() {
            self.protect_window(window, base, writable)?;
        }
        self.writable = writable;
        Ok(())
    }

    /// Takes every window out of this process's memory; each is mapped again when it is asked for.
    pub fn let_go(&mut self) {
        for window in 0..self.windows.len() {
            if let Some(base) = self.windows[window].take() {
                self.unmap_window(u32::try_from(window).expect("few windows"), base);
            }
        }
    }

    /// How many elements there are.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.length
    }

    /// The element at `index`, as it is at this moment.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`length`](Self::length), or the kernel has no memory to map it.
    #[must_use]
    pub fn read(&self, index: u32) -> T {
        // SAFETY: `element` checks the bounds; any bit pattern is a `T`.
        unsafe { self.element(index).as_ptr().read_volatile() }
    }

    /// Writes the element at `index`. Not one step for a reader unless `T` is a single word: use it
    /// for what nothing reads yet.
    ///
    /// # Panics
    ///
    /// As [`read`](Self::read), or when the array is read-only.
    pub fn write(&mut self, index: u32, value: T) {
        assert!(self.writable, "a worker that has not been granted wrote to a mapped array");
        // SAFETY: `element` checks the bounds, and the pages are writable.
        unsafe { self.element(index).as_ptr().write_volatile(value) }
    }

    /// Writes one word of the element at `index`, and leaves the others to those who write them.
    ///
    /// # Panics
    ///
    /// As [`write`](Self::write), or when an element has no such word.
    pub fn write_word(&mut self, index: u32, word: usize, value: u64) {
        assert!(self.writable, "a worker that has not been granted wrote to a mapped array");
        assert!(word < size_of::<T>() / size_of::<u64>(), "word {word} of {}", self.name);
        // SAFETY: `element` checks the bounds of the array and the line above those of the element,
        // which is aligned to 8 bytes as every element of an array map is; the pages are writable.
        unsafe { self.element(index).cast::<u64>().add(word).as_ptr().write_volatile(value) }
    }

    fn element(&self, index: u32) -> NonNull<T> {
        assert!(index < self.length, "element {index} of an array of {}", self.length);
        // A power of two: a shift, whatever the processor's division takes.
        let window = index >> self.window.trailing_zeros();
        let base = *self.windows[window as usize]
            .get_or_init(|| self.map_window(window).unwrap_or_else(|error| panic!("{error}")));
        // SAFETY: within the window, which has this many elements or ends with the array.
        unsafe { base.add((index & (self.window - 1)) as usize) }
    }

    fn map_window(&self, window: u32) -> Result<NonNull<T>, BpfError> {
        let offset = size_of::<T>() * self.window as usize * window as usize;
        let offset = libc::off_t::try_from(offset).expect("a map is smaller than an address space");
        // Mapped writable first, because the kernel never lets a mapping that was made read-only
        // become writable (`bpf_map_mmap` drops `VM_MAYWRITE`).
        // SAFETY: a fresh shared mapping at an address the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                self.window_bytes(window),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(self.refused("mmap"));
        }
        let base = NonNull::new(base.cast()).expect("the kernel never maps at address 0 unasked");
        if !self.writable {
            self.protect_window(window, base, false)?;
        }
        Ok(base)
    }

    fn unmap_window(&self, window: u32, base: NonNull<T>) {
        // SAFETY: the range is exactly a mapping this value owned and forgets; nothing borrows from it.
        unsafe { libc::munmap(base.as_ptr().cast(), self.window_bytes(window)) };
    }

    fn protect_window(
        &self,
        window: u32,
        base: NonNull<T>,
        writable: bool,
    ) -> Result<(), BpfError> {
        let protection =
            if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let bytes = self.window_bytes(window);
        // SAFETY: the range is exactly a mapping this value owns.
        match unsafe { libc::mprotect(base.as_ptr().cast(), bytes, protection) } {
            0 => Ok(()),
            _ => Err(self.refused("mprotect")),
        }
    }

    fn refused(&self, command: &'static str) -> BpfError {
        BpfError { command, object: self.name.clone(), source: io::Error::last_os_error() }
    }

    fn window_bytes(&self, window: u32) -> usize {
        size_of::<T>() * (self.length - window * self.window).min(self.window) as usize
    }

    /// The windows that are mapped, and where.
    fn mapped(&self) -> impl Iterator<Item = (u32, NonNull<T>)> {
        (0..).zip(&self.windows).filter_map(|(window, base)| Some((window, *base.get()?)))
    }
}

impl MappedArray<HeadWord> {
    /// Publishes `word` at `index`: one aligned 8-byte store, after everything written before it.
    ///
    /// # Panics
    ///
    /// As [`write`](Self::write).
    pub fn publish(&mut self, index: u32, word: HeadWord) {
        assert!(self.writable, "a worker that has not been granted published a service");
        // SAFETY: within the mapping and aligned to 8 bytes; programs and this process access it
        // only as whole words.
        let cell = unsafe { AtomicU64::from_ptr(self.element(index).as_ptr().cast()) };
        cell.store(word.0, Ordering::Release);
    }
}

impl MappedArray<EnrolmentWord> {
    /// Publishes `word`: one aligned 8-byte store, after everything written before it.
    ///
    /// # Panics
    ///
    /// As [`write`](Self::write).
    pub fn publish(&mut self, word: EnrolmentWord) {
        assert!(self.writable, "a worker that has not been granted published an enrolment");
        // SAFETY: as above.
        let cell = unsafe { AtomicU64::from_ptr(self.element(0).as_ptr().cast()) };
        cell.store(word.0, Ordering::Release);
    }
}

impl<T: Plain> Drop for MappedArray<T> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Bytes of a page of memory.
fn page_bytes() -> usize {
    // SAFETY: takes a number and touches no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("the C library knows the size of a page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_pages_and_not_many() {
        for page in [4096, 16 * 1024, 64 * 1024] {
            for size in (8..=512).step_by(8) {
                let window = window(size, page);
                assert!(window.is_power_of_two(), "{size}");
                let bytes = size * window as usize;
                assert!(bytes.is_multiple_of(page) && bytes >= WINDOW_BYTES, "{size}: {bytes}");
            }
        }
        assert_eq!(
            [8, 32, 88, 96, 384].map(|size| window(size, 4096)),
            [8192, 2048, 1024, 1024, 256]
        );
    }
}
