//! The bytes of a slot of `TABLES`: a table's header, or one of its endpoints.
//!
//! The map holds both kinds in turn, so it is mapped as plain bytes and each kind is read out of
//! them by offset. Native byte order, because the kernel programs read the same memory.

use holdfast_protocol::kernel::{EndpointSlot, SLOT_BYTES, TableHeader};

/// One slot, as it lies in the map.
pub type Slot = [u8; SLOT_BYTES];

/// A slot that was never part of a table: a header names a generation of at least 1, an endpoint a
/// port of at least 1, so neither is ever all zeros.
pub const UNTOUCHED: Slot = [0; SLOT_BYTES];

/// The slot that holds `header`.
#[must_use]
pub fn from_header(header: &TableHeader) -> Slot {
    let mut slot = UNTOUCHED;
    slot[0..4].copy_from_slice(&header.service.to_ne_bytes());
    slot[4..8].copy_from_slice(&header.generation.to_ne_bytes());
    slot[8..12].copy_from_slice(&header.endpoints.to_ne_bytes());
    slot[12..14].copy_from_slice(&header.no_endpoint_errno.to_ne_bytes());
    slot[14] = header.policy;
    slot[15..32].copy_from_slice(&header.reserved);
    slot
}

/// The header that `slot` holds, if it holds one.
#[must_use]
pub fn to_header(slot: &Slot) -> TableHeader {
    let mut reserved = [0; 17];
    reserved.copy_from_slice(&slot[15..32]);
    TableHeader {
        service: word(slot, 0),
        generation: word(slot, 4),
        endpoints: word(slot, 8),
        no_endpoint_errno: half(slot, 12),
        policy: slot[14],
        reserved,
    }
}

/// The slot that holds `endpoint`.
#[must_use]
pub fn from_endpoint(endpoint: &EndpointSlot) -> Slot {
    let mut slot = UNTOUCHED;
    for (bytes, word) in slot.chunks_exact_mut(4).zip(endpoint.address) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    slot[16..18].copy_from_slice(&endpoint.port_be.to_ne_bytes());
    slot[18..20].copy_from_slice(&endpoint.weight.to_ne_bytes());
    slot[20..24].copy_from_slice(&endpoint.threshold.to_ne_bytes());
    slot[24..28].copy_from_slice(&endpoint.alias.to_ne_bytes());
    slot[28..32].copy_from_slice(&endpoint.reserved.to_ne_bytes());
    slot
}

/// The endpoint that `slot` holds, if it holds one.
#[must_use]
pub fn to_endpoint(slot: &Slot) -> EndpointSlot {
    EndpointSlot {
        address: [word(slot, 0), word(slot, 4), word(slot, 8), word(slot, 12)],
        port_be: half(slot, 16),
        weight: half(slot, 18),
        threshold: word(slot, 20),
        alias: word(slot, 24),
        reserved: word(slot, 28),
    }
}

fn word(slot: &Slot, at: usize) -> u32 {
    u32::from_ne_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]])
}

fn half(slot: &Slot, at: usize) -> u16 {
    u16::from_ne_bytes([slot[at], slot[at + 1]])
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn a_header_comes_back_from_its_bytes() {
        let header = TableHeader {
            service: 0x0102_0304,
            generation: 0x0506_0708,
            endpoints: 0x090a_0b0c,
            no_endpoint_errno: 0x0d0e,
            policy: 0x0f,
            reserved: [0x10; 17],
        };
        assert_eq!(to_header(&from_header(&header)), header);
    }

    #[test]
    fn an_endpoint_comes_back_from_its_bytes() {
        let endpoint = EndpointSlot {
            address: [1, 2, 3, 4],
            port_be: 5,
            weight: 6,
            threshold: 7,
            alias: 8,
            reserved: 9,
        };
        assert_eq!(to_endpoint(&from_endpoint(&endpoint)), endpoint);
    }

    #[test]
    fn the_offsets_are_those_of_the_structs() {
        assert_eq!(offset_of!(TableHeader, generation), 4);
        assert_eq!(offset_of!(TableHeader, endpoints), 8);
        assert_eq!(offset_of!(TableHeader, no_endpoint_errno), 12);
        assert_eq!(offset_of!(TableHeader, policy), 14);
        assert_eq!(offset_of!(TableHeader, reserved), 15);
        assert_eq!(offset_of!(EndpointSlot, port_be), 16);
        assert_eq!(offset_of!(EndpointSlot, weight), 18);
        assert_eq!(offset_of!(EndpointSlot, threshold), 20);
        assert_eq!(offset_of!(EndpointSlot, alias), 24);
        assert_eq!(offset_of!(EndpointSlot, reserved), 28);
    }
}
