//! Which services are not the same allocations as before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::serve::tables::desired::DesiredService;

/// Most services that change in what still counts as a small change. Above that, reading everything
/// back is not slower by much, and a plan of everything is shown to repair whatever it finds.
const MOST: usize = 1024;

/// How one list of services becomes another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Those of the old list that the new one does not have.
    pub(super) gone: Vec<usize>,
    /// Those of the new list that the old one does not have.
    pub(super) come: Vec<usize>,
    /// For each of the new list where it was in the old one.
    pub(super) origins: Vec<Option<usize>>,
}

/// How `old` becomes `new`; `None` when too much of it differs.
pub(super) fn difference(
    old: &[Arc<DesiredService>],
    new: &[Arc<DesiredService>],
) -> Option<Difference> {
    let same =
        |(one, other): &(&Arc<DesiredService>, &Arc<DesiredService>)| Arc::ptr_eq(one, other);
    let first = old.iter().zip(new).take_while(same).count();
    let rest = old[first..].iter().rev().zip(new[first..].iter().rev());
    let last = rest.take_while(same).count();
    let (old_end, new_end) = (old.len() - last, new.len() - last);
    let places: HashMap<*const DesiredService, usize> =
        old[first..old_end].iter().map(Arc::as_ptr).zip(first..).collect();
    let between = new[first..new_end].iter().map(|it| places.get(&Arc::as_ptr(it)).copied());
    let mut origins: Vec<Option<usize>> = (0..first).map(Some).collect();
    origins.extend(between);
    origins.extend((old_end..old.len()).map(Some));
    let come: Vec<usize> = (first..new_end).filter(|at| origins[*at].is_none()).collect();
    let mut stays = vec![false; old_end - first];
    origins[first..new_end].iter().flatten().for_each(|at| stays[at - first] = true);
    let gone: Vec<usize> = (first..old_end).filter(|at| !stays[at - first]).collect();
    (gone.len().max(come.len()) <= MOST).then_some(Difference { gone, come, origins })
}
