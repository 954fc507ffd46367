//! G5: uninstall leaves nothing.

use crate::history::History;

/// The census after the uninstall is the one before the start.
pub fn nothing_left(history: &History) -> Vec<String> {
    history.ending.leftovers.clone()
}

#[cfg(test)]
mod tests {
    use super::super::tests::breaks;

    #[test]
    fn whatever_is_left_is_complained_of() {
        breaks("G5", |history| history.ending.leftovers.push("a link".to_owned()));
    }
}
