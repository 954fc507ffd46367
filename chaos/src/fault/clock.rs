//! The wall clock that a process reads is shifted, while the machine's stays right.
//!
//! `CLOCK_REALTIME` is one for the whole machine and no namespace has its own (`time_namespaces(7)`
//! covers the monotonic clocks). But a process reads it through code that the kernel maps into it,
//! the vDSO (`vdso(7)`), and that page is private to the process once somebody writes to it, as
//! debuggers do. So `clock_gettime` there is made to ask the kernel and add an offset to the answer.
//! The process really sees its clock jump, in the middle of its life, and nobody else does.
//!
//! The monotonic clock cannot be shifted by anybody, so it is not shifted here; that it seems to
//! jump forward is what a paused supervisor sees.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use holdfast_lab::process::{self, Process};
use holdfast_lab::wait::within;
use nix::sys::signal::Signal;

use super::inject::{FaultError, Guard, Injection, PATIENCE};
use crate::run::stage::Stage;

/// The function to change.
const FUNCTION: &[u8] = b"__vdso_clock_gettime";

/// `jmp rel32`, which replaces the function's first bytes.
const JUMP_BYTES: usize = 5;

/// What is jumped to: asks the kernel, and adds to the seconds of `CLOCK_REALTIME` (0) and
/// `CLOCK_REALTIME_COARSE` (5) what is at [`OFFSET_AT`].
const SHIFTED: [u8; 34] = [
    0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, SYS_clock_gettime
    0x0f, 0x05, // syscall
    0x85, 0xc0, // test eax, eax
    0x75, 0x16, // jnz the end
    0x85, 0xff, // test edi, edi
    0x74, 0x05, // jz the addition
    0x83, 0xff, 0x05, // cmp edi, 5
    0x75, 0x0d, // jnz the end
    0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, // mov rcx, the offset
    0x48, 0x01, 0x0e, // add [rsi], rcx
    0xc3, // ret
];

/// Where in [`SHIFTED`] the offset is.
const OFFSET_AT: usize = 22;

/// Size of a symbol in an ELF64 file, and where in it the name and the value are.
const SYMBOL_BYTES: usize = 24;
const SYMBOL_VALUE_AT: usize = 8;

/// Entry of an ELF64 dynamic section, and the tags that are looked for.
const DYNAMIC_BYTES: usize = 16;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;

/// A process whose clock is shifted. It is right again when dropped.
struct Patched {
    process: Process,
    entry: u64,
    original: [u8; JUMP_BYTES],
    jump: [u8; JUMP_BYTES],
}

impl Guard for Vec<Patched> {}

impl Drop for Patched {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ended = still(&self.process, 0..0, |memory| {
            let mut there = [0; JUMP_BYTES];
            memory.read_exact_at(&mut there, self.entry)?;
            // One that has executed another binary meanwhile has a memory of its own.
            if there == self.jump {
                memory.write_all_at(&self.original, self.entry)?;
            }
            Ok(())
        });
    }
}

/// Shifts the clocks of the supervisor and of its workers by `seconds`.
pub fn shift<'s>(stage: &Stage<'_>, seconds: i64) -> Result<Injection<'s>, FaultError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(FaultError::Unsupported("the code is written for x86-64 only".to_owned()));
    }
    let mut shifted = Vec::new();
    for pid in stage.processes() {
        // One that is about to end has no memory any more, and one that executes a binary another.
        let patched = within(PATIENCE, "its clock to be shifted", || {
            match Process::open(pid).map_err(io::Error::other).and_then(|it| patch(it, seconds)) {
                Ok(patched) => Ok(Some(patched)),
                Err(_) if !process::is_alive(pid) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let patched = patched.map_err(|error| {
            let action = format!("shift the clock of process {pid}");
            FaultError::System { action, source: io::Error::other(error) }
        })?;
        shifted.extend(patched);
    }
    if shifted.is_empty() {
        return Err(FaultError::NoTarget("no process runs"));
    }
    let note = format!("{seconds} s, {} processes", shifted.len());
    Ok(Injection::held(shifted, note))
}

fn patch(process: Process, seconds: i64) -> io::Result<Patched> {
    let vdso = find(process.pid())?;
    let memory = open(process.pid())?;
    let mut image = vec![0; usize::try_from(vdso.end - vdso.start).map_err(io::Error::other)?];
    memory.read_exact_at(&mut image, vdso.start)?;
    let entry = function(&image).ok_or_else(|| io::Error::other("the vDSO has no clock"))?;
    let room = image.len() - SHIFTED.len();
    let original = image.get(entry..entry + JUMP_BYTES).and_then(|bytes| bytes.try_into().ok());
    let original = original.ok_or_else(|| io::Error::other("the vDSO's clock is cut off"))?;
    // What an earlier shift has left is as good as room.
    let is_free = image[room..].iter().all(|byte| *byte == 0)
        || image[room..].starts_with(&SHIFTED[..OFFSET_AT]);
    if entry + JUMP_BYTES > room || !is_free {
        return Err(io::Error::other("there is no room at the vDSO's end"));
    }
    let mut code = SHIFTED;
    code[OFFSET_AT..OFFSET_AT + size_of::<i64>()].copy_from_slice(&seconds.to_le_bytes());
    let distance = i32::try_from(room - entry - JUMP_BYTES).map_err(io::Error::other)?;
    let mut jump = [0xe9; JUMP_BYTES];
    jump[1..].copy_from_slice(&distance.to_le_bytes());
    let entry = vdso.start + entry as u64;
    still(&process, entry..entry + JUMP_BYTES as u64, |memory| {
        memory.write_all_at(&code, vdso.start + room as u64)?;
        memory.write_all_at(&jump, entry)
    })?;
    Ok(Patched { process, entry, original, jump })
}

/// Changes the memory of a process while it stands still outside of `code`.
fn still(
    process: &Process,
    code: std::ops::Range<u64>,
    change: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let memory = open(process.pid())?;
    let stopped = within(PATIENCE, "the process to stand still", || {
        process.signal(Signal::SIGSTOP)?;
        stands_outside(process.pid(), &code).inspect_err(|_| {
            // It moves on, so that it stands elsewhere the next time.
            let _ended = process.signal(Signal::SIGCONT);
        })
    });
    let changed = stopped.map_err(io::Error::other).and_then(|()| change(&memory));
    process.signal(Signal::SIGCONT)?;
    changed
}

/// `Ok` when every thread is stopped, with its program counter outside of `code`
/// (`/proc/PID/task/TID/syscall`, proc(5)).
fn stands_outside(pid: u32, code: &std::ops::Range<u64>) -> io::Result<()> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("syscall"))?;
        let counter = text
            .split_whitespace()
            .next_back()
            .and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        match counter {
            Some(counter) if !code.contains(&counter) => {}
            _ => return Err(io::Error::other(format!("a thread does not: {}", text.trim()))),
        }
    }
    Ok(())
}

fn open(pid: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))
}

/// Where the vDSO is in the process.
fn find(pid: u32) -> io::Result<std::ops::Range<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let place = maps.lines().find_map(|line| {
        let (range, _) = line.strip_suffix("[vdso]")?.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some(hex(start)?..hex(end)?)
    });
    place.ok_or_else(|| io::Error::other("the process has no vDSO"))
}

/// Offset of the clock's function in the image of a vDSO, by its dynamic symbols (`elf(5)`).
fn function(image: &[u8]) -> Option<usize> {
    let word = |at: usize, bytes: usize| -> Option<u64> {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(image.get(at..at + bytes)?);
        Some(u64::from_le_bytes(word))
    };
    let place = |at: usize| word(at, 8).and_then(|value| usize::try_from(value).ok());
    const PT_DYNAMIC: u64 = 2;
    let (table, size, count) = (place(32)?, word(54, 2)?, word(56, 2)?);
    let headers = (0..count).map(|n| table + usize::try_from(n * size).unwrap_or(usize::MAX));
    let dynamic =
        headers.filter(|at| word(*at, 4) == Some(PT_DYNAMIC)).find_map(|at| place(at + 8))?;
    let tagged = |tag: u64| {
        let entries = (dynamic..image.len()).step_by(DYNAMIC_BYTES);
        entries.take_while(|at| word(*at, 8) != Some(0)).find(|at| word(*at, 8) == Some(tag))
    };
    let (names, symbols) = (place(tagged(DT_STRTAB)? + 8)?, place(tagged(DT_SYMTAB)? + 8)?);
    // The names follow the symbols, so that is where those end.
    (symbols..names).step_by(SYMBOL_BYTES).find_map(|at| {
        let name = names + usize::try_from(word(at, 4)?).ok()?;
        let found = image.get(name..name + FUNCTION.len() + 1)?;
        let is_it = found.strip_prefix(FUNCTION) == Some(b"\0");
        is_it.then(|| place(at + SYMBOL_VALUE_AT)).flatten()
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    const YEAR_S: i64 = 365 * 24 * 60 * 60;

    /// Tells the copy of this test that it is the one whose clock is shifted.
    const SHIFTED_ONE: &str = "HOLDFAST_CHAOS_SHIFTED";

    fn clock_s() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        since.as_secs().cast_signed()
    }

    /// Says what time it is whenever it is asked.
    fn tell_the_time() {
        for _ in io::stdin().lines() {
            eprintln!("{}", clock_s());
        }
    }

    #[test]
    fn a_process_sees_its_clock_jump_and_jump_back_and_nobody_else_does() {
        if std::env::var_os(SHIFTED_ONE).is_some() {
            return tell_the_time();
        }
        let test = "fault::clock::tests::\
                    a_process_sees_its_clock_jump_and_jump_back_and_nobody_else_does";
        let mut child = Command::new(std::env::current_exe().expect("this test's binary"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(SHIFTED_ONE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs already");
        let mut asks = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stderr.take().expect("it is piped"));
        // Its standard output is the harness's.
        let mut answers = answers.lines();
        let mut seen = || -> i64 {
            writeln!(asks, "?").expect("it reads");
            let answer = answers.next().expect("it answers").expect("text");
            answer.parse().expect("seconds")
        };
        assert!((seen() - clock_s()).abs() < 60);
        for seconds in [YEAR_S, -YEAR_S] {
            let process = Process::open(child.id()).expect("it runs");
            let patched = patch(process, seconds).expect("its memory is ours to write");
            assert!((seen() - clock_s() - seconds).abs() < 60, "{seconds}");
            drop(patched);
            assert!((seen() - clock_s()).abs() < 60, "it is right again");
        }
        drop(asks);
        child.wait().expect("it ends with its input");
    }
}
