//! `enrolment`: what is accepted, and what is refused where.

use std::path::PathBuf;

use holdfast_config::{Enrolment, Source, Sources, parse};

const SERVICES: &str = "services: []\n";

fn enrolment(text: &str) -> Result<Option<Enrolment>, String> {
    let text = format!("{SERVICES}{text}");
    let parsed = parse(&Sources::single("a.yaml", text));
    parsed.map(|config| config.enrolment).map_err(|errors| errors.to_string())
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let errors = enrolment(text).expect_err("it is refused");
    assert!(errors.contains(expected), "`{expected}` in: {errors}");
}

#[test]
fn without_it_the_whole_cgroup_is_governed() {
    assert_eq!(enrolment(""), Ok(None));
}

#[test]
fn cgroups_and_namespaces_are_listed_by_path() {
    let text = "enrolment:\n  cgroups: [/sys/fs/cgroup/web.slice/, \"/a//b\"]\n  \
                network_namespaces: [/run/netns/blue]\n";
    let expected = Enrolment {
        cgroups: vec![PathBuf::from("/sys/fs/cgroup/web.slice"), PathBuf::from("/a/b")],
        network_namespaces: vec![PathBuf::from("/run/netns/blue")],
    };
    assert_eq!(enrolment(text), Ok(Some(expected)));
    let one = enrolment("enrolment: { cgroups: [/a] }\n").expect("valid").expect("said");
    assert_eq!(one.network_namespaces, Vec::<PathBuf>::new());
}

#[test]
fn what_enrols_nobody_is_refused() {
    refused("enrolment: {}\n", "a.yaml:2:12: `enrolment` lists nothing");
    refused("enrolment: { cgroups: [] }\n", "a.yaml:2:23: `cgroups` is empty: write at least one");
    refused("enrolment:\n", "`enrolment` is empty");
    refused("enrolment: { cgroup: [/a] }\n", "did you mean `cgroups`?");
}

#[test]
fn a_path_leads_down_from_the_root() {
    for (path, expected) in [
        ("web.slice", "is not absolute"),
        ("./a", "is not absolute"),
        ("/a/./b", "is not absolute"),
        ("/a/../b", "leads upwards"),
        ("null", "the path is empty"),
        ("''", "is not absolute"),
    ] {
        refused(&format!("enrolment: {{ cgroups: [/ok, {path}, /x] }}\n"), expected);
    }
    let long = format!("enrolment: {{ cgroups: [/{}] }}\n", "a".repeat(4096));
    refused(&long, "a path of 4097 bytes: the limit is 4095");
    refused("enrolment: { cgroups: [/a, /b, /a/] }\n", "a.yaml:2:32: /a is listed already at 2:24");
}

#[test]
fn one_file_says_it() {
    let source = |label: &str| Source {
        label: label.to_owned(),
        name: label.to_owned(),
        contents: format!("{SERVICES}enrolment: {{ cgroups: [/a] }}\n").into(),
    };
    let errors = parse(&Sources::new(vec![source("a.yaml"), source("b.yaml")]))
        .expect_err("it is refused")
        .to_string();
    assert!(
        errors.contains("b.yaml:2:12: `enrolment` is said already, at a.yaml:2:12: say it once"),
        "{errors}"
    );
}
