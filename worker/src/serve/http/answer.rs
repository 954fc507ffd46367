//! What a client is told.

use super::request::Refusal;

/// How an answer's body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Whole(usize),
    /// In chunks, so that an end that comes too early is noticed.
    Chunks,
    /// To the end of the connection, for a client that does not know chunks.
    ToTheEnd,
}

/// A status line's number and text.
pub type Status = (u16, &'static str);

/// Here it is.
pub const OK: Status = (200, "OK");
/// Not now.
pub const UNAVAILABLE: Status = (503, "Service Unavailable");

/// The type of `/healthz` and `/readyz`.
pub const JSON: &str = "application/json";
/// The type of what is said about a refusal.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The end of a body in chunks.
pub const LAST_CHUNK: &str = "0\r\n\r\n";

/// The head of an answer.
#[must_use]
pub fn head((number, text): Status, content_type: &str, framing: Framing) -> String {
    let length = match framing {
        Framing::Whole(bytes) => format!("Content-Length: {bytes}\r\n"),
        Framing::Chunks => "Transfer-Encoding: chunked\r\n".to_owned(),
        Framing::ToTheEnd => String::new(),
    };
    let allow = if number == METHOD_NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {number} {text}\r\nContent-Type: {content_type}\r\n{length}{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
}

/// A whole answer; without its body for `HEAD`.
#[must_use]
pub fn whole(status: Status, content_type: &str, body: &str, is_head: bool) -> String {
    let mut answer = head(status, content_type, Framing::Whole(body.len()));
    if !is_head {
        answer.push_str(body);
    }
    answer
}

/// A part of a body as it travels.
#[must_use]
pub fn part(text: &str, framing: Framing) -> String {
    match framing {
        Framing::Chunks => format!("{:x}\r\n{text}\r\n", text.len()),
        Framing::Whole(_) | Framing::ToTheEnd => text.to_owned(),
    }
}

const METHOD_NOT_ALLOWED: u16 = 405;

/// The answer to a request that is refused.
#[must_use]
pub fn refusal(refusal: Refusal) -> String {
    let (status, body) = match refusal {
        Refusal::Malformed => ((400, "Bad Request"), "this is not an HTTP/1.1 request\n"),
        Refusal::NotFound => ((404, "Not Found"), "there are /metrics, /healthz and /readyz\n"),
        Refusal::Method => {
            ((METHOD_NOT_ALLOWED, "Method Not Allowed"), "only GET and HEAD are answered\n")
        }
        Refusal::TooLarge => {
            ((431, "Request Header Fields Too Large"), "the head of the request is too large\n")
        }
        Refusal::TooSlow => ((408, "Request Timeout"), "the request took too long to arrive\n"),
    };
    whole(status, TEXT, body, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_says_how_long_it_is() {
        let answer = whole(OK, TEXT, "abc", false);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 3\r\n") && answer.ends_with("\r\n\r\nabc"));
        let head = whole(OK, TEXT, "abc", true);
        assert!(head.contains("\r\nContent-Length: 3\r\n") && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn chunks_say_how_long_they_are_in_hexadecimal() {
        assert_eq!(part(&"x".repeat(26), Framing::Chunks), format!("1a\r\n{}\r\n", "x".repeat(26)));
        assert_eq!(part("abc", Framing::ToTheEnd), "abc");
    }

    #[test]
    fn who_may_not_post_is_told_what_is_allowed() {
        assert!(refusal(Refusal::Method).contains("\r\nAllow: GET, HEAD\r\n"));
    }
}
