//! G2: connections made during a restart are governed.

use crate::history::{History, MAX_INCIDENTS, Trouble};

/// No new connection failed, was refused, reset or left to itself.
pub fn governed(history: &History) -> Vec<String> {
    let troubles = [
        (Trouble::Failed, "connections failed"),
        (Trouble::Ungoverned, "connections were not governed"),
        (Trouble::Reset, "connections were reset"),
    ];
    let mut complaints: Vec<String> = troubles
        .into_iter()
        .filter_map(|(trouble, what)| super::complain(what, history.inexcusable(trouble)))
        .collect();
    let kinds = troubles.map(|(trouble, _)| trouble);
    complaints.extend(undescribed(history, &kinds));
    if history.connections.all() == 0 {
        complaints.push("there was no connection at all".to_owned());
    }
    complaints
}

/// What was counted but is not described cannot be excused.
pub fn undescribed(history: &History, troubles: &[Trouble]) -> Option<String> {
    let connections = &history.connections;
    let counted: u64 =
        troubles.iter().map(|it| connections.tcp.of(*it) + connections.udp.of(*it)).sum();
    let described = connections.incidents.iter().filter(|it| troubles.contains(&it.trouble));
    let excused: u64 = troubles.iter().filter_map(|it| connections.excused.get(it)).sum();
    let missing = counted.saturating_sub(described.count() as u64 + excused);
    (missing > 0)
        .then(|| format!("{missing} more went wrong than the {MAX_INCIDENTS} that are described"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{breaks, suffer};
    use super::*;

    #[test]
    fn each_trouble_is_complained_of() {
        for trouble in [Trouble::Failed, Trouble::Ungoverned, Trouble::Reset] {
            breaks("G2", |history| suffer(history, trouble));
        }
    }
}
