//! A save after another one: services whose text has not changed are not parsed again.
//!
//! Two texts are compared from both ends. What differs lies in a few items of the list `services`; they
//! are parsed as a document of their own, and everything else keeps what it means (`layout`). Rules
//! between services are asked of an `index` of those that stay.
//!
//! **The result is that of parsing all of it**, because whatever is not certain is parsed whole: a list in
//! flow style, a change outside of the list, carriage returns, other files, and every error, so that its
//! place is that in the whole text. Why it is certain otherwise: between two lines that begin items of a
//! block sequence, a YAML parser remembers nothing of the items before but their indentation. It has no
//! scalar, bracket or key open there; anchors and tags are refused. That both lines do begin items is not
//! guessed from the text: the parser itself has said so, of the former text and of the changed part with
//! one unchanged item behind it.
//!
//! In reading order: [`change`], `layout`, `window`, `index`.

mod change;
mod index;
pub(crate) mod layout;
mod window;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use self::change::change;
use self::index::Index;
use self::layout::Layout;
use self::window::{Patch, window};
use crate::diagnostic::Diagnostics;
use crate::model::{Config, Service};
use crate::source::{Source, Sources};

/// What a file of a valid configuration consists of.
pub(crate) struct Shape {
    /// How many services it has.
    pub(crate) services: usize,
    /// Where they stand, if it can be told.
    pub(crate) layout: Option<Layout>,
}

/// Parses one text after the other.
#[derive(Default)]
pub struct Incremental {
    former: Option<Former>,
}

/// What a text says.
pub struct Parsed {
    /// What it says. Services that were not parsed again are those of the configuration before.
    pub config: Arc<Config>,
    /// Whether all of it was parsed.
    pub is_whole: bool,
}

/// The last valid text.
struct Former {
    sources: Arc<Sources>,
    shapes: Vec<Shape>,
    config: Arc<Config>,
    index: Index,
}

impl Incremental {
    /// Whether there is a text to compare the next one with.
    #[must_use]
    pub const fn is_following(&self) -> bool {
        self.former.is_some()
    }

    /// The configuration that `sources` say, if no more than `most` bytes of them have to be parsed for
    /// it: the very one before, if no text has changed. The next text is compared with this one then.
    pub fn follow(&mut self, sources: &Arc<Sources>, most: usize) -> Option<Arc<Config>> {
        self.former.as_mut()?.follow(sources, most)
    }

    /// The configuration that `sources` say: what [`parse`](crate::parse) says of them.
    ///
    /// # Errors
    ///
    /// Every error in all files. The next text is compared with the last valid one.
    pub fn parse(&mut self, sources: &Arc<Sources>) -> Result<Parsed, Diagnostics> {
        if let Some(config) = self.follow(sources, usize::MAX) {
            return Ok(Parsed { config, is_whole: false });
        }
        let (config, shapes) = crate::whole(sources)?;
        let config = Arc::new(config);
        // What cannot be followed need not be kept.
        let is_of_use = shapes.iter().any(|shape| shape.layout.is_some());
        let index = if is_of_use { Index::of(&config.services) } else { None };
        self.former = index.map(|index| {
            let (sources, config) = (Arc::clone(sources), Arc::clone(&config));
            Former { sources, shapes, config, index }
        });
        Ok(Parsed { config, is_whole: true })
    }
}

impl Former {
    /// What `sources` say, if at most `most` bytes have to be parsed, and it is certain that the services
    /// outside of what changed are still the same and that there is no error. Only then is anything here
    /// changed.
    fn follow(&mut self, sources: &Arc<Sources>, most: usize) -> Option<Arc<Config>> {
        let patches = self.patches(sources, most)?;
        if patches.is_empty() {
            return Some(Arc::clone(&self.config));
        }
        let replaced: Vec<Range<usize>> = patches
            .iter()
            .map(|(first, patch)| first + patch.items.start..first + patch.items.end)
            .collect();
        let fresh: Vec<Vec<Arc<Service>>> = replaced
            .iter()
            .zip(&patches)
            .map(|(range, (_, patch))| {
                shared(self.config.services.range(range.clone()), &patch.services)
            })
            .collect();
        if !self.index.admit(&self.config.services, &replaced, &fresh) {
            return None;
        }
        let mut services = self.config.services.clone();
        // The last first: those before it stay where they are.
        for (range, fresh) in replaced.into_iter().zip(fresh).rev() {
            services.splice(range, fresh);
        }
        for (_, patch) in patches {
            let shape = &mut self.shapes[patch.file];
            shape.services = shape.services - patch.items.len() + patch.services.len();
            if let Some(layout) = &mut shape.layout {
                layout.replace(patch.items, &patch.layout, patch.delta);
            }
        }
        self.sources = Arc::clone(sources);
        let Config { node, enrolment, access_log, access, .. } = &*self.config;
        let (node, enrolment, access_log, access) =
            (node.clone(), enrolment.clone(), access_log.clone(), access.clone());
        self.config = Arc::new(Config { node, services, enrolment, access_log, access });
        Some(Arc::clone(&self.config))
    }

    /// For each file that has changed, the number of its first service and what changes.
    fn patches(&self, sources: &Sources, mut most: usize) -> Option<Vec<(usize, Patch)>> {
        let (old, new) = (self.sources.files(), sources.files());
        let same = |(old, new): (&Source, &Source)| old.name == new.name && old.label == new.label;
        if old.len() != new.len() || !old.iter().zip(new).all(same) {
            return None;
        }
        let mut patches = Vec::new();
        let (names, mut first) = (crate::names(sources), 0);
        for (number, ((old, new), shape)) in old.iter().zip(new).zip(&self.shapes).enumerate() {
            if let Some(change) = change(&old.contents, &new.contents) {
                let (layout, is_placed) = (shape.layout.as_ref()?, self.config.node.is_some());
                let window = window(layout, &change)?;
                most = most.checked_sub(window.bytes())?;
                let file = (number, &names[..]);
                let patch = Patch::of(layout, &change, window, &new.contents, file, is_placed)?;
                patches.push((first, patch));
            }
            first += shape.services;
        }
        Some(patches)
    }
}

/// `fresh`, each of which is the one in `old` if that says the same.
fn shared<'s>(old: impl Iterator<Item = &'s Arc<Service>>, fresh: &[Service]) -> Vec<Arc<Service>> {
    let by_name: HashMap<&str, &Arc<Service>> =
        old.map(|service| (service.name.as_str(), service)).collect();
    let share = |fresh: &Service| match by_name.get(fresh.name.as_str()) {
        Some(old) if ***old == *fresh => Arc::clone(old),
        _ => Arc::new(fresh.clone()),
    };
    fresh.iter().map(share).collect()
}
