//! Which differences are open, which were repaired, and when to try again. Pure: times come in.

use std::time::Duration;

use holdfast_protocol::control::DriftStatus;
use holdfast_protocol::handover::MAX_TEXT_BYTES;
use holdfast_protocol::wire;

use super::audit::{Drift, Remedy};
use crate::takeover::pace::Pace;

/// Most differences that are shown; an estate has fewer objects than this.
const MAX_SHOWN: usize = 32;

/// Most bytes of one that is shown, so that a status always fits a packet.
const MAX_SHOWN_BYTES: usize = MAX_TEXT_BYTES / 8;

/// What the audits found, and what became of it.
#[derive(Clone, Debug)]
pub struct Book {
    audits: u64,
    repairs: u64,
    last: String,
    /// As the newest audit found it.
    open: Vec<Drift>,
    /// Repairs that failed in a row, and when the next one may be tried.
    pace: Pace,
}

/// What an audit found that the one before did not, and the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Differences that were not there before.
    pub appeared: Vec<Drift>,
    /// Differences that are gone because of a repair.
    pub repaired: Vec<Drift>,
    /// Differences that are gone by themselves.
    pub gone: Vec<Drift>,
}

impl Book {
    /// An empty book. `seed` decides the jitter of retries.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { audits: 0, repairs: 0, last: String::new(), open: Vec::new(), pace: Pace::new(seed) }
    }

    /// Goes on counting where `shown` ends. What is open shows at the next audit.
    #[must_use]
    pub fn resumed(shown: &DriftStatus, seed: u64) -> Self {
        let DriftStatus { audits, repairs, last, .. } = shown;
        Self { audits: *audits, repairs: *repairs, last: last.clone(), ..Self::new(seed) }
    }

    /// Notes what an audit found. `is_check` says that it is about a repair that was just tried:
    /// what that did not mend is not tried again at once.
    pub fn note(&mut self, found: Vec<Drift>, is_check: Option<Remedy>, now: Duration) -> News {
        self.audits += 1;
        let former = std::mem::replace(&mut self.open, found);
        let appeared = self.open.iter().filter(|drift| !former.contains(drift)).cloned().collect();
        let vanished = former.into_iter().filter(|drift| !self.open.contains(drift));
        let (repaired, gone): (Vec<_>, Vec<_>) = vanished.partition(|drift| {
            let is_ours = matches!(drift.remedy(), Remedy::Pin | Remedy::Load);
            is_check.is_some() && drift.is_fault() && is_ours
        });
        if let Some(last) = repaired.last() {
            self.repairs += u64::try_from(repaired.len()).expect("a few");
            self.last = wire::bounded(&last.to_string(), MAX_SHOWN_BYTES);
        }
        match is_check {
            Some(remedy) if self.open.iter().any(|drift| drift.remedy() == remedy) => {
                self.pace.failed(now);
            }
            Some(_) => self.pace.granted(),
            None => {}
        }
        News { appeared, repaired, gone }
    }

    /// A repair could not even begin.
    pub fn failed(&mut self, now: Duration) {
        self.pace.failed(now);
    }

    /// What to try at `now`, if anything: pins come first, because the loader finds what is there
    /// by them.
    #[must_use]
    pub fn remedy(&self, now: Duration) -> Option<Remedy> {
        let open = |remedy| self.open.iter().any(|drift| drift.remedy() == remedy);
        // Where there is no cgroup there is nothing to attach to.
        let can_load = !self.open.contains(&Drift::CgroupMissing);
        match self.pace.next() <= now {
            true if open(Remedy::Pin) => Some(Remedy::Pin),
            true if open(Remedy::Load) && can_load => Some(Remedy::Load),
            _ => None,
        }
    }

    /// As it is shown. What is merely left alone is in the log and not here.
    #[must_use]
    pub fn shown(&self) -> DriftStatus {
        let amiss = self.open.iter().filter(|drift| drift.remedy() != Remedy::LeaveAlone);
        DriftStatus {
            audits: self.audits,
            repairs: self.repairs,
            last: self.last.clone(),
            open: amiss
                .take(MAX_SHOWN)
                .map(|drift| wire::bounded(&drift.to_string(), MAX_SHOWN_BYTES))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::manifest::Kind;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn pin(name: &str) -> Drift {
        Drift::Pin { kind: Kind::Map, name: name.to_owned(), is_taken: false }
    }

    fn detached() -> Drift {
        Drift::Detached("hf_connect4".to_owned())
    }

    fn foreign() -> Drift {
        Drift::Foreign { hook: "h".to_owned(), program: 5, name: "p".to_owned() }
    }

    #[test]
    fn a_difference_is_news_once_and_its_repair_too() {
        let mut book = Book::new(7);
        let found = vec![pin("A"), foreign()];
        assert_eq!(book.note(found.clone(), None, S(1)).appeared, found);
        assert_eq!(book.note(found, None, S(2)), News::default());
        assert_eq!(book.shown().open, [pin("A").to_string()], "what is foreign is not amiss");
        let news = book.note(vec![foreign()], Some(Remedy::Pin), S(3));
        assert_eq!(news, News { repaired: vec![pin("A")], ..News::default() });
        let shown = book.shown();
        assert_eq!((shown.audits, shown.repairs, shown.open.len()), (3, 1, 0));
        assert_eq!(shown.last, pin("A").to_string());
    }

    #[test]
    fn what_goes_by_itself_is_no_repair() {
        let mut book = Book::new(7);
        book.note(vec![detached()], None, S(1));
        let news = book.note(vec![], None, S(2));
        assert_eq!(news.gone, [detached()]);
        book.note(vec![foreign()], None, S(3));
        let news = book.note(vec![], Some(Remedy::Load), S(4));
        assert_eq!((news.gone, book.shown().repairs), (vec![foreign()], 0));
    }

    #[test]
    fn pins_come_before_the_loader_and_a_missing_cgroup_keeps_it_away() {
        let mut book = Book::new(7);
        book.note(vec![detached(), pin("A")], None, S(1));
        assert_eq!(book.remedy(S(1)), Some(Remedy::Pin));
        book.note(vec![detached()], Some(Remedy::Pin), S(1));
        assert_eq!(book.remedy(S(1)), Some(Remedy::Load));
        book.note(vec![detached(), Drift::CgroupMissing], None, S(2));
        assert_eq!(book.remedy(S(2)), None);
        book.note(vec![foreign()], None, S(3));
        assert_eq!(book.remedy(S(3)), None);
    }

    #[test]
    fn what_cannot_be_repaired_is_tried_more_and_more_slowly() {
        let mut book = Book::new(7);
        book.note(vec![detached()], None, S(1));
        let mut tried = Vec::new();
        for second in 1..=300 {
            if book.remedy(S(second)).is_some() {
                tried.push(second);
                book.note(vec![detached()], Some(Remedy::Load), S(second));
            }
        }
        assert!((12..40).contains(&tried.len()), "{tried:?}");
        let pauses: Vec<u64> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.last() > pauses.first(), "{pauses:?}");
        book.note(vec![], Some(Remedy::Load), S(400));
        book.note(vec![detached()], None, S(401));
        assert_eq!(book.remedy(S(401)), Some(Remedy::Load), "a success forgets the failures");
    }

    #[test]
    fn counting_goes_on_where_it_ended() {
        let mut book = Book::new(7);
        book.note(vec![pin("A")], None, S(1));
        book.note(vec![], Some(Remedy::Pin), S(1));
        let resumed = Book::resumed(&book.shown(), 7);
        assert_eq!(resumed.shown(), book.shown());
    }
}
