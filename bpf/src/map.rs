//! Elements of hash and per-CPU maps, one by one and in batches.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::array::lookup_from;
use crate::command::{BpfError, Command, attr, bpf};
use crate::mapped::Plain;
use crate::object::{MapInfo, map_info, raw};

/// Elements moved by one batch command: a few pages, so that a batch never holds the kernel long.
const BATCH: u32 = 4096;

/// The CPUs that could ever be there, as a list of ranges.
const CPU_RANGES: &str = "/sys/devices/system/cpu/possible";

/// A hash map from `K` to `V`.
#[derive(Debug)]
pub struct HashMap<K: Plain, V: Plain> {
    fd: OwnedFd,
    info: MapInfo,
    types: std::marker::PhantomData<(K, V)>,
}

impl<K: Plain, V: Plain> HashMap<K, V> {
    /// Takes over the map `fd`.
    ///
    /// # Errors
    ///
    /// When its keys or values have other sizes.
    pub fn new(fd: OwnedFd) -> Result<Self, BpfError> {
        let info = checked_info::<K, V>(fd.as_fd())?;
        Ok(Self { fd, info, types: std::marker::PhantomData })
    }

    /// How many elements fit.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.info.shape.max_entries
    }

    /// The value of `key`, if there is one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn lookup(&self, key: &K) -> Result<Option<V>, BpfError> {
        let mut value = MaybeUninit::<V>::uninit();
        match self.element(Command::MapLookup, key, value.as_mut_ptr() as u64) {
            // SAFETY: the kernel wrote the whole value, whose size was checked in `new`.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets `key` to `value`: a reader sees the old value or the new one, whole.
    ///
    /// # Errors
    ///
    /// `E2BIG` when the map is full.
    pub fn update(&self, key: &K, value: &V) -> Result<(), BpfError> {
        self.element(Command::MapUpdate, key, std::ptr::from_ref(value) as u64)
    }

    /// Removes `key`; it is no error when it is not there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn delete(&self, key: &K) -> Result<(), BpfError> {
        match self.element(Command::MapDelete, key, 0) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// All elements. What is changed by others meanwhile may be seen or not.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn entries(&self) -> Result<Vec<(K, V)>, BpfError> {
        let mut found = Vec::new();
        let mut step = BATCH;
        // The kernel's position between two batches: the number of a bucket.
        let mut position: Option<u32> = None;
        loop {
            let mut keys = Vec::<K>::with_capacity(step as usize);
            let mut values = Vec::<V>::with_capacity(step as usize);
            let mut next = 0_u32;
            let mut attribute = attr::Batch {
                in_batch: position.as_ref().map_or(0, |p| std::ptr::from_ref(p) as u64),
                out_batch: std::ptr::from_mut(&mut next) as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: step,
                map_fd: raw(self.fd.as_fd()),
                ..attr::Batch::default()
            };
            // SAFETY: both vectors have room for `step` elements of the sizes checked in `new`, and
            // the two positions are live words.
            let done = match unsafe { bpf(Command::MapLookupBatch, &mut attribute) } {
                0 => false,
                _ => match BpfError::last(Command::MapLookupBatch, &self.info.name) {
                    error if error.is_not_found() => true,
                    // One bucket holds more than the batch: ask again with more room.
                    error if error.errno() == libc::ENOSPC && step < self.capacity() => {
                        step = step.saturating_mul(2);
                        continue;
                    }
                    error => return Err(error),
                },
            };
            // SAFETY: the kernel wrote `count` elements to each vector, at most `step`.
            unsafe {
                keys.set_len(attribute.count as usize);
                values.set_len(attribute.count as usize);
            }
            found.extend(keys.into_iter().zip(values));
            if done {
                return Ok(found);
            }
            position = Some(next);
        }
    }

    fn element(&self, command: Command, key: &K, value: u64) -> Result<(), BpfError> {
        let mut attribute = attr::Element {
            map_fd: raw(self.fd.as_fd()),
            key: std::ptr::from_ref(key) as u64,
            value,
            ..attr::Element::default()
        };
        // SAFETY: `key` is a live reference and `value` the address of a value or 0 for a command
        // that has none; their sizes were checked in `new`.
        if unsafe { bpf(command, &mut attribute) } < 0 {
            return Err(BpfError::last(command, &self.info.name));
        }
        Ok(())
    }
}

/// A per-CPU array of `V`s.
#[derive(Debug)]
pub struct PerCpuArray<V: Plain> {
    fd: OwnedFd,
    info: MapInfo,
    /// CPUs that could ever be there: the kernel keeps a value for each.
    cpus: usize,
    types: std::marker::PhantomData<V>,
}

impl<V: Plain> PerCpuArray<V> {
    /// Takes over the map `fd`.
    ///
    /// # Errors
    ///
    /// When its values have another size, or the machine's CPUs cannot be counted.
    pub fn new(fd: OwnedFd) -> Result<Self, BpfError> {
        let info = checked_info::<u32, V>(fd.as_fd())?;
        assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds per-CPU values up to 8 bytes");
        Ok(Self { fd, info, cpus: possible_cpus()?, types: std::marker::PhantomData })
    }

    /// The values of element `index`, one per CPU.
    ///
    /// # Errors
    ///
    /// `ENOENT` past the end.
    pub fn lookup(&self, index: u32) -> Result<Vec<V>, BpfError> {
        let mut values = Vec::<V>::with_capacity(self.cpus);
        self.element(Command::MapLookup, index, values.as_mut_ptr() as u64)?;
        // SAFETY: the kernel wrote one value per possible CPU.
        unsafe { values.set_len(self.cpus) };
        Ok(values)
    }

    /// CPUs that could ever be there.
    #[must_use]
    pub const fn cpus(&self) -> usize {
        self.cpus
    }

    /// The values of `count` elements from `first` on, one per CPU each, in order. All of them have to
    /// be within the array.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn lookup_from(&self, first: u32, count: u32) -> Result<Vec<V>, BpfError> {
        lookup_from(self.fd.as_fd(), &self.info.name, first, count, self.cpus)
    }

    /// Sets element `index` to `value` on every CPU.
    ///
    /// # Errors
    ///
    /// `E2BIG` past the end.
    pub fn fill(&self, index: u32, value: V) -> Result<(), BpfError> {
        let values = vec![value; self.cpus];
        self.element(Command::MapUpdate, index, values.as_ptr() as u64)
    }

    fn element(&self, command: Command, index: u32, values: u64) -> Result<(), BpfError> {
        let mut attribute = attr::Element {
            map_fd: raw(self.fd.as_fd()),
            key: std::ptr::from_ref(&index) as u64,
            value: values,
            ..attr::Element::default()
        };
        // SAFETY: `index` is live, and `values` is the address of one value per possible CPU.
        if unsafe { bpf(command, &mut attribute) } < 0 {
            return Err(BpfError::last(command, format!("{}[{index}]", self.info.name)));
        }
        Ok(())
    }
}

pub(crate) fn checked_info<K: Plain, V: Plain>(fd: BorrowedFd<'_>) -> Result<MapInfo, BpfError> {
    let info = map_info(fd)?;
    let found = (info.shape.key_bytes as usize, info.shape.value_bytes as usize);
    let expected = (size_of::<K>(), size_of::<V>());
    if found != expected {
        let why = format!("keys and values of {found:?} bytes, expected {expected:?}");
        return Err(BpfError::invalid("map", info.name, why));
    }
    Ok(info)
}

/// How many CPUs could ever be there: the kernel keeps a per-CPU value for each of them.
fn possible_cpus() -> Result<usize, BpfError> {
    let failed = |source| BpfError { command: "read", object: CPU_RANGES.to_owned(), source };
    let ranges = std::fs::read_to_string(CPU_RANGES).map_err(failed)?;
    count_cpus(ranges.trim())
        .ok_or_else(|| BpfError::invalid("read", CPU_RANGES, format!("not a CPU list: {ranges:?}")))
}

/// Counts a CPU list such as `0-3,8`.
fn count_cpus(ranges: &str) -> Option<usize> {
    let count = |range: &str| -> Option<usize> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    ranges.split(',').map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::count_cpus;

    #[test]
    fn cpu_lists_are_counted() {
        let check = |ranges, expected| assert_eq!(count_cpus(ranges), expected, "{ranges:?}");
        check("0", Some(1));
        check("0-1", Some(2));
        check("0-3,8,10-11", Some(7));
        check("", None);
        check("3-1", None);
        check("a-b", None);
    }
}
