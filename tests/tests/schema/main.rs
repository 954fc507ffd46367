//! The published schema says what the decoder of the configuration says: the same keys, the same limits,
//! the same words, and it accepts what the documentation shows.
//!
//! What the decoder knows is asked of itself: of each object that the schema has, one is made with a key
//! that nobody knows, and the error lists the keys that are possible. A key that is added to the decoder
//! is missing here until it is in the schema, together with all that is below it.

#[path = "../container/yaml.rs"]
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_config::{Sources, parse};
use serde_json::{Map, Value, json};

const SCHEMA: &str = include_str!("../../../docs/configuration.schema.json");
const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

/// A word that is none of the language, and like none of it.
const NOBODYS: &str = "zzzzzzzzzzzz";

/// Deepest nesting that is followed.
const DEPTH: usize = 8;

/// A place in a configuration: keys, and `[]` for the first entry of a list.
type Place = Vec<String>;

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}

/// Every place that the schema knows, with what it says of it.
fn places() -> BTreeMap<Place, Value> {
    let root = schema();
    let mut places = BTreeMap::new();
    follow(&root, &root, &mut Vec::new(), &mut places);
    places
}

fn follow(root: &Value, node: &Value, place: &mut Place, places: &mut BTreeMap<Place, Value>) {
    assert!(place.len() <= DEPTH, "{place:?}");
    let mut node = node.clone();
    if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
        let pointer = reference.strip_prefix('#').expect("references stay in the file");
        node = root.pointer(pointer).unwrap_or_else(|| panic!("{reference}")).clone();
    }
    places.insert(place.clone(), node.clone());
    for (key, below) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        place.push(key.clone());
        follow(root, below, place, places);
        place.pop();
    }
    if let Some(items) = node.get("items") {
        place.push("[]".to_owned());
        follow(root, items, place, places);
        place.pop();
    }
    for alternative in ["oneOf", "anyOf"].iter().filter_map(|name| node.get(name)?.as_array()) {
        // Of a scalar they are formats, and there is nothing below.
        for below in alternative.iter().filter(|below| below.get("format").is_none()) {
            follow(root, below, place, places);
        }
    }
}

/// What the decoder says of a configuration with nothing but `value` at `place`.
fn errors(place: &[String], value: Value) -> Vec<String> {
    let wrap = |inner: Value, step: &String| match step.as_str() {
        "[]" => json!([inner]),
        key => Value::Object(Map::from_iter([(key.to_owned(), inner)])),
    };
    let text = place.iter().rev().fold(value, wrap).to_string();
    match parse(&Sources::single("probe.yaml", text)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message().to_owned()).collect(),
    }
}

/// The words in backquotes behind "Possible here", in the error that quotes [`NOBODYS`].
fn possible(errors: &[String]) -> BTreeSet<String> {
    let error = errors.iter().find(|error| error.contains(NOBODYS));
    let list = error.and_then(|error| error.split_once("Possible here: "));
    let (_, list) = list.unwrap_or_else(|| panic!("the decoder does not look there: {errors:?}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn words(list: Option<&Value>) -> BTreeSet<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.map(|item| item.as_str().expect("a word").to_owned()).collect()
}

#[test]
fn schema_and_decoder_know_the_same_keys() {
    let mut objects = 0;
    for (place, node) in places() {
        let Some(properties) = node.get("properties").and_then(Value::as_object) else { continue };
        objects += 1;
        let known: BTreeSet<String> = properties.keys().cloned().collect();
        assert_eq!(known, possible(&errors(&place, json!({ NOBODYS: 1 }))), "{place:?}");
        assert_eq!(node["additionalProperties"], false, "{place:?}");
        let missing = errors(&place, json!({}));
        let required = words(node.get("required"));
        for key in known {
            let is_missed = missing.iter().any(|error| error.contains(&format!("has no `{key}`")));
            assert_eq!(required.contains(&key), is_missed, "{key} in {place:?}: {missing:?}");
        }
    }
    assert!(objects >= 5, "{objects}");
}

#[test]
fn schema_and_decoder_know_the_same_words() {
    let mut lists = 0;
    for (place, node) in places().into_iter().filter(|(_, node)| node.get("enum").is_some()) {
        lists += 1;
        let known = possible(&errors(&place, json!(NOBODYS)));
        assert_eq!(words(node.get("enum")), known, "{place:?}");
    }
    assert!(lists >= 3, "{lists}");
}

#[test]
fn schema_and_decoder_have_the_same_limits() {
    let is_refused = |place: &Place, value: i64| {
        errors(place, json!(value)).iter().any(|error| error.contains("out of range"))
    };
    let mut numbers = 0;
    for (place, node) in places().into_iter().filter(|(_, node)| node["type"] == "integer") {
        numbers += 1;
        let [least, most] = ["minimum", "maximum"].map(|bound| {
            node[bound].as_i64().unwrap_or_else(|| panic!("{place:?} has no {bound}"))
        });
        let refused = [least - 1, least, most, most + 1].map(|value| is_refused(&place, value));
        assert_eq!(refused, [true, false, false, true], "{place:?}");
    }
    assert!(numbers >= 4, "{numbers}");
}

#[test]
fn schema_and_decoder_have_the_same_sizes_of_lists() {
    let mut lists = 0;
    for (place, node) in places().into_iter().filter(|(_, node)| node["type"] == "array") {
        lists += 1;
        let most = node["maxItems"].as_u64().unwrap_or_else(|| panic!("{place:?} is unbounded"));
        let most = usize::try_from(most).expect("small");
        let too_many = |count: usize| {
            let text = format!("the limit is {most}");
            // Nothing is made of what is in them.
            errors(&place, json!(vec![0; count])).iter().any(|error| error.contains(&text))
        };
        assert!(too_many(most + 1) && !too_many(most), "{place:?}");
        let key = place.last().expect("a list has a key");
        let is_refused = errors(&place, json!([]))
            .iter()
            .any(|error| error.contains(&format!("`{key}` is empty: write at least one")));
        assert_eq!(node["minItems"] == 1, is_refused, "{place:?}");
    }
    assert!(lists >= 4, "{lists}");
}

#[test]
fn the_schema_is_one_and_accepts_what_is_documented() {
    let schema = schema();
    let validator = jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("it is a schema of draft 2020-12");
    let examples = examples();
    assert!(examples.len() >= 2, "{}", examples.len());
    for text in examples {
        let parsed = parse(&Sources::single("example.yaml", text.as_str()));
        assert!(parsed.is_ok(), "{}\n{text}", parsed.expect_err("an error"));
        for document in yaml::documents(&text).expect("it is YAML") {
            let errors: Vec<String> =
                validator.iter_errors(&document).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}\n{text}");
        }
    }
}

/// Every block of YAML in the documentation that is a whole configuration.
fn examples() -> Vec<String> {
    let blocks = DOCUMENTATION.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()));
    blocks.filter(|text| text.contains("services:")).collect()
}

#[test]
fn what_the_decoder_refuses_the_schema_refuses_too() {
    let validator = jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema())
        .expect("it is a schema of draft 2020-12");
    let good =
        "services: [{ name: web, addresses: [127.96.0.1], ports: [{ name: http, port: 80 }] }]";
    let is_valid = |text: &str| validator.is_valid(&yaml::documents(text).expect("YAML")[0]);
    assert!(is_valid(good));
    assert!(is_valid(&good.replacen("name: web", "name: web, drain: { close_after: 0s }", 1)));
    for (from, to) in [
        ("web", "Web"),
        ("web", "-web"),
        ("http", "80"),
        ("http", "a--b"),
        ("http", "sixteen-letters-"),
        ("127.96.0.1", "localhost"),
        ("port: 80", "port: 0"),
        ("port: 80", "port: \"80\""),
        ("port: 80", "port: 80, protocol: sctp"),
        ("name: web,", ""),
        ("services", "service"),
        ("[127.96.0.1]", "[]"),
        ("[127.96.0.1]", ""),
        ("name: web", "name: web, drain: {}"),
        ("name: web", "name: web, drain: 30s"),
        ("name: web", "name: web, drain: { close_after: 30 }"),
        ("name: web", "name: web, drain: { close_after: -1s }"),
        ("name: web", "name: web, drain: { close_after: 1h30m }"),
        ("name: web", "name: web, drain: { close_after: 1s, after: 1s }"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(parse(&Sources::single("bad.yaml", bad.as_str())).is_err(), "{bad}");
        assert!(!is_valid(&bad), "{bad}");
    }
}
