//! G9: what talks to the outside has no privilege.

use crate::history::{History, Rights};

/// No worker that was granted is root, has a capability in any set, or could gain one.
pub fn no_privilege(history: &History) -> Vec<String> {
    let grants = &history.processes.grants;
    let mut complaints: Vec<String> = grants
        .iter()
        .filter_map(|grant| {
            let rights = grant.rights.as_ref().filter(|rights| is_privileged(rights))?;
            Some(format!("worker {} of epoch {} has {rights:?}", grant.pid, grant.epoch))
        })
        .collect();
    if grants.iter().all(|grant| grant.rights.is_none()) {
        complaints.push("no worker's rights were ever seen".to_owned());
    }
    complaints
}

fn is_privileged(rights: &Rights) -> bool {
    rights.users.split(' ').any(|user| user == "0")
        || rights.capabilities.chars().any(|digit| !matches!(digit, '0' | ' '))
        || rights.no_new_privs != "1"
}

#[cfg(test)]
mod tests {
    use super::super::tests::breaks;
    use super::*;

    #[test]
    fn each_privilege_alone_is_complained_of() {
        let changes: [fn(&mut Rights); 3] = [
            |rights| rights.users = "65534 0 65534 65534".to_owned(),
            |rights| rights.capabilities.replace_range(3..4, "1"),
            |rights| rights.no_new_privs = "0".to_owned(),
        ];
        for change in changes {
            breaks("G9", |history| {
                change(history.processes.grants[1].rights.as_mut().expect("it was seen"));
            });
        }
        breaks("G9", |history| {
            history.processes.grants.iter_mut().for_each(|grant| grant.rights = None);
        });
    }
}
