//! What is known of an address from a lookup before this one. Pure.
//!
//! See [`holdfast_protocol::kernel::cache`] for what a line says and when it counts.

use holdfast_protocol::kernel::cache::CacheLine;
use holdfast_protocol::kernel::{FrontendKey, HeadWord};

use crate::decide::Addresses;
use crate::words;

/// Where an address leads, as long as the service has this head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The number of the service, or [`CacheLine::NOBODY`].
    pub service: u32,
    /// The head that it had.
    pub head: HeadWord,
}

impl Known {
    /// The address is no service's.
    pub const NOBODYS: Self = Self { service: CacheLine::NOBODY, head: HeadWord::UNPUBLISHED };

    /// Whether the address is no service's.
    #[inline(always)]
    #[must_use]
    pub const fn is_nobodys(self) -> bool {
        self.service == CacheLine::NOBODY
    }

    /// Whether the address still leads there. That it is no service's is known for the whole of an era.
    #[inline(always)]
    pub fn still_leads<A: Addresses>(self, tables: &A) -> bool {
        self.is_nobodys() || tables.head(self.service) == Some(self.head)
    }
}

/// Looks `key` up. `None` if that is being replaced, or in force only in another generation: then it takes the looks of
/// [`decide`](crate::decide) to say what becomes of a connection.
#[inline(always)]
pub fn look_up<A: Addresses>(from: &A, key: &FrontendKey) -> Option<Known> {
    let Some(element) = from.element(key) else { return Some(Known::NOBODYS) };
    let lead = from.element_word(element, words::FRONTEND_LEAD);
    let frontend = words::frontend(lead, from.element_word(element, words::FRONTEND_SPAN));
    if frontend.tag != key.tag() || from.element_word(element, words::FRONTEND_LEAD) != lead {
        return None;
    }
    let head = from.head(frontend.service)?;
    let is_in_force = head.is_published() && frontend.in_force(head.generation());
    is_in_force.then_some(Known { service: frontend.service, head })
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::kernel::Frontend;

    use super::*;
    use crate::race::{KEY, Race, SERVICE, Step, frontend};

    #[test]
    fn what_one_look_cannot_say_is_not_learnt() {
        let learnt = |change: Step| {
            let race = Race::new(&[], &[]);
            change(&mut race.memory.borrow_mut());
            look_up(&race, &KEY)
        };
        assert_eq!(learnt(|_| {}), Some(Known { service: SERVICE, head: HeadWord::new(0, 1) }));
        assert_eq!(learnt(|memory| memory.elements.clear()), Some(Known::NOBODYS));
        let unsaid: [Step; 5] = [
            |memory| memory.pool[0][words::FRONTEND_LEAD] ^= 1 << 32,
            |memory| memory.pool[0] = frontend(&KEY, 99, 1, Frontend::FOREVER),
            |memory| memory.pool[0] = frontend(&KEY, SERVICE, 2, Frontend::FOREVER),
            |memory| memory.pool[0] = frontend(&KEY, SERVICE, 0, 1),
            |memory| memory.heads[SERVICE as usize] = HeadWord::UNPUBLISHED,
        ];
        for (index, change) in unsaid.into_iter().enumerate() {
            assert_eq!(learnt(change), None, "change {index}");
        }
    }
}
