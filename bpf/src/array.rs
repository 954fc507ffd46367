//! Elements of array maps, many at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::command::{BpfError, Command, attr, bpf};
use crate::map::checked_info;
use crate::mapped::Plain;
use crate::object::{MapInfo, raw};

/// An array of `V`s that is read through system calls: by whoever looks at all of it once.
#[derive(Debug)]
pub struct Array<V: Plain> {
    fd: OwnedFd,
    info: MapInfo,
    values: std::marker::PhantomData<V>,
}

impl<V: Plain> Array<V> {
    /// Takes over the map `fd`.
    ///
    /// # Errors
    ///
    /// When its values have another size.
    pub fn new(fd: OwnedFd) -> Result<Self, BpfError> {
        let info = checked_info::<u32, V>(fd.as_fd())?;
        assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds values up to 8 bytes");
        Ok(Self { fd, info, values: std::marker::PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.info.shape.max_entries
    }

    /// `count` elements from `first` on, in order. All of them have to be within the array.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn lookup_from(&self, first: u32, count: u32) -> Result<Vec<V>, BpfError> {
        lookup_from(self.fd.as_fd(), &self.info.name, first, count, 1)
    }
}

/// `count` elements of the array `map`, called `name`, from `first` on: `each` values a piece, of the size
/// that was checked.
pub(crate) fn lookup_from<V: Plain>(
    map: BorrowedFd<'_>,
    name: &str,
    first: u32,
    count: u32,
    each: usize,
) -> Result<Vec<V>, BpfError> {
    let mut keys = Vec::<u32>::with_capacity(count as usize);
    let mut values = Vec::<V>::with_capacity(count as usize * each);
    // The kernel goes on behind the element it is told (`generic_map_lookup_batch`).
    let before = first.checked_sub(1);
    let mut next = 0_u32;
    let mut attribute = attr::Batch {
        in_batch: before.as_ref().map_or(0, |before| std::ptr::from_ref(before) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: raw(map),
        ..attr::Batch::default()
    };
    // SAFETY: both vectors have room for `count` elements, of which one is `each` values of the size
    // that the caller has checked, and the two positions are live words.
    let answer = unsafe { bpf(Command::MapLookupBatch, &mut attribute) };
    if answer < 0 {
        let error = BpfError::last(Command::MapLookupBatch, name);
        // The end of the array was reached, which is no error when everything is there.
        if !error.is_not_found() {
            return Err(error);
        }
    }
    if attribute.count != count {
        let why = format!("{} of {count} elements from {first} on", attribute.count);
        return Err(BpfError::invalid("read", name, why));
    }
    // SAFETY: the kernel wrote this many values.
    unsafe { values.set_len(count as usize * each) };
    Ok(values)
}
