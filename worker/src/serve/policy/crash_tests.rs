//! Writers that die after any number of mutations, and those that take over from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holdfast_bpf::BpfError;
use holdfast_config::{Access, Sources, parse};
use holdfast_protocol::kernel::HeadWord;
use holdfast_protocol::kernel::rules::{CELLS, Cell, POLICY_NUMBERS, PolicyCounters};

use super::estate::{PolicyReader, PolicyWriter};
use super::image::image;
use super::plan::{carry_out, observe, plan};
use super::resolve::Resolution;

/// The maps in memory, and a writer that dies.
#[derive(Clone)]
struct Maps {
    head: HeadWord,
    cells: Vec<Cell>,
    counters: Vec<PolicyCounters>,
    /// Mutations before the writer dies.
    left: usize,
    /// Mutations so far.
    done: usize,
}

impl Maps {
    fn new() -> Self {
        let counters = vec![PolicyCounters::default(); POLICY_NUMBERS as usize];
        let cells = vec![[0; 2]; CELLS as usize];
        Self { head: HeadWord::UNPUBLISHED, cells, counters, left: usize::MAX, done: 0 }
    }

    /// Whether the writer lives to do one more.
    fn lives(&mut self) -> bool {
        let lives = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.done += usize::from(lives);
        lives
    }

    /// The next worker puts `access` in force, and dies after `mutations`.
    fn take_over(&mut self, access: &Access, mutations: usize) {
        (self.left, self.done) = (mutations, 0);
        if let Some(change) = plan(self, access, &resolution()).expect("it fits") {
            carry_out(&change, self).expect("memory refuses nothing");
        }
    }

    /// The image in force, as a program reads it.
    fn in_force(&self) -> Vec<Cell> {
        let place = self.head.slot() as usize;
        if place == 0 {
            return Vec::new();
        }
        let length = self.cells[place][0] as u32 as usize;
        self.cells[place..place + length].to_vec()
    }

    /// What a worker would write that has never known other policies.
    fn fresh(&self, access: &Access) -> Vec<Cell> {
        let numbers: BTreeMap<String, u32> =
            observe(self).into_iter().map(|record| (record.name, record.number)).collect();
        image(access, &resolution(), |name| numbers[name]).expect("it fits")
    }
}

impl PolicyReader for Maps {
    fn policy_head(&self) -> HeadWord {
        self.head
    }

    fn policy_cell(&self, index: u32) -> Cell {
        self.cells[index as usize]
    }

    fn policy_counters(&self, number: u32) -> Result<PolicyCounters, BpfError> {
        Ok(self.counters[number as usize])
    }
}

impl PolicyWriter for Maps {
    fn write_policy_cell(&mut self, index: u32, cell: Cell) {
        if self.lives() {
            self.cells[index as usize] = cell;
        }
    }

    fn zero_policy_counters(&mut self, number: u32) -> Result<(), BpfError> {
        if self.lives() {
            self.counters[number as usize] = PolicyCounters::default();
        }
        Ok(())
    }

    fn publish_policies(&mut self, head: HeadWord) {
        if self.lives() {
            self.head = head;
        }
    }
}

fn resolution() -> Resolution {
    Resolution(BTreeMap::from([(PathBuf::from("/c/a"), 7)]))
}

fn access(policies: &str) -> Access {
    let text = format!(
        "services: []\nidentities: [{{ name: a, cgroups: [/c/a] }}]\npolicies: [{policies}]\n"
    );
    parse(&Sources::single("test.yaml", text)).expect("a valid configuration").access
}

fn all() -> [Access; 4] {
    [
        access(""),
        access("{ name: p, action: deny, rules: [{ to: { cidrs: [10.0.0.0/8] } }] }"),
        access(
            "{ name: q, action: allow, selector: { identities: [a] }, rules: [{ to: { ports: [1-9] } }] },
             { name: p, action: deny, rules: [{ to: { cidrs: [10.0.0.0/9, 'fd00::/8'] } }] }",
        ),
        access("{ name: r, action: deny, dry_run: true, rules: [{}] }"),
    ]
}

#[test]
fn whenever_a_writer_dies_the_old_policies_are_in_force_or_the_new_and_the_next_mends_all() {
    for from in &all() {
        for to in &all() {
            let mut start = Maps::new();
            // Not the first change, so that both images have been in use.
            start.take_over(&all()[1], usize::MAX);
            start.take_over(&all()[2], usize::MAX);
            start.take_over(from, usize::MAX);
            let old = start.in_force();
            let mut whole = start.clone();
            whole.take_over(to, usize::MAX);
            for mutations in 0..=whole.done {
                let mut maps = start.clone();
                maps.take_over(to, mutations);
                let expected = if mutations == whole.done { whole.in_force() } else { old.clone() };
                assert_eq!(maps.in_force(), expected, "after {mutations} of {}", whole.done);
                let goal = if mutations % 2 == 0 { to } else { from };
                maps.take_over(goal, usize::MAX);
                assert_eq!(maps.in_force(), maps.fresh(goal), "mended after {mutations}");
                maps.take_over(goal, usize::MAX);
                assert_eq!(maps.done, 0, "nothing is left to be done");
            }
        }
    }
}

#[test]
fn counters_stay_with_the_name_and_begin_at_0_with_a_new_one() {
    let [none, p, q_and_p, r] = all();
    let mut maps = Maps::new();
    let number = |maps: &Maps, name: &str| {
        observe(maps).iter().find(|record| record.name == name).expect("in force").number
    };
    let counted = PolicyCounters { denied: 5, dry_run: 2 };
    maps.take_over(&p, usize::MAX);
    let of_p = number(&maps, "p");
    maps.counters.fill(counted);
    maps.take_over(&q_and_p, usize::MAX);
    assert_eq!(number(&maps, "p"), of_p);
    assert_eq!(maps.policy_counters(of_p).expect("memory"), counted);
    let of_q = number(&maps, "q");
    assert_eq!(maps.policy_counters(of_q).expect("memory"), PolicyCounters::default());
    maps.take_over(&r, usize::MAX);
    assert!(![of_p, of_q].contains(&number(&maps, "r")), "programs may still count for those");
    maps.take_over(&none, usize::MAX);
    assert_eq!(observe(&maps), []);
    assert!(maps.head.generation() > 3, "generations never repeat");
}
