//! Errors in a configuration.

use holdfast_config::{Config, Diagnostic, Diagnostics};

use super::{BAD, FAINT, GOOD, HEADING, paint};

/// What a valid configuration has.
pub fn valid(config: &Config) -> String {
    let services = config.services.len();
    let endpoints: usize = config.services.iter().map(|service| service.endpoints.len()).sum();
    format!(
        "{}: {}, {}\n",
        paint(GOOD, "valid"),
        count(services, "service"),
        count(endpoints, "endpoint")
    )
}

/// Every error, with its line and a caret below it if `with_lines`.
pub fn invalid(errors: &Diagnostics, with_lines: bool) -> String {
    let mut text: String = errors.iter().map(|error| one(error, with_lines)).collect();
    if errors.omitted() > 0 {
        text.push_str(&format!("and {} more\n", errors.omitted()));
    }
    if with_lines {
        text.push_str(&format!("{}: {}\n", paint(BAD, "invalid"), count(errors.total(), "error")));
    }
    text
}

fn one(error: &Diagnostic, with_line: bool) -> String {
    let place = format!("{}:{}:{}:", error.file(), error.line(), error.column());
    let first = format!("{} {}\n", paint(HEADING, &place), error.message());
    match error.snippet() {
        Some((line, caret)) if with_line => {
            let number = error.line().to_string();
            let margin = paint(FAINT, &format!(" {number} |"));
            let below = paint(FAINT, &format!(" {} |", " ".repeat(number.len())));
            let blanks = " ".repeat(caret);
            format!("{first}{margin} {line}\n{below} {blanks}{}\n", paint(BAD, "^"))
        }
        _ => first,
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use holdfast_config::{Sources, parse};

    use super::*;

    #[test]
    fn an_error_shows_where_it_is() {
        let sources = Sources::single("web.yaml", "services:\n  - nam: web\n");
        let errors = parse(&sources).expect_err("`nam` is no key");
        let shown = strip_str(&invalid(&errors, true)).to_string();
        assert!(shown.contains("\n 2 |   - nam: web\n   |     ^\n"), "{shown}");
        assert!(shown.ends_with("invalid: 4 errors\n"), "{shown}");
        let plain = strip_str(&invalid(&errors, false)).to_string();
        let own: String = errors.iter().map(|error| format!("{error}\n")).collect();
        assert_eq!(plain, own);
    }
}
