//! What tests of the language have in common.

use holdfast_config::{Config, Sources, parse};

/// What `text` is understood as, or its errors with their places.
pub fn parse_text(text: &str) -> Result<Config, Vec<String>> {
    parse(&Sources::single("web.yaml", text)).map_err(|errors| {
        errors.iter().map(|e| format!("{}:{}: {}", e.line(), e.column(), e.message())).collect()
    })
}

/// Checks that the errors in `text` are those that start with `expected`, and no others.
#[track_caller]
pub fn check_text(text: &str, expected: &[&str]) {
    let found = parse_text(text).err().unwrap_or_default();
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(same, "\n--- text\n{text}\n--- expected\n{expected:#?}\n--- found\n{found:#?}");
}
