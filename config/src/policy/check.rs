//! The rules that concern more than one value of the identities and policies of all files.

use std::collections::HashMap;

use super::decode::{Located, Place, Reference};
use super::{Access, Identity};
use crate::diagnostic::{Diagnostics, FileName};
use crate::limit::{MAX_IDENTITIES, MAX_POLICIES, MAX_RULES};

/// Takes down every rule that is broken; what all files say together.
pub(crate) fn all(
    located: Vec<Located>,
    files: &[FileName],
    diagnostics: &mut Diagnostics,
) -> Access {
    let mut identities = Vec::new();
    let mut policies = Vec::new();
    let mut references = Vec::new();
    for mut of_file in located {
        identities.append(&mut of_file.identities);
        policies.append(&mut of_file.policies);
        references.append(&mut of_file.references);
    }
    let mut check = Check { files, diagnostics };
    check.unique("identity", identities.iter().map(|(it, place)| (it.name.as_str(), *place)));
    check.unique("policy", policies.iter().map(|(it, place)| (it.name.as_str(), *place)));
    let rules = policies.iter().map(|(policy, place)| (policy.rules.len(), *place));
    check.bounded("rules", MAX_RULES, rules);
    check.bounded("policies", MAX_POLICIES, policies.iter().map(|(_, place)| (1, *place)));
    check.bounded("identities", MAX_IDENTITIES, identities.iter().map(|(_, place)| (1, *place)));
    let identities: Vec<Identity> = identities.into_iter().map(|(identity, _)| identity).collect();
    for reference in &references {
        check.reference(reference, &identities);
    }
    let policies = policies.into_iter().map(|(policy, _)| policy).collect();
    Access { identities, policies, cuts_existing: false }
}

struct Check<'a> {
    files: &'a [FileName],
    diagnostics: &'a mut Diagnostics,
}

impl Check<'_> {
    fn report(&mut self, place: Place, message: impl std::fmt::Display) {
        self.diagnostics.push(&self.files[place.file], place.at, message);
    }

    fn unique<'n>(&mut self, what: &str, named: impl Iterator<Item = (&'n str, Place)>) {
        let mut first: HashMap<&str, Place> = HashMap::new();
        for (name, place) in named {
            if let Some(earlier) = first.get(name) {
                let earlier = self.files[earlier.file].at(earlier.at);
                let message = format_args!("the {what} `{name}` is there already, at {earlier}");
                self.report(place, message);
            } else {
                first.insert(name, place);
            }
        }
    }

    fn bounded(&mut self, what: &str, limit: usize, counted: impl Iterator<Item = (usize, Place)>) {
        let mut total = 0;
        for (count, place) in counted {
            total += count;
            if total > limit {
                let message = format_args!("with this there are more than {limit} {what}");
                return self.report(place, message);
            }
        }
    }

    fn reference(&mut self, reference: &Reference, identities: &[Identity]) {
        let Reference { name, is_namespace, is_remote, place } = reference;
        let is_meant = |identity: &&Identity| match is_namespace {
            true => identity.namespace.as_ref() == Some(name),
            false => identity.name == *name,
        };
        let mut meant = identities.iter().filter(is_meant).peekable();
        if meant.peek().is_none() {
            let message = match is_namespace {
                true => format!("no identity has the namespace `{name}`: give it to one"),
                false => format!("there is no identity `{name}`: add it to `identities`"),
            };
            return self.report(*place, message);
        }
        if let Some(blind) = meant.find(|identity| *is_remote && identity.cidrs.is_empty()) {
            let blind = &blind.name;
            let message = format_args!(
                "the identity `{blind}` is known by its cgroups only, and where a connection \
                 leaves, nothing but its address is to be seen of what it goes to: give the \
                 identity `cidrs`"
            );
            self.report(*place, message);
        }
    }
}
