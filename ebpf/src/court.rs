//! Where access policies are judged: the maps they are in, and the process that connects.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::client::Clients as _;
use holdfast_ebpf::decide::{EAGAIN, EPERM, Inquiry, Verdict};
use holdfast_ebpf::policy::{
    self, Cells, Court, Policies, Request, Ruling, Section, Vectors, sentence,
};
use holdfast_protocol::kernel::HeadWord;
use holdfast_protocol::kernel::event::kind;
use holdfast_protocol::kernel::rules::{self, Cell, ImageHeader, PolicyCounters};

use crate::caller::Caller;
use crate::maps::{self, MAPPED};
use crate::precedents::{self, hf_recall, hf_set_precedent};
use crate::telling;

#[btf_map]
static POLICY_HEAD: Array<u64, { rules::HEADS as usize }, MAPPED> = Array::new();
#[btf_map]
static POLICIES: Array<Cell, { rules::CELLS as usize }, MAPPED> = Array::new();
#[btf_map]
static POLICY_COUNTERS: PerCpuArray<PolicyCounters, { rules::POLICY_NUMBERS as usize }> =
    PerCpuArray::new();

/// Lets what was decided in `inquiry` be, or makes it fail for the access policies' sake. Whatever
/// would fail anyway is not judged.
#[inline(always)]
pub fn permit(caller: Caller, inquiry: &mut Inquiry) {
    let verdict = inquiry.decision.verdict;
    if (verdict != Verdict::Untouched && verdict != Verdict::Sent) || !sits() {
        return;
    }
    let ruling = policy::settle(&Chamber { caller, inquiry, cgroup: caller.cgroup() });
    let decision = &mut inquiry.decision;
    count(ruling);
    match ruling.sentence() {
        sentence::ALLOWED => {}
        sentence::WOULD_DENY => telling::tell(caller, inquiry, kind::WOULD_DENY, ruling.policy()),
        sentence::DENIED => {
            decision.verdict = Verdict::Denied;
            decision.errno = EPERM;
            telling::tell(caller, inquiry, kind::DENIED, ruling.policy());
        }
        _ => {
            decision.verdict = Verdict::Unsettled;
            decision.errno = EAGAIN;
        }
    }
}

/// Counts what a policy denied, or would have.
#[inline(always)]
pub fn count(ruling: Ruling) {
    let Some(counters) = POLICY_COUNTERS.get_ptr_mut(ruling.policy()) else {
        // No policy had anything to say.
        return;
    };
    // SAFETY: `counters` was looked up in this run, and each pointer is to a field of it.
    unsafe {
        match ruling.sentence() {
            sentence::DENIED => maps::add(&raw mut (*counters).denied, 1),
            _ => maps::add(&raw mut (*counters).dry_run, 1),
        }
    }
}

/// Whether any access policies are in force.
#[inline(always)]
pub fn sits() -> bool {
    head().slot() != 0
}

/// Which policies are in force.
#[inline(always)]
pub fn head() -> HeadWord {
    let Some(head) = POLICY_HEAD.get_ptr(0) else {
        // An array has its elements.
        return HeadWord::UNPUBLISHED;
    };
    // SAFETY: an array's values stay mapped. A writer stores the word meanwhile, hence one volatile
    // load of 8 bytes.
    HeadWord(unsafe { head.read_volatile() })
}

/// Where the directions of the policies in force are, as [`ImageHeader::DIRECTIONS`] says it; `None` without
/// policies.
#[inline(always)]
pub fn directions() -> Option<u64> {
    let image = head().slot();
    if image == 0 { None } else { Some(cell(image)?[ImageHeader::DIRECTIONS]) }
}

/// Whether any policy is about what arrives.
#[inline(always)]
pub fn judges_arrivals() -> bool {
    directions().is_some_and(|directions| ImageHeader::arriving(directions) != 0)
}

/// The cell at `index`; `None` if there is no such cell.
#[inline(always)]
pub fn cell(index: u32) -> Option<Cell> {
    let cell = POLICIES.get_ptr(index)?;
    // SAFETY: as in `head`, with one load for each of the cell's two words.
    unsafe {
        Some([(&raw const (*cell)[0]).read_volatile(), (&raw const (*cell)[1]).read_volatile()])
    }
}

/// Where this inquiry of this caller is judged.
struct Chamber<'a> {
    caller: Caller,
    inquiry: &'a Inquiry,
    cgroup: u64,
}

impl Court for Chamber<'_> {
    #[inline(always)]
    fn head(&self) -> HeadWord {
        head()
    }

    #[inline(always)]
    fn judge(&self, image: u32) -> Ruling {
        Ruling(hf_judge(self.caller.context(), self.inquiry, image, self.cgroup))
    }

    #[inline(always)]
    fn recall(&self, head: HeadWord) -> Option<Ruling> {
        match hf_recall(self.caller.context(), self.inquiry, head.0, self.cgroup) {
            precedents::NONE => None,
            ruling => Some(Ruling(ruling)),
        }
    }

    #[inline(always)]
    fn keep(&self, head: HeadWord, ruling: Ruling) {
        hf_set_precedent(self.caller.context(), self.inquiry, head.0, self.cgroup, ruling.0);
    }
}

/// Whose cgroup is asked for.
pub trait Workload {
    /// The id of its cgroup at `level` below the root; 0 if it is not as deep.
    fn cgroup(&self, level: u32) -> u64;
}

/// The process that makes the system call acts, whoever made the socket.
struct Process;

impl Workload for Process {
    #[inline(always)]
    fn cgroup(&self, level: u32) -> u64 {
        Caller::ancestor(level)
    }
}

/// The cells, and a workload.
pub struct Code<W>(pub W);

impl<W> Cells for Code<W> {
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<Cell> {
        cell(index)
    }
}

impl<W: Workload> Policies for Code<W> {
    #[inline(always)]
    fn cgroup(&self, level: u32) -> u64 {
        self.0.cgroup(level)
    }

    #[inline(always)]
    fn find(&self, section: Section, value: u64) -> u32 {
        hf_find(section.start, section.entries, value) as u32
    }

    #[inline(always)]
    fn find6(&self, section: Section, upper: u64, lower: u64) -> u32 {
        hf_find6(section.start, section.entries, upper, lower) as u32
    }

    #[inline(always)]
    fn matches(&self, vectors: &mut Vectors, word: u32) -> u64 {
        hf_matches(vectors, word)
    }
}

/// What [`Section::find`] says.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_find(start: u32, entries: u32, value: u64) -> u64 {
    u64::from(Section { start, entries }.find(&Code(Process), value))
}

/// What [`Section::find6`] says.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_find6(start: u32, entries: u32, upper: u64, lower: u64) -> u64 {
    u64::from(Section { start, entries }.find6(&Code(Process), upper, lower))
}

/// What [`Vectors::matches`] says.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_matches(vectors: *mut Vectors, word: u32) -> u64 {
    // SAFETY: as in `hf_judge`.
    unsafe { vectors.as_mut() }.map_or(0, |vectors| vectors.matches(&Code(Process), word))
}

/// What is judged of what was decided in `inquiry`, of a process in this cgroup.
#[inline(always)]
pub fn request(caller: Caller, inquiry: &Inquiry, cgroup: u64) -> Request<'_> {
    let Inquiry { key, decision, .. } = inquiry;
    let is_sent = decision.verdict == Verdict::Sent;
    let (endpoint, endpoint_port_be) = if is_sent {
        (&decision.endpoint.address, decision.endpoint.port_be)
    } else {
        (&key.address, key.port_be)
    };
    let (asked, asked_port_be, local) = (&key.address, key.port_be, caller.bound());
    Request { asked, endpoint, local, cgroup, asked_port_be, endpoint_port_be }
}

/// What the policies of `image` say about what was decided in `inquiry`, of a process in this cgroup: a [`Ruling`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_judge(
    context: *mut bpf_sock_addr,
    inquiry: *const Inquiry,
    image: u32,
    cgroup: u64,
) -> u64 {
    // SAFETY: programs pass what the kernel has passed them, and an inquiry of their own; the verifier
    // knows the size of what the pointer leads to.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_ref()) };
    let Some(inquiry) = inquiry else { return Ruling::UNSETTLED.0 };
    policy::judge(&Code(Process), image, &request(caller, inquiry, cgroup)).0
}
