//! The ways out. What an attempt needs from before is made while still root.

use std::ffi::{CString, c_long, c_void};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::ptr;

use holdfast_bpf::link;
use holdfast_lab::pass;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};

/// One way out. That it returns is success: an error is what stopped it.
pub type Attempt = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// `enum bpf_cmd`.
const MAP_CREATE: c_long = 0;
const ARRAY: u32 = 2;
const CGROUP_INET4_CONNECT: u32 = 10;

/// A program that is everywhere and does nothing.
const PROGRAM: &str = "/bin/true";

/// Something readable to all.
const OUTSIDE: &str = "/etc/passwd";

/// Prepares the attempt called `name`; `place` says where: a path, a process or a port.
pub fn prepare(name: &str, place: &str) -> Attempt {
    let (place, path) = (place.to_owned(), PathBuf::from(place));
    let number = place.parse::<i32>().unwrap_or(-1);
    match name {
        "create-map" => Box::new(|| create_map().map(drop)),
        "load-program" => Box::new(|| load_program().map(drop)),
        "detach-link" => {
            let cgroup = File::open(path).expect("the cgroup");
            let program = load_program().expect("root may load programs");
            let link = link::create(program.as_fd(), cgroup.as_fd(), CGROUP_INET4_CONNECT)
                .expect("root may attach");
            Box::new(move || link::detach(link.as_fd()).map_err(|error| error.source))
        }
        "read-outside" => Box::new(|| fs::read(OUTSIDE).map(drop)),
        "read-memory-file" => Box::new(move || File::open(format!("/proc/{place}/mem")).map(drop)),
        "create-file" => Box::new(move || File::create(path.join("new")).map(drop)),
        "overwrite" => Box::new(move || OpenOptions::new().write(true).open(path).map(drop)),
        "remove" => Box::new(move || fs::remove_file(path)),
        "execute" => Box::new(execute),
        "fork" => Box::new(|| clone(libc::SIGCHLD)),
        "start-thread" => Box::new(|| std::thread::Builder::new().spawn(|| ()).map(drop)),
        "make-code" => Box::new(make_code),
        "trace" => Box::new(move || trace(number)),
        "read-memory" => Box::new(move || read_memory(number)),
        // It does nothing to a process that is not stopped.
        "signal" => Box::new(move || check(unsafe_call(libc::SYS_kill, number, libc::SIGCONT))),
        "open-process" => Box::new(move || check(unsafe_call(libc::SYS_pidfd_open, number, 0))),
        "connect-unix" => Box::new(|| UnixStream::connect(path).map(drop)),
        "connect-abstract" => Box::new(move || {
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(place)?).map(drop)
        }),
        "connect-tcp" => {
            Box::new(move || TcpStream::connect(format!("127.0.0.1:{place}")).map(drop))
        }
        "connect-as-checks-do" => Box::new(move || connect_as_checks_do(number.into())),
        "listen-tcp" => Box::new(|| TcpListener::bind("127.0.0.1:0").map(drop)),
        "mount" => Box::new(move || mount(&path)),
        "new-user-namespace" => Box::new(|| clone(libc::CLONE_NEWUSER | libc::SIGCHLD)),
        "become-root" => Box::new(|| check(unsafe_call(libc::SYS_setuid, 0, 0))),
        "io-uring" => Box::new(io_uring),
        "abort" => Box::new(|| std::process::abort()),
        unknown => panic!("no attempt is called {unknown}"),
    }
}

/// Without waiting for the answer, which a connection on loopback does not need.
fn connect_as_checks_do(port: c_long) -> io::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    let port = u16::try_from(port).expect("a port");
    match connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn check(answer: c_long) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A system call that takes two numbers.
fn unsafe_call(call: c_long, first: i32, second: i32) -> c_long {
    // SAFETY: the calls it is used for take no address.
    unsafe { libc::syscall(call, first, second) }
}

fn descriptor(answer: c_long) -> io::Result<OwnedFd> {
    check(answer)?;
    let raw = i32::try_from(answer).expect("descriptors are small");
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn create_map() -> io::Result<OwnedFd> {
    let attribute: [u32; 4] = [ARRAY, 4, 8, 1];
    // SAFETY: the kernel reads as many bytes as it is told from a live array.
    descriptor(unsafe {
        libc::syscall(libc::SYS_bpf, MAP_CREATE, attribute.as_ptr(), size_of_val(&attribute))
    })
}

fn load_program() -> io::Result<OwnedFd> {
    pass::program("escape", CGROUP_INET4_CONNECT, None)
}

/// Returns only when it fails; otherwise the program's status is this process's.
fn execute() -> io::Result<()> {
    let path = CString::new(PROGRAM).expect("no zero in it");
    let arguments = [path.as_ptr(), ptr::null()];
    // SAFETY: both lists are live and end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), arguments[1..].as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Starts a process that ends at once.
fn clone(flags: i32) -> io::Result<()> {
    // SAFETY: without a stack of its own the child goes on with a copy of this memory, as after
    // fork(2), and calls nothing but _exit.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: takes a number, and does not return.
        unsafe { libc::_exit(0) };
    }
    check(child)
}

fn make_code() -> io::Result<()> {
    let (size, protection) = (4096, libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address the kernel chooses, which nothing runs or refers to.
    unsafe {
        let page = libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED, "memory for data is there");
        let made = libc::mmap(ptr::null_mut(), size, protection | libc::PROT_EXEC, flags, -1, 0);
        let first = io::Error::last_os_error();
        let turned = libc::mprotect(page, size, libc::PROT_READ | libc::PROT_EXEC);
        // Either way is a way.
        if made == libc::MAP_FAILED && turned < 0 { Err(first) } else { Ok(()) }
    }
}

fn trace(process: i32) -> io::Result<()> {
    let nothing = ptr::null_mut::<c_void>();
    // SAFETY: this request takes neither address nor data.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, process, nothing, nothing) })
}

fn read_memory(process: i32) -> io::Result<()> {
    let mut here = [0_u8; 8];
    let local = libc::iovec { iov_base: here.as_mut_ptr().cast(), iov_len: here.len() };
    // The victim runs the same executable, but is placed elsewhere: only the right to look counts,
    // which the kernel checks before the address.
    let remote = libc::iovec { iov_base: ptr::null_mut(), iov_len: here.len() };
    // SAFETY: the local vector is live; the remote one is checked by the kernel.
    let answer =
        unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    match check(answer as c_long) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => other,
    }
}

fn mount(target: &std::path::Path) -> io::Result<()> {
    nix::mount::mount(
        Some("escape"),
        target,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .map_err(io::Error::from)
}

fn io_uring() -> io::Result<()> {
    /// Bytes of `struct io_uring_params`.
    const PARAMETERS: usize = 120;
    let mut parameters = [0_u8; PARAMETERS];
    // SAFETY: the kernel reads and writes that struct, which is live.
    let answer = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    descriptor(answer).map(drop)
}
