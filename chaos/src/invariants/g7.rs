//! G7: a writer that dies at any instruction leaves every service wholly old or wholly new, and the
//! next one repairs what leaked.

use crate::history::History;

/// After all faults, what is programmed is what the configuration says. (That no service was torn in
/// between shows in the connections: G2 and G3.)
pub fn whole(history: &History) -> Vec<String> {
    history.ending.differences.clone()
}

#[cfg(test)]
mod tests {
    use super::super::tests::breaks;

    #[test]
    fn a_difference_is_complained_of() {
        breaks("G7", |history| history.ending.differences.push("one too many".to_owned()));
    }
}
