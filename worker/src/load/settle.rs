//! From what there is to what there will be: asks the decisions of [`adopt`](super::adopt) about
//! every map and every hook, and makes what is missing, unattached and unpinned. Until
//! [`build`](super::build) carries the result out, nothing of it governs anything.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use holdfast_bpf::object::{self, LinkInfo, MapInfo, ProgramInfo};
use holdfast_bpf::{BpfError, policies};
use holdfast_protocol::kernel;

use super::adopt::{
    LinkSeen, MapChoice, MapConflict, MapSeen, ProgramChoice, check_shape, choose_link, choose_map,
    choose_program, forget_precedents,
};
use super::object::{Fresh, KernelObject, ObjectError};
use super::survey::{Held, OwnLink, Pinned, Survey, links_using, map_seen, program_seen};

/// Why there is nothing to carry out.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// A map of a former life does not fit.
    #[error(transparent)]
    Conflict(#[from] MapConflict),
    /// Something could not be made.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The kernel refused to say something.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// A map of the estate.
#[derive(Debug)]
pub struct SettledMap {
    /// Its name.
    pub name: &'static str,
    /// The map.
    pub map: Held<MapInfo>,
    /// What has to be done for its pin.
    pub pin: PinWork,
}

/// What has to be done for a pin.
#[derive(Debug)]
pub enum PinWork {
    /// It is right.
    None,
    /// It has to be made, in place of `former` if there is an object.
    Put {
        /// What is pinned there now.
        former: Option<OwnedFd>,
        /// For people: what was amiss, if this is not simply new.
        because: String,
    },
}

/// A hook of the estate.
#[derive(Debug)]
pub struct Hook {
    /// Name of its program, its link and their pins.
    pub name: &'static str,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
    /// The program it is to run.
    pub program: Held<ProgramInfo>,
    /// The pin of that program.
    pub program_pin: PinWork,
    /// The link to keep, if there is one.
    pub link: Option<Held<LinkInfo>>,
    /// What that link runs now, if that has to change.
    pub update_from: Option<Held<ProgramInfo>>,
    /// The pin of the link.
    pub link_pin: PinWork,
    /// Links of ours that are too many.
    pub surplus: Vec<Held<LinkInfo>>,
    /// Whether it has nothing to do: its link is detached.
    pub is_idle: bool,
}

/// What the estate is going to be.
#[derive(Debug)]
pub struct Settled {
    /// In the order of [`kernel::map::ALL`].
    pub maps: Vec<SettledMap>,
    /// In the order of [`kernel::program::ALL`].
    pub hooks: Vec<Hook>,
    /// Whether there was nothing before, so that everything new is as expected.
    pub is_cold: bool,
}

/// Settles what the estate is going to be. `arrivals` says that what judges arriving connections has to be
/// attached, whatever the policies in force say.
///
/// # Errors
///
/// [`SettleError`]; nothing was changed then.
pub fn settle(
    object: KernelObject,
    mut survey: Survey,
    cgroup_id: u64,
    arrivals: bool,
) -> Result<Settled, SettleError> {
    let is_cold = survey.is_empty();
    let maps = settle_maps(&object, &mut survey)?;
    let bound: Vec<(&'static str, BorrowedFd<'_>)> =
        maps.iter().map(|map| (map.name, map.map.descriptor.as_fd())).collect();
    let fresh = object.load_programs(&bound)?;
    let map_ids: Vec<u32> = maps.iter().map(|map| map.map.info.id).collect();
    let mut own = links_using(&map_ids)?;
    let arrivals = arrivals || are_arrivals_judged(&bound)?;
    let hooks = fresh
        .into_iter()
        .map(|fresh| {
            let is_needed = arrivals || fresh.name != kernel::program::INGRESS;
            settle_hook(fresh, &mut survey, &mut own, (cgroup_id, is_needed))
        })
        .collect::<Result<_, _>>()?;
    Ok(Settled { maps, hooks, is_cold })
}

/// Whether the policies in force judge what arrives.
fn are_arrivals_judged(maps: &[(&str, BorrowedFd<'_>)]) -> Result<bool, BpfError> {
    let find = |name| maps.iter().find(|map| map.0 == name).map(|map| map.1);
    let [head, cells] = [kernel::map::POLICY_HEAD, kernel::map::POLICIES].map(find);
    let (head, cells) = head.zip(cells).expect("an estate has every map");
    policies::judge_arrivals(head, cells)
}

fn settle_maps(object: &KernelObject, survey: &mut Survey) -> Result<Vec<SettledMap>, SettleError> {
    // All choices before the first creation: a conflict is found before memory is spent.
    let mut choices = Vec::with_capacity(kernel::map::ALL.len());
    for name in kernel::map::ALL {
        let used = survey.used.get(name).map(|map| map_seen(&map.info));
        let pinned = survey.maps.get(name).and_then(Pinned::object).map(|map| map_seen(&map.info));
        choices.push((name, choose_map(name, object.shape(name)?, used, pinned)?));
    }
    forget_precedents(&mut choices);
    let settle = |(name, choice)| settle_map(object, survey, name, choice);
    choices.into_iter().map(settle).collect()
}

fn settle_map(
    object: &KernelObject,
    survey: &mut Survey,
    name: &'static str,
    choice: MapChoice,
) -> Result<SettledMap, SettleError> {
    let pinned = survey.maps.remove(name).unwrap_or(Pinned::Nothing);
    if choice == MapChoice::Pinned
        && let Pinned::Object(map) = pinned
    {
        return Ok(SettledMap { name, map, pin: PinWork::None });
    }
    let found = describe(&pinned, |map: &MapInfo| format!("map {}", map.id));
    let former = former(pinned);
    if let MapChoice::Used(_) = choice
        && let Some(map) = survey.used.remove(name)
    {
        let because = format!("map {name} (id {}) is in use, but its pin {found}", map.info.id);
        return Ok(SettledMap { name, map, pin: PinWork::Put { former, because } });
    }
    let descriptor = object.create_map(name)?;
    let info = object::map_info(descriptor.as_fd())?;
    // A kernel that rounds a size would make every later adoption fail: better to know it now.
    check_shape(name, MapSeen { id: info.id, shape: info.shape }, object.shape(name)?)?;
    let because = format!("map {name} was lost and is made anew (id {}): its pin {found}", info.id);
    let map = Held { descriptor, info };
    Ok(SettledMap { name, map, pin: PinWork::Put { former, because } })
}

fn settle_hook(
    fresh: Fresh,
    survey: &mut Survey,
    own: &mut Vec<OwnLink>,
    (cgroup_id, is_needed): (u64, bool),
) -> Result<Hook, SettleError> {
    let Fresh { name, attach_type, descriptor } = fresh;
    let pinned_link = survey.links.remove(name).unwrap_or(Pinned::Nothing);
    let pinned_link_id = pinned_link.object().map(|link| link.info.id);
    let seen: Vec<LinkSeen> = own.iter().filter_map(|own| link_seen(own, pinned_link_id)).collect();
    let choice = choose_link(cgroup_id, attach_type, is_needed, &seen);
    let is_idle = choice.is_idle;
    let kept = choice.keep.and_then(|id| take(own, id));
    let surplus =
        choice.detach.iter().filter_map(|id| take(own, *id)).map(|own| own.link).collect();
    let (link, attached) = kept.map(|own| (own.link, own.program)).unzip();

    let info = object::program_info(descriptor.as_fd())?;
    let fresh = Held { descriptor, info };
    let pinned = survey.programs.remove(name).unwrap_or(Pinned::Nothing);
    let SettledProgram { program, pin: program_pin, mut update_from } =
        settle_program(name, fresh, attached, pinned);

    // The kernel updates no link that is detached: it takes a new one.
    let is_outdated = is_idle && update_from.is_some();
    let link = link.filter(|_| !is_outdated);
    update_from = update_from.filter(|_| !is_outdated);
    let link_pin = match &link {
        Some(link) if pinned_link_id == Some(link.info.id) => PinWork::None,
        _ => {
            let found = describe(&pinned_link, |link: &LinkInfo| link_text(link, cgroup_id));
            let because = format!("link {name}: its pin {found}");
            PinWork::Put { former: former(pinned_link), because }
        }
    };
    Ok(Hook {
        name,
        attach_type,
        program,
        program_pin,
        link,
        update_from,
        link_pin,
        surplus,
        is_idle,
    })
}

/// The program of a hook.
struct SettledProgram {
    program: Held<ProgramInfo>,
    pin: PinWork,
    update_from: Option<Held<ProgramInfo>>,
}

fn settle_program(
    name: &'static str,
    fresh: Held<ProgramInfo>,
    attached: Option<Held<ProgramInfo>>,
    pinned: Pinned<ProgramInfo>,
) -> SettledProgram {
    let choice = choose_program(
        &program_seen(&fresh.info),
        attached.as_ref().map(|program| program_seen(&program.info)).as_ref(),
        pinned.object().map(|program| program_seen(&program.info)).as_ref(),
    );
    let found = describe(&pinned, |program: &ProgramInfo| format!("program {}", program.id));
    let pinned_id = pinned.object().map(|program| program.info.id);
    let (program, update_from, former) = match (choice, attached, pinned) {
        (ProgramChoice::Attached, Some(attached), pinned) => (attached, None, former(pinned)),
        (ProgramChoice::Pinned, attached, Pinned::Object(pinned)) => (pinned, attached, None),
        (_, attached, pinned) => (fresh, attached, former(pinned)),
    };
    let pin = if pinned_id == Some(program.info.id) {
        PinWork::None
    } else {
        let because = format!("program {name} is now {}: its pin {found}", program.info.id);
        PinWork::Put { former, because }
    };
    SettledProgram { program, pin, update_from }
}

fn link_seen(own: &OwnLink, pinned: Option<u32>) -> Option<LinkSeen> {
    let at = own.link.info.cgroup?;
    Some(LinkSeen {
        id: own.link.info.id,
        attach_type: at.attach_type,
        cgroup_id: at.cgroup_id,
        is_pinned: pinned == Some(own.link.info.id),
    })
}

fn take(own: &mut Vec<OwnLink>, id: u32) -> Option<OwnLink> {
    let index = own.iter().position(|own| own.link.info.id == id)?;
    Some(own.swap_remove(index))
}

fn former<I>(pinned: Pinned<I>) -> Option<OwnedFd> {
    match pinned {
        Pinned::Object(held) => Some(held.descriptor),
        Pinned::Nothing | Pinned::Stranger(_) => None,
    }
}

/// The end of a sentence that begins with "its pin".
fn describe<I>(pinned: &Pinned<I>, object: impl Fn(&I) -> String) -> String {
    match pinned {
        Pinned::Nothing => "was missing".to_owned(),
        Pinned::Stranger(what) => format!("was {what}"),
        Pinned::Object(held) => format!("held {}", object(&held.info)),
    }
}

fn link_text(link: &LinkInfo, cgroup_id: u64) -> String {
    let id = link.id;
    match link.cgroup.map_or(0, |at| at.cgroup_id) {
        0 => format!("link {id}, which is detached or whose cgroup is gone"),
        here if here == cgroup_id => format!("link {id}, which runs another program or hook"),
        elsewhere => format!("link {id}, which is attached to another cgroup (id {elsewhere})"),
    }
}
