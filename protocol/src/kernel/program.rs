//! Names of the kernel programs, as they stand in the object file; each is also its link's name.

/// `connect(2)` of an IPv4 socket.
pub const CONNECT4: &str = "hf_connect4";
/// `connect(2)` of an IPv6 socket, IPv4-mapped addresses included.
pub const CONNECT6: &str = "hf_connect6";
/// `getpeername(2)` of an IPv4 socket.
pub const GETPEERNAME4: &str = "hf_getpeername4";
/// `getpeername(2)` of an IPv6 socket.
pub const GETPEERNAME6: &str = "hf_getpeername6";
/// A datagram to an IPv4 address, IPv4-mapped ones of IPv6 sockets included.
pub const SENDMSG4: &str = "hf_sendmsg4";
/// A datagram to an IPv6 address that is not IPv4-mapped.
pub const SENDMSG6: &str = "hf_sendmsg6";
/// The source of a datagram that an IPv4 socket receives.
pub const RECVMSG4: &str = "hf_recvmsg4";
/// The source of a datagram that an IPv6 socket receives.
pub const RECVMSG6: &str = "hf_recvmsg6";
/// What happens to a TCP socket after `connect(2)`.
pub const SOCK_OPS: &str = "hf_sock_ops";
/// `close(2)` of the last descriptor of a socket.
pub const SOCK_RELEASE: &str = "hf_sock_release";

/// A packet that arrives at a socket.
pub const INGRESS: &str = "hf_ingress";

/// Every program of the estate, in the order they are attached. Those that tell a client the
/// address it asked for come first, so that nothing is translated one way only; and nothing is
/// before its end can be counted.
pub const ALL: [&str; 11] = [
    GETPEERNAME4,
    GETPEERNAME6,
    RECVMSG4,
    RECVMSG6,
    SOCK_OPS,
    SOCK_RELEASE,
    CONNECT4,
    CONNECT6,
    SENDMSG4,
    SENDMSG6,
    INGRESS,
];
