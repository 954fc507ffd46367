//! One configuration after another: what a service comes to is kept while the service stays the same. Pure.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use holdfast_config::{Config, Diagnostics, Incremental, List, Parsed, Service, Sources};

use super::aside::{Aside, aside};
use super::compile::{Compiled, Summary, compile_service};
use super::direct::{self, Settled};
use super::health_check::checked::Checked;
use super::tables::desired::{Desired, DesiredService};

/// Most bytes of a text that are parsed before the supervisor has heard of it: some dozens of services.
const LITTLE: usize = 64 * 1024;

/// Compiles one text after the other.
#[derive(Default)]
pub struct Compilation {
    texts: Incremental,
    former: Option<Former>,
    prepared: Option<Prepared>,
}

/// What a text comes to whose digest is not known yet.
struct Prepared {
    sources: Arc<Sources>,
    config: Arc<Config>,
    compiled: Arc<Compiled>,
    own: Own,
    counts: List<Count>,
}

/// What the last valid text came to.
struct Former {
    config: Arc<Config>,
    compiled: Arc<Compiled>,
    own: Own,
    counts: List<Count>,
}

/// What services come to, each by itself: addresses that several of them have are in each.
struct Own {
    desired: Arc<Desired>,
    /// Those that lead to endpoints by their own addresses.
    direct: Vec<usize>,
    /// Those that are other ones in the configuration, because somebody else has the address.
    settled: Settled,
}

/// A configuration, and how it was come by.
#[derive(Debug)]
pub struct Outcome {
    /// What the text comes to.
    pub compiled: Arc<Compiled>,
    /// Whether all of it was parsed.
    pub is_whole: bool,
}

impl Compilation {
    /// Whether there is a text to compare the next one with.
    #[must_use]
    pub const fn is_following(&self) -> bool {
        self.texts.is_following()
    }

    /// Whether `sources` are prepared, so that little is left to do.
    #[must_use]
    pub fn is_prepared(&self, sources: &Arc<Sources>) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| Arc::ptr_eq(&prepared.sources, sources))
    }

    /// Does what can be done for `sources` before their digest is known, if that is little: it may cost
    /// this process its life, and nobody knows of them yet. A successor parses all of them, which the
    /// supervisor is told of. What they come to has no digest then. Of a text that has not changed no digest
    /// need follow, so there is nothing to do.
    pub fn prepare(&mut self, sources: &Arc<Sources>) -> Option<Arc<Compiled>> {
        self.prepared = None;
        let config = self.texts.follow(sources, LITTLE)?;
        if self.former.as_ref().is_some_and(|former| Arc::ptr_eq(&former.config, &config)) {
            return None;
        }
        let prepared = self.prepared.insert(self.resume(Arc::clone(sources), config));
        Some(Arc::clone(&prepared.compiled))
    }

    /// The configuration that `sources`, whose digest is `digest`, say. Whatever it has in common with
    /// the last valid one is the same allocation.
    ///
    /// # Errors
    ///
    /// Every error in it.
    pub fn compile(
        &mut self,
        sources: &Arc<Sources>,
        digest: String,
    ) -> Result<Outcome, Diagnostics> {
        let is_prepared = self.is_prepared(sources);
        let (prepared, is_whole) = match self.prepared.take().filter(|_| is_prepared) {
            Some(prepared) => (prepared, false),
            None => {
                let Parsed { config, is_whole } = self.texts.parse(sources)?;
                (self.resume(Arc::clone(sources), config), is_whole)
            }
        };
        let Prepared { config, compiled, own, counts, .. } = prepared;
        // Copied only if somebody was content with it as it was.
        let mut compiled = Arc::unwrap_or_clone(compiled);
        compiled.summary.digest = digest;
        let compiled = Arc::new(compiled);
        // A text that cannot be followed shares nothing with the next one.
        let former = Former { config, compiled: Arc::clone(&compiled), own, counts };
        self.former = self.texts.is_following().then_some(former);
        Ok(Outcome { compiled, is_whole })
    }

    /// What `config`, which `sources` say, comes to. It has no digest yet.
    fn resume(&self, sources: Arc<Sources>, config: Arc<Config>) -> Prepared {
        // Where the node is decides about endpoints of all services.
        let former = self.former.as_ref().filter(|former| former.config.node == config.node);
        let parts = former.map_or_else(|| Parts::of(&config), |it| Parts::after(it, &config));
        let nothing = Settled::new();
        let settled = former.map_or(&nothing, |former| &former.own.settled);
        let (compiled, own, counts) = parts.finish(&config, String::new(), settled);
        Prepared { sources, config, compiled: Arc::new(compiled), own, counts }
    }
}

/// How much a service comes to, or several of them together.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    desired: u32,
    direct: u32,
    checked: u32,
    aside: u32,
    endpoints: u32,
}

/// What the services of a configuration come to.
#[derive(Default)]
pub(super) struct Parts {
    desired: List<Arc<DesiredService>>,
    /// Those that lead to endpoints by their own addresses.
    direct: Vec<usize>,
    checked: Vec<Checked>,
    aside: Vec<Aside>,
    /// For each service.
    counts: List<Count>,
}

/// What some services come to, one after the other, as if there were no others.
#[derive(Default)]
struct Row {
    desired: Vec<Arc<DesiredService>>,
    direct: Vec<usize>,
    checked: Vec<Checked>,
    aside: Vec<Aside>,
    counts: Vec<Count>,
}

impl Row {
    /// Adds what `service` comes to.
    fn add(&mut self, service: &Arc<Service>, config: &Config) {
        let before = self.end();
        let own = compile_service(service, config.node.as_ref());
        self.aside.extend(aside(service, &own));
        let start = self.desired.len();
        self.desired.extend(own);
        self.checked.extend(Checked::new(Arc::clone(service), start..self.desired.len()));
        let start = self.desired.len();
        self.desired.extend(direct::compile(service));
        self.direct.extend(start..self.desired.len());
        let after = self.end();
        self.counts.push(Count { endpoints: count(service.endpoints.len()), ..after.less(before) });
    }

    /// Adds what a service of `former` came to: everything of it that lies behind `from`, as far as `to`.
    fn take(&mut self, former: &Former, from: Count, to: Count) {
        let Former { compiled, own, .. } = former;
        let now = self.desired.len();
        let desired = own.desired.services.range(from.desired as usize..to.desired as usize);
        self.desired.extend(desired.cloned());
        let moved = |at: usize| at - from.desired as usize + now;
        let direct = &own.direct[from.direct as usize..to.direct as usize];
        self.direct.extend(direct.iter().map(|at| moved(*at)));
        self.aside.extend_from_slice(&compiled.aside[from.aside as usize..to.aside as usize]);
        let checked = &compiled.checked[from.checked as usize..to.checked as usize];
        self.checked.extend(checked.iter().map(|checked| checked.moved(moved)));
        self.counts.push(to.less(from));
    }

    /// How much there is, but for endpoints.
    fn end(&self) -> Count {
        let Self { desired, direct, checked, aside, .. } = self;
        let [desired, direct, checked, aside] =
            [desired.len(), direct.len(), checked.len(), aside.len()].map(count);
        Count { desired, direct, checked, aside, endpoints: 0 }
    }
}

impl Count {
    const fn plus(self, other: &Self) -> Self {
        Self {
            desired: self.desired + other.desired,
            direct: self.direct + other.direct,
            checked: self.checked + other.checked,
            aside: self.aside + other.aside,
            endpoints: self.endpoints + other.endpoints,
        }
    }

    const fn less(self, other: Self) -> Self {
        Self {
            desired: self.desired - other.desired,
            direct: self.direct - other.direct,
            checked: self.checked - other.checked,
            aside: self.aside - other.aside,
            endpoints: self.endpoints - other.endpoints,
        }
    }

    fn sum<'c>(counts: impl IntoIterator<Item = &'c Self>) -> Self {
        counts.into_iter().fold(Self::default(), Self::plus)
    }
}

impl Parts {
    /// What all of `config` comes to.
    pub(super) fn of(config: &Config) -> Self {
        let mut row = Row::default();
        config.services.iter().for_each(|service| row.add(service, config));
        let Row { desired, direct, checked, aside, counts } = row;
        Self { desired: desired.into(), direct, checked, aside, counts: counts.into() }
    }

    /// What `config` comes to, whose services are mostly those of `former`.
    fn after(former: &Former, config: &Config) -> Self {
        let (old, new) = (&former.config.services, &config.services);
        let (first, last) = old.common(new, Arc::ptr_eq);
        let replaced = first..old.len() - last;
        let start = Count::sum(former.counts.range(0..first));
        // Where each of the services that are replaced begins, and where the last of them ends.
        let mut marks = vec![start];
        marks.extend(former.counts.range(replaced.clone()).scan(start, |mark, count| {
            *mark = mark.plus(count);
            Some(*mark)
        }));
        let places: HashMap<*const Service, usize> =
            old.range(replaced.clone()).map(Arc::as_ptr).zip(0..).collect();
        let mut row = Row::default();
        for service in new.range(first..new.len() - last) {
            match places.get(&Arc::as_ptr(service)) {
                Some(place) => row.take(former, marks[*place], marks[place + 1]),
                None => row.add(service, config),
            }
        }
        Self::with(former, (start, marks[replaced.len()]), replaced, row)
    }

    /// What `former` came to, with `row` in the place of the services `replaced`, which lie between `from` and `to`.
    fn with(former: &Former, (from, to): (Count, Count), replaced: Range<usize>, row: Row) -> Self {
        let Former { compiled, own, counts, .. } = former;
        let (start, end) = (from.desired as usize, to.desired as usize);
        let shifted = |at: usize| at + start;
        let came = row.desired.len();
        let behind = |at: usize| at - end + start + came;
        let mut direct = own.direct[..from.direct as usize].to_vec();
        direct.extend(row.direct.into_iter().map(shifted));
        direct.extend(own.direct[to.direct as usize..].iter().map(|at| behind(*at)));
        let mut checked = compiled.checked[..from.checked as usize].to_vec();
        checked.extend(row.checked.iter().map(|checked| checked.moved(shifted)));
        let others = compiled.checked[to.checked as usize..].iter();
        checked.extend(others.map(|checked| checked.moved(behind)));
        let mut aside = compiled.aside[..from.aside as usize].to_vec();
        aside.extend(row.aside);
        aside.extend_from_slice(&compiled.aside[to.aside as usize..]);
        let (mut desired, mut counts) = (own.desired.services.clone(), counts.clone());
        desired.splice(start..end, row.desired);
        counts.splice(replaced, row.counts);
        Self { desired, direct, checked, aside, counts }
    }

    /// All of `config`, which has the digest `digest`.
    pub(super) fn compiled(self, config: &Config, digest: String) -> Compiled {
        self.finish(config, digest, &Settled::new()).0
    }

    /// The same, what each service comes to by itself, and how much that is. `former` is what came of
    /// addresses that several of them have.
    fn finish(
        self,
        config: &Config,
        digest: String,
        former: &Settled,
    ) -> (Compiled, Own, List<Count>) {
        let Self { desired, direct, checked, aside, counts } = self;
        let Count { endpoints, .. } = Count::sum(&counts);
        let summary = Summary { digest, services: count(config.services.len()), endpoints };
        let own = Arc::new(Desired { services: desired });
        let (desired, settled) = direct::settle(&own, &direct, former);
        let own = Own { desired: own, direct, settled };
        let compiled = Compiled {
            desired,
            checked,
            node: config.node.clone(),
            enrolment: config.enrolment.clone(),
            access_log: config.access_log.clone(),
            aside,
            access: config.access.clone(),
            summary,
        };
        (compiled, own, counts)
    }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).expect("the language bounds services, frontends and endpoints below 2^21")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::compile::compile_sources;

    fn service(number: usize, style: usize) -> String {
        let more = match style % 4 {
            0 => "",
            1 => ", health_check: { tcp: {} }",
            2 => ", load_balancing: { policy: weighted }",
            _ => ", no_endpoint: deny",
        };
        format!(
            "- {{ name: s{number}, addresses: [127.96.0.{number}, 'fd96::{number}'], ports: [{{ name: p, port: {} }}, {{ name: \
             q, port: 9000 }}]{more}, endpoints: [{{ address: 127.0.0.1, weight: 2 }}, {{ address: 127.0.0.2, weight: {} }}] }}\n",
            100 + style,
            style % 3
        )
    }

    fn sources(services: &[(usize, usize)], head: &str) -> Arc<Sources> {
        let lines = services.iter().map(|(number, style)| service(*number, *style));
        let text = format!("{head}services:\n{}", lines.collect::<String>());
        Arc::new(Sources::single("test.yaml", text))
    }

    proptest::proptest! {
        /// Whatever was compiled before, what comes out is what would come out alone, and what did not
        /// change is the same allocation.
        #[test]
        fn it_is_as_if_it_were_the_first(
            saves in proptest::collection::vec(
                (
                    proptest::collection::btree_map(1..12_usize, 0..12_usize, 1..10),
                    proptest::bool::weighted(0.1), proptest::bool::ANY,
                ), 1..6
            ),
        ) {
            let mut compilation = Compilation::default();
            let mut former: Option<(Arc<Compiled>, Vec<_>)> = None;
            for (services, is_placed, is_prepared) in saves {
                let services: Vec<_> = services.into_iter().collect();
                let head = if is_placed { "node: { region: eu }\n" } else { "" };
                let sources = sources(&services, head);
                if is_prepared {
                    let _is_little = compilation.prepare(&sources);
                }
                let alone = compile_sources(&sources).expect("a valid configuration");
                let Outcome { compiled, is_whole } =
                    compilation.compile(&sources, sources.digest()).expect("a valid configuration");
                proptest::prop_assert_eq!(&*compiled, &alone);
                if let Some((former, of)) = former.filter(|_| !is_whole) {
                    for (at, service) in services.iter().enumerate() {
                        let Some(before) = of.iter().position(|it| it == service) else { continue };
                        let old = former.desired.services.range(4 * before..4 * before + 4);
                        let new = compiled.desired.services.range(4 * at..4 * at + 4);
                        proptest::prop_assert!(old.zip(new).all(|(old, new)| Arc::ptr_eq(old, new)));
                    }
                }
                former = Some((compiled, services));
            }
        }
    }

    #[test]
    fn a_save_of_one_service_compiles_one() {
        let mut compilation = Compilation::default();
        let mut compile = |style| {
            let sources = sources(&[(1, 0), (2, style), (3, 0)], "");
            compilation.compile(&sources, String::new()).expect("a valid configuration")
        };
        let (before, after) = (compile(0), compile(1));
        assert!(before.is_whole && !after.is_whole);
        let both = before.compiled.desired.services.iter().zip(&after.compiled.desired.services);
        let same: Vec<bool> = both.map(|(one, other)| Arc::ptr_eq(one, other)).collect();
        assert_eq!(same, [[true; 4], [false; 4], [true; 4]].concat());
    }
}
