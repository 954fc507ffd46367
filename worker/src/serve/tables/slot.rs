//! The bytes of a slot of `TABLES`: a table's header, a part of its settings, one of its endpoints, or a
//! part of its lookup table.
//!
//! The map holds all kinds in turn, so it is mapped as plain bytes and each kind is read out of
//! them by offset. Native byte order, because the kernel programs read the same memory.

use holdfast_protocol::kernel::{
    EndpointSlot, LOOKUP_PER_SLOT, SETTINGS_SLOTS, SLOT_BYTES, Settings, TableHeader,
};

/// One slot, as it lies in the map.
pub type Slot = [u8; SLOT_BYTES];

/// A slot that was never part of a table: a header names a generation of at least 1, an endpoint a
/// port of at least 1, settings name whom they count by or carry their mark, a lookup entry is at least
/// 1; so none is ever all zeros.
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
    slot[15] = header.features;
    slot[16..20].copy_from_slice(&header.settings.to_ne_bytes());
    slot[20..24].copy_from_slice(&header.lookup.to_ne_bytes());
    slot[24..32].copy_from_slice(&header.reserved.to_ne_bytes());
    slot
}

/// The header that `slot` holds, if it holds one.
#[must_use]
pub fn to_header(slot: &Slot) -> TableHeader {
    TableHeader {
        service: word(slot, 0),
        generation: word(slot, 4),
        endpoints: word(slot, 8),
        no_endpoint_errno: half(slot, 12),
        policy: slot[14],
        features: slot[15],
        settings: word(slot, 16),
        lookup: word(slot, 20),
        reserved: long(slot, 24),
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
    slot[28..32].copy_from_slice(&endpoint.state.to_ne_bytes());
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
        state: word(slot, 28),
    }
}

/// The slots that hold `settings`.
#[must_use]
pub fn from_settings(settings: &Settings) -> [Slot; SETTINGS_SLOTS as usize] {
    let mut first = UNTOUCHED;
    let words = [
        settings.open,
        settings.pending,
        settings.endpoint_open,
        settings.endpoint_pending,
        settings.rate,
        settings.burst,
        settings.affinity_ms,
    ];
    for (bytes, word) in first.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let Settings { rate_by, affinity_by, hash_by, first_mark, .. } = *settings;
    first[28..32].copy_from_slice(&[rate_by, affinity_by, hash_by, first_mark]);
    let mut second = UNTOUCHED;
    second[..4].copy_from_slice(&settings.client_rate.to_ne_bytes());
    second[4..8].copy_from_slice(&settings.client_burst.to_ne_bytes());
    second[8..12].copy_from_slice(&settings.sample.to_ne_bytes());
    second[12..16].copy_from_slice(&settings.logged.to_ne_bytes());
    for (bytes, word) in second[16..].chunks_exact_mut(8).zip([settings.more, settings.mark]) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    [first, second]
}

/// The settings that these slots hold, if they hold some.
#[must_use]
pub fn to_settings([first, second]: &[Slot; SETTINGS_SLOTS as usize]) -> Settings {
    Settings {
        open: word(first, 0),
        pending: word(first, 4),
        endpoint_open: word(first, 8),
        endpoint_pending: word(first, 12),
        rate: word(first, 16),
        burst: word(first, 20),
        affinity_ms: word(first, 24),
        rate_by: first[28],
        affinity_by: first[29],
        hash_by: first[30],
        first_mark: first[31],
        client_rate: word(second, 0),
        client_burst: word(second, 4),
        sample: word(second, 8),
        logged: word(second, 12),
        more: long(second, 16),
        mark: long(second, 24),
    }
}

/// The slots that hold the indices of a lookup table; what is left of the last one is 0.
pub fn from_lookup(indices: &[u32]) -> impl Iterator<Item = Slot> {
    indices.chunks(LOOKUP_PER_SLOT as usize).map(|indices| {
        let mut slot = UNTOUCHED;
        for (bytes, index) in slot.chunks_exact_mut(4).zip(indices) {
            bytes.copy_from_slice(&(index + 1).to_ne_bytes());
        }
        slot
    })
}

/// The indices that `slot` holds, if it holds some; those behind the last one are no index.
#[must_use]
pub fn to_lookup(slot: &Slot) -> [u32; LOOKUP_PER_SLOT as usize] {
    std::array::from_fn(|entry| word(slot, entry * size_of::<u32>()).wrapping_sub(1))
}

fn long(slot: &Slot, at: usize) -> u64 {
    (u64::from(word(slot, at + 4)) << 32) | u64::from(word(slot, at))
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
            features: 0x10,
            settings: 0x1112_1314,
            lookup: 0x1516_1718,
            reserved: 0x191a_1b1c_1d1e_1f20,
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
            state: 9,
        };
        assert_eq!(to_endpoint(&from_endpoint(&endpoint)), endpoint);
    }

    #[test]
    fn settings_and_lookup_entries_come_back_from_their_bytes() {
        let settings = Settings {
            open: 1,
            pending: 2,
            endpoint_open: 3,
            endpoint_pending: 4,
            rate: 5,
            burst: 6,
            affinity_ms: 7,
            rate_by: 8,
            affinity_by: 9,
            hash_by: 10,
            first_mark: 11,
            client_rate: 12,
            client_burst: 13,
            sample: 14,
            logged: 16,
            more: u64::MAX - 1,
            mark: 15,
        };
        assert_eq!(to_settings(&from_settings(&settings)), settings);
        let indices: Vec<u32> = (0..9).collect();
        let back: Vec<u32> = from_lookup(&indices).flat_map(|slot| to_lookup(&slot)).collect();
        assert_eq!(back[..9], indices);
        assert_eq!(back[9..], [u32::MAX; 7]);
        assert!(from_settings(&Settings::NONE).iter().all(|slot| *slot != UNTOUCHED));
    }

    #[test]
    fn the_offsets_are_those_of_the_structs() {
        assert_eq!(offset_of!(TableHeader, generation), 4);
        assert_eq!(offset_of!(TableHeader, endpoints), 8);
        assert_eq!(offset_of!(TableHeader, no_endpoint_errno), 12);
        assert_eq!(offset_of!(TableHeader, policy), 14);
        assert_eq!(offset_of!(TableHeader, features), 15);
        assert_eq!(offset_of!(TableHeader, settings), 16);
        assert_eq!(offset_of!(TableHeader, lookup), 20);
        assert_eq!(offset_of!(TableHeader, reserved), 24);
        assert_eq!(offset_of!(EndpointSlot, port_be), 16);
        assert_eq!(offset_of!(EndpointSlot, weight), 18);
        assert_eq!(offset_of!(EndpointSlot, threshold), 20);
        assert_eq!(offset_of!(EndpointSlot, alias), 24);
        assert_eq!(offset_of!(EndpointSlot, state), 28);
        assert_eq!(offset_of!(Settings, burst), 20);
        assert_eq!(offset_of!(Settings, affinity_ms), 24);
        assert_eq!(offset_of!(Settings, rate_by), 28);
        assert_eq!(offset_of!(Settings, first_mark), 31);
        assert_eq!(
            (offset_of!(Settings, client_rate), offset_of!(Settings, client_burst)),
            (32, 36)
        );
        assert_eq!((offset_of!(Settings, more), offset_of!(Settings, mark)), (48, 56));
    }
}
