//! A ring buffer of the kernel's, read by this process.
//!
//! Records wait in it until they are given up, whoever reads: how far that is stands in a page that the
//! kernel shares with every reader (`Documentation/bpf/ringbuf.rst`). So a process that takes over
//! goes on where the one before it stopped.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::command::BpfError;
use crate::object::map_info;

/// `BPF_MAP_TYPE_RINGBUF`.
const RING_BUFFER: u32 = 27;
/// `BPF_RINGBUF_BUSY_BIT`: a program is writing the record.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: it has thought better of it.
const DISCARDED: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`.
const HEADER_BYTES: usize = 8;

/// A ring buffer. Only one process may read it at a time.
#[derive(Debug)]
pub struct RingBuffer {
    file: OwnedFd,
    name: String,
    bytes: usize,
    /// Where it is mapped, once somebody has asked.
    mapped: Option<Mapped>,
}

#[derive(Debug)]
struct Mapped {
    page: usize,
    /// How far it has been read, in a page of its own that may be written.
    consumed: NonNull<AtomicU64>,
    /// How far it has been written; the records follow one page further on, twice in a row, so
    /// that none is ever in two pieces.
    produced: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the mappings belong to the process, not to a thread.
unsafe impl Send for RingBuffer {}

impl RingBuffer {
    /// The ring buffer `file`, of which nothing is mapped yet.
    ///
    /// # Errors
    ///
    /// When it is not one, or the kernel refuses.
    pub fn new(file: OwnedFd) -> Result<Self, BpfError> {
        let info = map_info(file.as_fd())?;
        if info.shape.map_type != RING_BUFFER {
            let why = format!("a map of type {}, expected a ring buffer", info.shape.map_type);
            return Err(BpfError::invalid("mmap", info.name, why));
        }
        let bytes = info.shape.max_entries as usize;
        Ok(Self { file, name: info.name, bytes, mapped: None })
    }

    /// Gives `each` up to `most` records that wait, oldest first, and leaves them there. Returns the
    /// position behind the last one, for [`give_up`](Self::give_up).
    ///
    /// # Errors
    ///
    /// When it cannot be mapped.
    pub fn peek(&mut self, most: usize, mut each: impl FnMut(u64, &[u8])) -> Result<u64, BpfError> {
        let mapped = self.mapped()?;
        let end = mapped.produced().load(Ordering::Acquire);
        let mut position = mapped.consumed().load(Ordering::Acquire);
        let mut seen = 0;
        while position < end && seen < most {
            let (length, record) = mapped.record(position);
            if length & BUSY != 0 {
                break;
            }
            let bytes = (length & !DISCARDED) as usize;
            position += (HEADER_BYTES + bytes.next_multiple_of(8)) as u64;
            if length & DISCARDED == 0 && bytes <= mapped.bytes {
                // SAFETY: the kernel has written a record of this length here, and leaves it alone
                // until it is given up; twice the whole buffer is mapped, so it lies within.
                each(position, unsafe { std::slice::from_raw_parts(record.as_ptr(), bytes) });
                seen += 1;
            }
        }
        Ok(position)
    }

    /// Gives up what is before `position`, which [`peek`](Self::peek) has returned: the kernel writes
    /// over it.
    ///
    /// # Errors
    ///
    /// When it cannot be mapped.
    pub fn give_up(&mut self, position: u64) -> Result<(), BpfError> {
        self.mapped()?.consumed().store(position, Ordering::Release);
        Ok(())
    }

    /// How many bytes of it wait to be given up.
    ///
    /// # Errors
    ///
    /// When it cannot be mapped.
    pub fn waiting(&mut self) -> Result<u64, BpfError> {
        let mapped = self.mapped()?;
        // What is given up was written before: in this order the second is not above the first.
        let consumed = mapped.consumed().load(Ordering::Acquire);
        Ok(mapped.produced().load(Ordering::Acquire) - consumed)
    }

    /// Takes it out of this process's memory: somebody else reads it from now on.
    pub fn unmap(&mut self) {
        self.mapped = None;
    }

    fn mapped(&mut self) -> Result<&Mapped, BpfError> {
        if self.mapped.is_none() {
            self.mapped = Some(self.map()?);
        }
        Ok(self.mapped.as_ref().expect("it has just been mapped"))
    }

    fn map(&self) -> Result<Mapped, BpfError> {
        // SAFETY: the call takes a number and answers with one.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
        let page = page.expect("there are pages");
        let consumed = self.map_at(0, page, libc::PROT_READ | libc::PROT_WRITE)?;
        let rest = self.map_at(page, page + 2 * self.bytes, libc::PROT_READ);
        let produced = rest.inspect_err(|_| {
            // SAFETY: it is the mapping made just above, which nobody else knows.
            unsafe { libc::munmap(consumed.as_ptr().cast(), page) };
        })?;
        Ok(Mapped { page, consumed, produced, bytes: self.bytes })
    }

    fn map_at(
        &self,
        offset: usize,
        bytes: usize,
        protection: libc::c_int,
    ) -> Result<NonNull<AtomicU64>, BpfError> {
        let offset = libc::off_t::try_from(offset).expect("an offset of one page");
        // SAFETY: a fresh shared mapping at an address the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            let (object, source) = (self.name.clone(), io::Error::last_os_error());
            return Err(BpfError { command: "mmap", object, source });
        }
        Ok(NonNull::new(base.cast()).expect("the kernel never maps at address 0 unasked"))
    }
}

impl Mapped {
    const fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of a page that is mapped as long as `self` lives.
        unsafe { self.consumed.as_ref() }
    }

    const fn produced(&self) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.produced.as_ref() }
    }

    /// The first word of the header of the record at `position`, and where the record lies.
    fn record(&self, position: u64) -> (u32, NonNull<u8>) {
        // The size of a ring buffer is a power of two.
        let offset = (position & (self.bytes as u64 - 1)) as usize;
        // SAFETY: one page behind the positions the records begin; `offset` is within the first of the
        // two copies of the buffer, and a multiple of 8 as every record's is.
        unsafe {
            let header = self.produced.cast::<u8>().add(self.page + offset);
            let length = header.cast::<AtomicU32>().as_ref().load(Ordering::Acquire);
            (length, header.add(HEADER_BYTES))
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: both ranges are exactly mappings this value owns; nothing borrows from them.
        unsafe {
            libc::munmap(self.consumed.as_ptr().cast(), self.page);
            libc::munmap(self.produced.as_ptr().cast(), self.page + 2 * self.bytes);
        }
    }
}
