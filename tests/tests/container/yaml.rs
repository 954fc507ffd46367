//! The documents of a YAML file as JSON, which is what Kubernetes makes of them.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// A collection that is being read.
enum Open {
    Sequence(Vec<Value>),
    Mapping(Map<String, Value>, Option<String>),
}

/// Each document of `text`.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let (mut documents, mut open) = (Vec::new(), Vec::new());
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let complete = match event {
            Event::Scalar(text, style, _, _) => Some(scalar(&text, style)),
            Event::SequenceStart(..) => opened(&mut open, Open::Sequence(Vec::new())),
            Event::MappingStart(..) => opened(&mut open, Open::Mapping(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(close),
            Event::Alias(_) => return Err("an alias".to_owned()),
            _ => None,
        };
        if let Some(value) = complete {
            match open.last_mut() {
                None => documents.push(value),
                Some(parent) => add(parent, value)
                    .map_err(|error| format!("line {}: {error}", span.start.line()))?,
            }
        }
    }
    Ok(documents)
}

fn opened(open: &mut Vec<Open>, collection: Open) -> Option<Value> {
    open.push(collection);
    None
}

fn close(open: Open) -> Value {
    match open {
        Open::Sequence(items) => Value::Array(items),
        Open::Mapping(fields, _) => Value::Object(fields),
    }
}

fn add(parent: &mut Open, value: Value) -> Result<(), String> {
    match parent {
        Open::Sequence(items) => items.push(value),
        Open::Mapping(fields, key) => match key.take() {
            None => {
                let name = value.as_str().ok_or_else(|| format!("{value} is no key"))?;
                *key = Some(name.to_owned());
            }
            Some(name) => {
                if fields.insert(name.clone(), value).is_some() {
                    return Err(format!("{name} is given twice"));
                }
            }
        },
    }
    Ok(())
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match text.parse::<i64>() {
            Ok(number) => Value::Number(Number::from(number)),
            Err(_) => Value::String(text.to_owned()),
        },
    }
}
