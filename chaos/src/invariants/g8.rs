//! G8: never two writers.

use crate::history::History;

/// Most workers at any time: the one that serves, and the one that is about to.
const MOST_WORKERS: usize = 2;

/// Never more than two workers, never two processes that can write, and epochs that only grow, each
/// granted to one worker.
pub fn one_writer(history: &History) -> Vec<String> {
    let seen = &history.processes;
    let mut complaints = seen.two_writers.clone();
    complaints.extend(seen.oddities.iter().cloned());
    if seen.most_workers > MOST_WORKERS {
        complaints.push(format!("there were {} workers at one time", seen.most_workers));
    }
    if seen.looks == 0 || seen.grants.is_empty() {
        complaints.push("no worker was ever seen".to_owned());
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::breaks;

    #[test]
    fn a_second_writer_in_any_form_is_complained_of() {
        breaks("G8", |history| history.processes.two_writers.push("10 and 11".to_owned()));
        breaks("G8", |history| history.processes.oddities.push("epoch 3 after 4".to_owned()));
        breaks("G8", |history| history.processes.most_workers = 3);
        breaks("G8", |history| history.processes.looks = 0);
    }
}
