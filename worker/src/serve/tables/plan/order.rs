//! In which order services are published.
//!
//! An address that moves between two services that both change should never lead to the giver's new
//! table, which is not for it. So the receiver is published first, then the address moves, then the
//! giver is published.
//!
//! When services give each other addresses in a circle, that order does not exist. Then one of them
//! is published before it has given away what it gives, and until the move, a few microseconds
//! later, connections to that address get the giver's new endpoints. They are governed at every
//! instant, and every service is still wholly old or wholly new. A giver whose endpoints are asked for
//! by their own addresses does not know the address any more: it is refused with `EAGAIN` until then.

use std::collections::BTreeSet;

use super::frontends::Routes;
use super::space::Target;

/// The services that are published or receive an address, in an order that keeps the rule above
/// wherever it can be kept.
pub(super) fn order(targets: &[Target], routes: &Routes) -> Vec<usize> {
    // For each service, how many receivers it has to wait for, and whom it keeps waiting itself.
    let mut waits = vec![0_usize; targets.len()];
    let givers = |service: usize| routes.moves[service].iter().filter_map(|moved| moved.giver);
    for service in 0..targets.len() {
        givers(service).for_each(|giver| waits[giver] += 1);
    }
    let mut remaining: BTreeSet<usize> = (0..targets.len())
        .filter(|service| targets[*service].table.is_some() || !routes.moves[*service].is_empty())
        .collect();
    let mut ready: BTreeSet<usize> =
        remaining.iter().copied().filter(|service| waits[*service] == 0).collect();
    let mut order = Vec::with_capacity(remaining.len());
    // Without a ready one, the rest is a circle or hangs on one: any of it has to be the first.
    while let Some(service) = ready.pop_first().or_else(|| remaining.first().copied()) {
        if !remaining.remove(&service) {
            continue;
        }
        order.push(service);
        for giver in givers(service) {
            waits[giver] -= 1;
            if waits[giver] == 0 && remaining.contains(&giver) {
                ready.insert(giver);
            }
        }
    }
    order
}
