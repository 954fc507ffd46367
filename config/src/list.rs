//! A list that shares with its next generation what both have in common.

use std::fmt;
use std::iter::FlatMap;
use std::ops::{Index, Range};
use std::slice;
use std::sync::Arc;

/// Most items of a piece. Copying a list takes a step for each piece, and changing an item one for each item of its
/// piece: with this size both are about as many in a list of ten thousand.
const PIECE: usize = 128;

/// A list of references, in pieces that several lists share. Of one that has ten thousand, a copy that differs in
/// one of them takes some two hundred steps.
#[derive(Clone)]
pub struct List<T>(Vec<Piece<T>>);

#[derive(Clone, Debug)]
struct Piece<T> {
    /// How many items there are in this one and all before it.
    end: usize,
    /// At least one, at most [`PIECE`].
    items: Arc<[T]>,
}

/// The items of a [`List`], in order.
#[derive(Debug)]
pub struct Iter<'l, T>(Items<'l, T>);

type Items<'l, T> =
    FlatMap<slice::Iter<'l, Piece<T>>, slice::Iter<'l, T>, fn(&'l Piece<T>) -> slice::Iter<'l, T>>;

impl<T> List<T> {
    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |piece| piece.end)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(items(&self.0))
    }

    /// Those of `range`, in order; those that there are, if it goes beyond the end.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &T> + Clone {
        let first = self.0.partition_point(|piece| piece.end <= range.start);
        let touched = self.0[first..].iter().take_while({
            let end = range.end;
            move |piece| piece.start() < end
        });
        touched.flat_map(move |piece| {
            let from = range.start.saturating_sub(piece.start());
            let to = (range.end - piece.start()).min(piece.items.len());
            &piece.items[from.min(to)..to]
        })
    }

    /// How many items this list and `other` have in common from the start, and how many of the others from the end.
    /// Pieces that both share are not looked into; otherwise `is_same` says whether two items are.
    pub fn common(&self, other: &Self, is_same: impl Fn(&T, &T) -> bool) -> (usize, usize) {
        let (old, new) = (&self.0[..], &other.0[..]);
        let is_shared =
            |(one, other): &(&Piece<T>, &Piece<T>)| Arc::ptr_eq(&one.items, &other.items);
        let same = |(one, other): &(&T, &T)| is_same(one, other);
        let shared = old.iter().zip(new).take_while(is_shared).count();
        let rest = items(&old[shared..]).zip(items(&new[shared..]));
        let first =
            old[..shared].last().map_or(0, |piece| piece.end) + rest.take_while(same).count();
        let most = self.len().min(other.len()) - first;
        let shared = old.iter().rev().zip(new.iter().rev()).take_while(is_shared).count();
        let (old, new) = (&old[..old.len() - shared], &new[..new.len() - shared]);
        let behind = self.len() - old.last().map_or(0, |piece| piece.end);
        let rest = items(old).rev().zip(items(new).rev());
        let last = behind + rest.take(most.saturating_sub(behind)).take_while(same).count();
        (first, last.min(most))
    }
}

impl<T: Clone> List<T> {
    /// All items, in order.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().cloned().collect()
    }

    /// The item at `at`, which no other list that has it now is going to share.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn get_mut(&mut self, at: usize) -> &mut T {
        let place = self.0.partition_point(|piece| piece.end <= at);
        let piece = &mut self.0[place];
        let start = piece.start();
        &mut Arc::make_mut(&mut piece.items)[at - start]
    }

    /// Puts `fresh` in the place of the items of `range`.
    ///
    /// # Panics
    ///
    /// When there are no such items.
    pub fn splice(&mut self, range: Range<usize>, fresh: Vec<T>) {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {}", self.len());
        let pieces = &self.0;
        // An item that is added to the end may find room in the last piece.
        let last = pieces.len().saturating_sub(1);
        let first = pieces.partition_point(|piece| piece.end <= range.start).min(last);
        let until = pieces.partition_point(|piece| piece.end < range.end).max(first);
        let until = pieces.len().min(until + 1);
        let touched = &pieces[first..until];
        let start = touched.first().map_or(0, Piece::start);
        let end = touched.last().map_or(0, |piece| piece.end);
        let (came, went) = (fresh.len(), range.len());
        let mut all: Vec<T> = self.range(start..range.start).cloned().collect();
        all.extend(fresh);
        all.extend(self.range(range.end..end).cloned());
        let cut = cut(&all, start);
        let behind = first + cut.len();
        self.0.splice(first..until, cut);
        self.0[behind..].iter_mut().for_each(|piece| piece.end = piece.end + came - went);
    }
}

impl<T> Piece<T> {
    fn start(&self) -> usize {
        self.end - self.items.len()
    }
}

fn items<T>(pieces: &[Piece<T>]) -> Items<'_, T> {
    pieces.iter().flat_map(|piece| piece.items.iter())
}

/// `all` in pieces about as long as each other, behind `start` items.
fn cut<T: Clone>(all: &[T], start: usize) -> Vec<Piece<T>> {
    let count = all.len().div_ceil(PIECE).max(1);
    let length = all.len().div_ceil(count).max(1);
    let mut end = start;
    let piece = |items: &[T]| {
        end += items.len();
        Piece { end, items: items.into() }
    };
    all.chunks(length).map(piece).collect()
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self(cut(&items, 0))
    }
}

impl<T: Clone> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Vec::from_iter(items).into()
    }
}

impl<'l, T> Iterator for Iter<'l, T> {
    type Item = &'l T;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<T> DoubleEndedIterator for Iter<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back()
    }
}

impl<'l, T> IntoIterator for &'l List<T> {
    type Item = &'l T;
    type IntoIter = Iter<'l, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> Index<usize> for List<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        let piece = &self.0[self.0.partition_point(|piece| piece.end <= at)];
        &piece.items[at - piece.start()]
    }
}

impl<T: PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl<T: Eq> Eq for List<T> {}

impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list, and the same as one piece of memory.
    #[derive(Clone, Debug, Default)]
    struct Both(List<u16>, Vec<u16>);

    impl Both {
        fn splice(&mut self, (at, length): (usize, usize), fresh: Vec<u16>) {
            let start = at % (self.1.len() + 1);
            let range = start..(start + length).min(self.1.len());
            self.0.splice(range.clone(), fresh.clone());
            drop(self.1.splice(range, fresh));
        }

        fn check(&self) {
            let Self(list, vec) = self;
            assert_eq!((list.len(), list.is_empty()), (vec.len(), vec.is_empty()));
            assert_eq!(&list.to_vec(), vec);
            assert!((0..vec.len()).all(|at| list[at] == vec[at]));
            assert!(list.iter().rev().eq(vec.iter().rev()));
            assert_eq!(list, &List::from(vec.clone()));
            assert!(list.0.iter().all(|it| (1..=PIECE).contains(&it.items.len())));
        }
    }

    fn any_items() -> impl Strategy<Value = Vec<u16>> {
        prop::collection::vec(0..3_u16, 0..3 * PIECE)
    }

    proptest! {
        /// Whatever is changed, a list is what a vector is, and its former generations stay what they were.
        #[test]
        fn it_is_a_vector(
            changes in prop::collection::vec((any::<usize>(), 0..2 * PIECE, any_items()), 1..8),
            ranges in prop::collection::vec((any::<usize>(), any::<usize>()), 1..8),
        ) {
            let mut generations = vec![Both::default()];
            for (at, length, fresh) in changes {
                let mut next = generations[generations.len() - 1].clone();
                next.splice((at, length), fresh);
                if let Some(last) = next.1.len().checked_sub(1) {
                    *next.0.get_mut(at % (last + 1)) = 7;
                    next.1[at % (last + 1)] = 7;
                }
                generations.push(next);
            }
            for both in &generations {
                both.check();
                for (one, other) in &ranges {
                    let (one, other) = (one % (both.1.len() + 1), other % (both.1.len() + 1));
                    let range = one.min(other)..one.max(other);
                    prop_assert!(both.0.range(range.clone()).eq(&both.1[range]));
                }
            }
            let last = &generations[generations.len() - 1];
            for before in &generations {
                let (first, behind) = before.0.common(&last.0, u16::eq);
                let same = |(one, other): &(&u16, &u16)| one == other;
                let prefix = before.1.iter().zip(&last.1).take_while(same).count();
                let rest = before.1[prefix..].iter().rev().zip(last.1[prefix..].iter().rev());
                prop_assert_eq!((first, behind), (prefix, rest.take_while(same).count()));
            }
        }
    }

    #[test]
    fn what_did_not_change_is_not_copied_and_not_looked_into() {
        let before: List<usize> = (0..10_000).collect();
        let mut after = before.clone();
        after.splice(5_000..5_001, vec![1, 2]);
        let looked = std::cell::Cell::new(0);
        let is_same = |one: &usize, other: &usize| {
            looked.set(looked.get() + 1);
            one == other
        };
        assert_eq!(before.common(&after, is_same), (5_000, 4_999));
        assert!(looked.get() <= 2 * PIECE, "{} items", looked.get());
        let is_shared = |piece: &&Piece<usize>| {
            before.0.iter().any(|other| Arc::ptr_eq(&other.items, &piece.items))
        };
        let copied: usize =
            after.0.iter().filter(|it| !is_shared(it)).map(|it| it.items.len()).sum();
        assert!(copied <= PIECE + 1, "{copied} items");
    }
}
