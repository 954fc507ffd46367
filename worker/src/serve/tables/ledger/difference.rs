//! Which services are not the same allocations as before.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use holdfast_config::List;

use crate::serve::tables::desired::DesiredService;

/// Most services that change in what still counts as a small change. Above that, reading everything
/// back is not slower by much, and a plan of everything is shown to repair whatever it finds.
const MOST: usize = 1024;

/// How one list of services becomes another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The part of the old list outside of which both are the same.
    pub(super) replaced: Range<usize>,
    /// For each service that takes its place where it was in the old list.
    pub(super) origins: Vec<Option<usize>>,
    /// Those of the old list that the new one does not have.
    pub(super) gone: Vec<usize>,
    /// Those of the new list that the old one does not have.
    pub(super) come: Vec<usize>,
}

/// How `old` becomes `new`; `None` when too much of it differs.
pub(super) fn difference(
    old: &List<Arc<DesiredService>>,
    new: &List<Arc<DesiredService>>,
) -> Option<Difference> {
    let (first, last) = old.common(new, Arc::ptr_eq);
    let replaced = first..old.len() - last;
    let places: HashMap<*const DesiredService, usize> =
        old.range(replaced.clone()).map(Arc::as_ptr).zip(first..).collect();
    let fresh = new.range(first..new.len() - last);
    let origins: Vec<Option<usize>> =
        fresh.map(|it| places.get(&Arc::as_ptr(it)).copied()).collect();
    let fresh = (first..).zip(&origins);
    let come: Vec<usize> = fresh.filter(|(_, it)| it.is_none()).map(|(at, _)| at).collect();
    let stays: HashSet<usize> = origins.iter().flatten().copied().collect();
    let gone: Vec<usize> = replaced.clone().filter(|at| !stays.contains(at)).collect();
    let is_small = gone.len().max(come.len()) <= MOST;
    is_small.then_some(Difference { replaced, origins, gone, come })
}
