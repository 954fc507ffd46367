//! Who a client is, and the number it is hashed to.

use holdfast_protocol::kernel::{Address, client, mapped};

/// What the kernel says of who makes a system call. Each method is one question.
pub trait Clients {
    /// The id of the control group of the process.
    fn cgroup(&self) -> u64;
    /// The cookie of the socket's network namespace.
    fn network_namespace(&self) -> u64;
    /// The address the socket is bound to; the unspecified one if it is bound to none.
    fn bound(&self) -> Address;
}

/// A client among all that are told apart the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// How this one was told apart: one of [`client`].
    pub by: u32,
    /// What it was told apart by.
    pub id: [u64; 2],
}

/// The client, told apart `by` one of [`client`]; a way that is not among them counts as the first.
#[inline(always)]
#[must_use]
pub fn identify<C: Clients>(clients: &C, by: u8) -> Client {
    if by == client::SOURCE {
        let [a, b, c, d] = clients.bound();
        if [a, b, c, d] != [0; 4] && [a, b, c, d] != mapped(0) {
            let join = |high: u32, low: u32| (high as u64) << 32 | low as u64;
            return Client { by: client::SOURCE as u32, id: [join(a, b), join(c, d)] };
        }
    }
    match by {
        client::SOURCE | client::NETWORK_NAMESPACE => {
            Client { by: client::NETWORK_NAMESPACE as u32, id: [clients.network_namespace(), 0] }
        }
        _ => Client { by: client::CGROUP as u32, id: [clients.cgroup(), 0] },
    }
}

/// Spreads clients evenly over all 32-bit numbers. Fixed, in this version and in all that come after
/// it: another hash would send every client elsewhere. The mixing is the 64-bit finaliser of
/// MurmurHash3 (A. Appleby).
#[inline(always)]
#[must_use]
pub const fn hash(client: &Client) -> u32 {
    const KEY: u64 = 0x686f_6c64_6661_7374;
    let mixed = mix(mix(KEY ^ client.id[0]) ^ client.id[1]);
    (mixed >> 32) as u32
}

#[inline(always)]
const fn mix(word: u64) -> u64 {
    let mut mixed = word;
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Asked {
        bound: Address,
    }

    impl Clients for Asked {
        fn cgroup(&self) -> u64 {
            11
        }
        fn network_namespace(&self) -> u64 {
            22
        }
        fn bound(&self) -> Address {
            self.bound
        }
    }

    #[test]
    fn a_client_is_told_apart_as_asked() {
        let bound = mapped(u32::from_le_bytes([127, 0, 0, 5]));
        let by = |by, bound| identify(&Asked { bound }, by);
        assert_eq!(by(client::CGROUP, bound), Client { by: 0, id: [11, 0] });
        assert_eq!(by(client::NETWORK_NAMESPACE, bound), Client { by: 1, id: [22, 0] });
        let expected = [0, 0xffff_0000_0500_007f];
        assert_eq!(by(client::SOURCE, bound), Client { by: 2, id: expected });
        let native = [0x0000_96fd, 1, 2, 3];
        assert_eq!(by(client::SOURCE, native).id, [0x0000_96fd_0000_0001, 0x0000_0002_0000_0003]);
    }

    #[test]
    fn a_socket_that_is_bound_to_no_address_is_known_by_its_network_namespace() {
        for unbound in [[0; 4], mapped(0)] {
            let client = identify(&Asked { bound: unbound }, client::SOURCE);
            assert_eq!(client, Client { by: 1, id: [22, 0] });
        }
    }

    #[test]
    fn clients_that_are_neighbours_are_spread_evenly() {
        // Control groups and namespaces are numbered one after the other, addresses by their last
        // bytes: 64 bins of 65,536 clients have 1,024 each, give or take 32 (one standard deviation).
        for step in [[1, 0], [0, 1 << 24], [0, 1 << 40], [1 << 32, 0]] {
            let mut bins = [0_i32; 64];
            for number in 0..65_536_u64 {
                let id = [number.wrapping_mul(step[0]), number.wrapping_mul(step[1])];
                bins[hash(&Client { by: 0, id }) as usize >> 26] += 1;
            }
            assert!(bins.iter().all(|bin| (bin - 1024).abs() < 6 * 32), "{step:?}: {bins:?}");
        }
    }

    /// A changed figure here means that an update of Holdfast moves clients to other endpoints.
    #[test]
    fn the_hash_is_the_same_in_every_version() {
        let hashes = [[1, 0], [4711, 0], [0, 0xffff_0000_0500_007f]];
        let hashes = hashes.map(|id| hash(&Client { by: 0, id }));
        assert_eq!(hashes, [1_047_618_713, 3_714_945_956, 1_452_756_538]);
    }
}
