//! G4: connections made before a restart keep their governance and never notice.

use crate::history::History;

/// No long connection broke, each carried bytes, no counter went back, and the kernel counted every
/// connection that arrived.
pub fn unnoticed(history: &History) -> Vec<String> {
    let mut complaints = Vec::new();
    for stream in &history.streams {
        let why = match (&stream.broken, stream.bytes) {
            (Some(why), _) => why.clone(),
            (None, 0) => "not one byte came back".to_owned(),
            (None, _) => continue,
        };
        complaints.push(format!("the long connection to {} broke: {why}", stream.address));
    }
    let counters = &history.counters;
    complaints.extend(counters.went_back.iter().map(|what| format!("a counter went back: {what}")));
    if counters.looks == 0 {
        complaints.push("the counters were never seen".to_owned());
    }
    let (tcp, udp) = (&history.connections.tcp, &history.connections.udp);
    let arrived = tcp.reached + tcp.misrouted + udp.reached + udp.misrouted;
    let arrived = arrived + history.streams.len() as u64;
    if counters.connections < arrived {
        let counted = counters.connections;
        complaints.push(format!("{arrived} connections arrived, but only {counted} are counted"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::breaks;

    #[test]
    fn whatever_is_lost_is_complained_of() {
        breaks("G4", |history| history.streams[0].broken = Some("a reset".to_owned()));
        breaks("G4", |history| history.streams[0].bytes = 0);
        breaks("G4", |history| history.counters.went_back.push("web: 5, then 4".to_owned()));
        breaks("G4", |history| history.counters.looks = 0);
        breaks("G4", |history| history.counters.connections = 100);
    }
}
