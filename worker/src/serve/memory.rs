//! The memory this process keeps when it has compiled a configuration, or looked at all of the maps.
//!
//! What that takes is many times larger than what is left of it, and the C library keeps what was freed.
//! The kernel takes every page out of a dead process before anybody else may be granted, so what is kept
//! makes the next takeover longer: by how many pages there are, whatever their size.
#![expect(unsafe_code, reason = "the C library and the kernel are told through calls")]

use std::iter::successors;

/// What is kept at the end of the heap, in bytes: room for the text of the next save, of some 100,000
/// endpoints, and for what changes with it. Fresh memory takes the kernel as long as all of the rest of a save.
const SPARE: usize = 6 * 1024 * 1024;

/// The smallest pages of the two architectures there are programs for.
const PAGE: usize = 4096;
/// A page of the next size.
const LARGE_PAGE: usize = 2 * 1024 * 1024;
const PAGES: usize = LARGE_PAGE / PAGE;

/// From how many pages on a large one is worth the memory that it takes beyond them.
const WORTH_A_LARGE_PAGE: usize = PAGES / 2;

/// Gives back to the kernel what is not in use, but for some spare room, and has it keep the rest in large
/// pages. Takes milliseconds: not for a thread that others wait for.
pub fn give_back() {
    // Other C libraries keep less, and have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and touches only memory that is not in use.
    unsafe {
        libc::malloc_trim(SPARE);
    }
    gather();
}

/// Has what is left of the heap in large pages: giving back some of one leaves its others as small ones.
fn gather() {
    // SAFETY: moves the end of the heap by nothing.
    let end = unsafe { libc::sbrk(0) }.addr();
    let last = (end - end % LARGE_PAGE).checked_sub(LARGE_PAGE);
    // From the end down to where nothing is mapped.
    let places = successors(last, |place| place.checked_sub(LARGE_PAGE));
    let worth: Vec<usize> = places
        .map_while(|place| Some((place, resident(place)?)))
        .filter_map(|(place, pages)| (pages >= WORTH_A_LARGE_PAGE).then_some(place))
        .collect();
    // Each call waits for every processor, so neighbours share one.
    for row in worth.chunk_by(|above, below| below + LARGE_PAGE == *above) {
        let lowest = row.last().map_or(0, |place| *place);
        // SAFETY: what is in these pages stays the same. A kernel that has no large page, or does not know
        // how, leaves them as they are.
        unsafe {
            libc::madvise(pointer(lowest), row.len() * LARGE_PAGE, libc::MADV_COLLAPSE);
        }
    }
}

/// How many small pages are there at `place`, where a large one could be; `None` when some of it is not
/// mapped at all.
fn resident(place: usize) -> Option<usize> {
    let mut pages = [0; PAGES];
    // SAFETY: it writes one byte for each page.
    let result = unsafe { libc::mincore(pointer(place), LARGE_PAGE, pages.as_mut_ptr()) };
    (result == 0).then(|| pages.iter().filter(|page| *page & 1 == 1).count())
}

const fn pointer(place: usize) -> *mut libc::c_void {
    std::ptr::without_provenance_mut(place)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that the test is run in.
    const INSIDE: &str = "HOLDFAST_TEST_HEAP";

    /// A figure about the heap from `/proc/self/smaps`, in bytes.
    fn of_heap(name: &str) -> usize {
        let text = std::fs::read_to_string("/proc/self/smaps").expect("it is always there");
        let (_, heap) = text.split_once("[heap]").expect("it has one");
        let line = heap.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        let kibibytes = line.trim().strip_suffix(" kB").expect("a unit");
        1024 * kibibytes.parse::<usize>().expect("a number")
    }

    #[test]
    fn what_is_left_of_large_pages_is_one_again() {
        if std::env::var_os(INSIDE).is_none() {
            // One heap for all threads, as the supervisor has it.
            let mut test = Command::new(std::env::current_exe().expect("this program"));
            test.args([
                "--exact",
                "serve::memory::tests::what_is_left_of_large_pages_is_one_again",
            ]);
            test.env(INSIDE, "1").env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1");
            assert!(test.status().expect("it starts").success());
            return;
        }
        let mut blocks: Vec<_> = (0..16 * PAGES).map(|_| Some(Box::new([1u8; PAGE]))).collect();
        // A quarter of each large page, and then everything of six of them.
        for (number, block) in blocks.iter_mut().enumerate() {
            let is_left = number % PAGES >= PAGES / 4 && number / PAGES < 10;
            *block = block.take().filter(|_| is_left);
        }
        give_back();
        let (all, large) = (of_heap("Rss:"), of_heap("AnonHugePages:"));
        assert!(large >= 9 * LARGE_PAGE, "{large} of {all} bytes");
        assert!(all <= 13 * LARGE_PAGE + SPARE, "{all} bytes");
        drop(blocks);
    }
}
