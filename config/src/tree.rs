//! Reads values out of a parsed YAML tree and notes what is wrong, without stopping at the first.
//!
//! It knows no key of `warren.yaml`; the module `read` does.

use crate::lines::Step;
use serde_yaml::Value;
use std::fmt::Write;

/// A place in the tree with its value.
#[derive(Clone, Debug)]
pub(crate) struct Tree<'a> {
    path: Vec<Step>,
    value: &'a Value,
}

/// Something wrong at a place.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) path: Vec<Step>,
    pub(crate) value: String,
    pub(crate) right: String,
}

/// The maximum length of a value in a message, in characters.
const SHOWN: usize = 60;

impl<'a> Tree<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            path: Vec::new(),
            value,
        }
    }

    /// The values of `keys`, in their order; any other key is a fault. `right` names the whole.
    pub(crate) fn keys<const N: usize>(
        &self,
        keys: [&str; N],
        right: &str,
        faults: &mut Vec<Fault>,
    ) -> [Option<Self>; N] {
        let Value::Mapping(map) = self.value else {
            faults.push(self.fault(right));
            return [const { None }; N];
        };
        for (key, value) in map {
            let name = scalar(key);
            if !keys.contains(&name.as_str()) || !key.is_string() {
                let child = self.step(Step::Key(name), value);
                faults.push(Fault {
                    value: "unknown key".into(),
                    ..child.fault(&one_of(&keys))
                });
            }
        }
        keys.map(|key| {
            map.get(key)
                .map(|value| self.step(Step::Key(key.to_owned()), value))
        })
    }

    /// The items of a list.
    pub(crate) fn items(&self, right: &str, faults: &mut Vec<Fault>) -> Vec<Self> {
        if let Value::Sequence(list) = self.value {
            return list
                .iter()
                .enumerate()
                .map(|(n, value)| self.step(Step::Item(n), value))
                .collect();
        }
        faults.push(self.fault(right));
        Vec::new()
    }

    /// The value as `take` understands it.
    pub(crate) fn read<T>(
        &self,
        right: &str,
        faults: &mut Vec<Fault>,
        take: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let taken = take(self.value);
        if taken.is_none() {
            faults.push(self.fault(right));
        }
        taken
    }

    /// A fault of this value.
    pub(crate) fn fault(&self, right: &str) -> Fault {
        Fault {
            path: self.path.clone(),
            value: shown(self.value),
            right: right.to_owned(),
        }
    }

    fn step(&self, step: Step, value: &'a Value) -> Self {
        let mut path = self.path.clone();
        path.push(step);
        Self { path, value }
    }
}

fn one_of(keys: &[&str]) -> String {
    format!("one of {}", keys.join(", "))
}

/// Formats a path as `listen.udp` or `endpoints[0]`.
pub(crate) fn name(path: &[Step]) -> String {
    let mut name = String::new();
    for step in path {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Key(key) if name.is_empty() => write!(name, "{}", one_line(key)),
            Step::Key(key) => write!(name, ".{}", one_line(key)),
            Step::Item(index) => write!(name, "[{index}]"),
        };
    }
    if name.is_empty() {
        "the document".to_owned()
    } else {
        name
    }
}

/// The text without characters that break a line or control a terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A value in one line of bounded length.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "no value".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "keys and values".to_owned(),
        Value::Tagged(_) => "a tagged value".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("value {}", scalar(value)),
        Value::String(text) => {
            let short: String = text.chars().take(SHOWN).collect();
            let more = if short.len() < text.len() { " …" } else { "" };
            format!("value {short:?}{more}")
        }
    }
}

/// A key or a single value as text.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(SHOWN).collect(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => shown(value),
    }
}
