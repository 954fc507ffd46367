//! How much work each program is to the kernel's verifier: a guard against growth that no clock of a
//! shared machine would show.
//!
//! The verifier walks every path of a program, so its count grows with loops and branches long before a
//! run takes measurably longer, and with it the time that a loader needs. It differs a little from
//! kernel to kernel; the bounds leave room for that.

use std::os::fd::AsFd;

use holdfast_bpf::object;
use holdfast_lab::isolated;
use holdfast_protocol::kernel::program;
use holdfast_protocol::manifest::Kind;

use crate::scene::Scene;

/// The most instructions that the verifier may look at, a quarter above what it looked at on Linux 6.18.
/// A change of a program that needs more says why, and moves its bound.
///
/// A look of `connect` does what follows from it, too, which saves three calls; and where policies are judged, two more
/// functions look for what was said before and keep it.
const BOUNDS: [(&str, u32); 11] = [
    (program::CONNECT4, 70_000),
    (program::CONNECT6, 70_000),
    (program::GETPEERNAME4, 120),
    (program::GETPEERNAME6, 120),
    (program::SENDMSG4, 49_000),
    (program::SENDMSG6, 49_000),
    (program::RECVMSG4, 350),
    (program::RECVMSG6, 350),
    (program::SOCK_OPS, 6_700),
    (program::SOCK_RELEASE, 20_000),
    (program::INGRESS, 31_000),
];

#[test]
fn no_program_is_more_work_to_the_verifier_than_its_bound() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let mut complaints = Vec::new();
        let status = scene.supervisor.status()?;
        for link in &status.links {
            let descriptor = object::by_id(Kind::Program, link.prog_id)?;
            let info = object::program_info(descriptor.as_fd())?;
            let found = info.verified_instructions;
            assert!(found > 0, "the kernel does not say what it verified of {}", info.name);
            println!("{}: {found}", info.name);
            // The kernel keeps the first 15 bytes of a name.
            match BOUNDS.iter().find(|(name, _)| name.starts_with(&info.name)) {
                Some((_, bound)) if found <= *bound => {}
                Some((name, bound)) => {
                    complaints.push(format!("{name}: {found} instructions, at most {bound}"));
                }
                None => complaints.push(format!("{}: {found} instructions, no bound", info.name)),
            }
        }
        assert_eq!(status.links.len(), BOUNDS.len(), "a bound for each program, and no other");
        assert!(complaints.is_empty(), "{complaints:#?}");
        Ok(())
    });
}
