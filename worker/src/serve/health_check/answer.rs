//! What is asked over HTTP, and what the answer says. Pure.

use std::net::SocketAddr;

use holdfast_config::Http;

use super::target::Outcome;

/// Most bytes of an answer up to the end of its first line. The longest that is registered is below 50;
/// servers add nothing of their own but a phrase.
pub const MAX_STATUS_LINE_BYTES: usize = 512;

/// What is sent to `address`.
#[must_use]
pub fn request(http: &Http, address: SocketAddr) -> String {
    let own = address.to_string();
    let (path, host) = (&http.path, http.host.as_ref().unwrap_or(&own));
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: holdfast/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
}

/// What an answer that begins with `bytes` means; `None` when it takes more of it to tell. Nothing comes
/// behind them if it `has_ended`.
#[must_use]
pub fn outcome(http: &Http, bytes: &[u8], has_ended: bool) -> Option<Outcome> {
    let failed = |reason: &str| Some(Outcome::Failed(reason.to_owned()));
    // How much comes at once makes no difference.
    let mut line = bytes.iter().take(MAX_STATUS_LINE_BYTES);
    let Some(end) = line.position(|byte| *byte == b'\n') else {
        return match bytes {
            _ if bytes.len() >= MAX_STATUS_LINE_BYTES => {
                failed("answered something else than HTTP")
            }
            [] if has_ended => failed("closed without an answer"),
            _ if has_ended => failed("answered something else than HTTP"),
            _ => None,
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let head = [line, b"\r\n\r\n"].concat();
    let mut response = httparse::Response::new(&mut []);
    let status = match response.parse(&head) {
        Ok(httparse::Status::Complete(_)) => response.code,
        Ok(httparse::Status::Partial) | Err(_) => None,
    };
    match status {
        Some(status) if http.expects(status) => Some(Outcome::Passed),
        Some(status) => Some(Outcome::Failed(format!("answered {status}"))),
        None => failed("answered something else than HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> Http {
        Http { path: "/live".to_owned(), host: None, expected_statuses: vec![200..=204] }
    }

    #[test]
    fn a_request_names_what_is_asked_for() {
        let address = "[fd00::1]:8080".parse().expect("an address");
        let text = request(&http(), address);
        assert!(text.starts_with("GET /live HTTP/1.1\r\nHost: [fd00::1]:8080\r\n"), "{text}");
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
        let named = Http { host: Some("web.example".to_owned()), ..http() };
        assert!(request(&named, address).contains("\r\nHost: web.example\r\n"));
    }

    #[test]
    fn the_first_line_decides_as_soon_as_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let end = b"HTTP/1.1 200 OK\r\n".len();
        for length in 0..whole.len() {
            let expected = (length >= end).then_some(Outcome::Passed);
            assert_eq!(outcome(&http(), &whole[..length], false), expected, "{length}");
        }
        for accepted in ["HTTP/1.0 204 No Content\n", "HTTP/1.1 201\r\n", "HTTP/1.1 200 \r\n"] {
            assert_eq!(outcome(&http(), accepted.as_bytes(), true), Some(Outcome::Passed));
        }
    }

    #[test]
    fn anything_else_is_a_failure_in_a_few_words() {
        let junk = [b'a'; MAX_STATUS_LINE_BYTES];
        let no_http = "answered something else than HTTP";
        for (bytes, reason) in [
            (&b"HTTP/1.1 503 Service Unavailable\r\n"[..], "answered 503"),
            (b"HTTP/1.1 302 Found\r\n", "answered 302"),
            (b"red\n", no_http),
            (b"HTTP/2 200\r\n", no_http),
            (b"HTTP/1.1 2000 OK\r\n", no_http),
            (b"HTTP/1.1 20", no_http),
            (b"\n", no_http),
            (&junk, no_http),
            (b"", "closed without an answer"),
        ] {
            let found = outcome(&http(), bytes, true);
            assert_eq!(found, Some(Outcome::Failed(reason.to_owned())), "{bytes:?}");
        }
        assert_eq!(outcome(&http(), &junk[1..], false), None);
    }
}
