//! What the policy maps say of the policies in force, for whoever only has to know whether anything judges
//! what arrives.

use std::os::fd::BorrowedFd;

use holdfast_protocol::kernel::rules::{Cell, ImageHeader};
use holdfast_protocol::kernel::{HeadWord, map};

use crate::array::lookup_from;
use crate::command::BpfError;
use crate::map::checked_info;

/// Whether the policies in force judge what arrives, by the map of their head and that of their cells.
///
/// # Errors
///
/// When these are other maps, the head names no image, or the kernel refuses.
pub fn judge_arrivals(head: BorrowedFd<'_>, cells: BorrowedFd<'_>) -> Result<bool, BpfError> {
    checked_info::<u32, u64>(head)?;
    checked_info::<u32, Cell>(cells)?;
    let [head] = lookup_from::<u64>(head, map::POLICY_HEAD, 0, 1, 1)?[..] else {
        return Err(BpfError::invalid("read", map::POLICY_HEAD, "not one element".to_owned()));
    };
    let place = HeadWord(head).slot();
    if place == 0 {
        return Ok(false);
    }
    let header = lookup_from::<Cell>(cells, map::POLICIES, place, 1, 1)?;
    Ok(header
        .first()
        .is_some_and(|header| ImageHeader::arriving(header[ImageHeader::DIRECTIONS]) != 0))
}
