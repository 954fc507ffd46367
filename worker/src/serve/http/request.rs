//! What a client asks, by the head of its request.

/// Longest head that is read: a scraper's is below 1 KiB, and 8 KiB is what servers commonly take.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most fields of a head; a scraper sends six.
const MAX_FIELDS: usize = 64;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
    /// `/readyz`
    Readiness,
}

/// A request that is answered with what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub target: Target,
    /// Whether it wants the answer without its body.
    pub is_head: bool,
    /// Whether the client knows HTTP/1.1: chunks.
    pub is_modern: bool,
}

/// Why a request is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP/1.0 or HTTP/1.1.
    Malformed,
    /// Another path.
    NotFound,
    /// A method that changes something.
    Method,
    /// The head is longer, or has more fields, than anybody needs.
    TooLarge,
    /// The head took too long to arrive.
    TooSlow,
}

/// What `head` asks; `None` when its end is not there yet.
///
/// # Errors
///
/// [`Refusal`], also of a head whose end will not matter any more.
pub fn parse(head: &[u8]) -> Result<Option<Request>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() >= MAX_HEAD_BYTES => {
            return Err(Refusal::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(_) => return Err(Refusal::Malformed),
    }
    let target = match path(request.path.unwrap_or_default()) {
        "/metrics" => Target::Metrics,
        "/healthz" => Target::Health,
        "/readyz" => Target::Readiness,
        _ => return Err(Refusal::NotFound),
    };
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refusal::Method),
    };
    Ok(Some(Request { target, is_head, is_modern: request.version == Some(1) }))
}

/// The path of a request's target, which may be a whole URI (RFC 9112, section 3.2.2).
fn path(target: &str) -> &str {
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expected: Result<Option<Request>, Refusal>) {
        assert_eq!(parse(head.as_bytes()), expected, "{head:?}");
    }

    #[test]
    fn what_is_asked_is_understood() {
        let get = |target| Ok(Some(Request { target, is_head: false, is_modern: true }));
        check("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", get(Target::Metrics));
        check("GET /metrics?name[]=up HTTP/1.1\r\n\r\n", get(Target::Metrics));
        check("GET http://x:9150/readyz HTTP/1.1\r\n\r\n", get(Target::Readiness));
        let head = Request { target: Target::Health, is_head: true, is_modern: false };
        check("HEAD /healthz HTTP/1.0\r\n\r\n", Ok(Some(head)));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        check("GET / HTTP/1.1\r\n\r\n", Err(Refusal::NotFound));
        check("GET http://x HTTP/1.1\r\n\r\n", Err(Refusal::NotFound));
        check("GET /metrics/ HTTP/1.1\r\n\r\n", Err(Refusal::NotFound));
        check("POST /metrics HTTP/1.1\r\n\r\n", Err(Refusal::Method));
        check("\u{16}\u{3}\u{1}", Err(Refusal::Malformed));
        check("GET /metrics HTTP/2.0\r\n\r\n", Err(Refusal::Malformed));
        check("GET /metrics HTTP/1.1\r\nHost x\r\n\r\n", Err(Refusal::Malformed));
        let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
        check(&format!("GET /metrics HTTP/1.1\r\n{many}\r\n"), Err(Refusal::TooLarge));
    }

    #[test]
    fn a_head_is_waited_for_until_it_is_too_long() {
        check("", Ok(None));
        check("GET /metrics HTTP/1.1\r\nHost: x\r\n", Ok(None));
        let long = format!("GET /metrics HTTP/1.1\r\na: {}", "b".repeat(MAX_HEAD_BYTES));
        check(&long, Err(Refusal::TooLarge));
    }
}
