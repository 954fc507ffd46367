//! The list of access policies.

use holdfast_protocol::control::PolicyRow;

use super::NOTABLE;
use super::table::{Cell, Column, Table};

/// One line for each policy.
pub fn policies(rows: &[PolicyRow]) -> String {
    if rows.is_empty() {
        return "no policies: every connection is allowed\n".to_owned();
    }
    let mut table = Table::new(&[
        Column::text("POLICY"),
        Column::text("DIRECTION"),
        Column::text("ACTION"),
        Column::text("DRY RUN"),
        Column::number("TERMS"),
        Column::number("DENIED"),
        Column::number("WOULD DENY"),
    ]);
    let count = |count: u64| if count > 0 { Cell::styled(NOTABLE, count) } else { Cell::new(0) };
    for row in rows {
        table.push([
            Cell::new(&row.policy),
            Cell::new(&row.direction),
            Cell::new(&row.action),
            Cell::new(if row.dry_run { "yes" } else { "no" }),
            Cell::new(row.terms),
            count(row.denied),
            count(row.would_deny),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn policies_line_up() {
        let row = PolicyRow {
            policy: "no-db".to_owned(),
            direction: "inbound".to_owned(),
            action: "deny".to_owned(),
            dry_run: true,
            terms: 3,
            denied: 0,
            would_deny: 12,
        };
        assert_eq!(
            strip_str(&policies(&[row])).to_string(),
            "\
POLICY  DIRECTION  ACTION  DRY RUN  TERMS  DENIED  WOULD DENY
no-db   inbound    deny    yes          3       0          12
"
        );
    }
}
