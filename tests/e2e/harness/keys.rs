//! Which keys of the configuration the cases have started the program with, against those its schema has.
//!
//! A key is a path such as `pools[].health_check.path`, so that the same word in two places counts twice.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;

use serde_json::Value;

use super::program::ingre;

static USED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Notes the keys of a configuration that the program has started with.
pub(crate) fn used(yaml: &str) {
    let document: Value = yaml::Document::new("configuration", yaml).parse().unwrap();
    collect(&document, "", &mut USED.lock().unwrap());
}

fn collect(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(value, &path, into);
                into.insert(path);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, &format!("{path}[]"), into)),
        _ => {}
    }
}

/// Says which keys nobody has used. Where cases were left out, those of the tunnels do not count.
pub(crate) fn all_used(some_ignored: bool) -> bool {
    let used = USED.lock().unwrap();
    let unused: Vec<_> = of_schema()
        .into_iter()
        .filter(|key| !used.contains(key))
        .filter(|key| !(some_ignored && is_about_tunnels(key)))
        .collect();
    if !unused.is_empty() {
        let list = unused.join("\n    ");
        let _ = writeln!(
            std::io::stderr(),
            "keys of the schema that no case starts the program with:\n    {list}"
        );
    }
    unused.is_empty()
}

fn is_about_tunnels(key: &str) -> bool {
    key.starts_with("tunnels") || key.ends_with(".tunnel") || key == "engine_threads"
}

/// Every key of the schema that the program prints.
pub(crate) fn of_schema() -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(&ingre(&["schema"], "").stdout).unwrap();
    let mut keys = BTreeSet::new();
    walk(&schema, &schema, "", &mut keys);
    keys
}

fn walk(schema: &Value, root: &Value, path: &str, keys: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        walk(target, root, path, keys);
    }
    for form in ["anyOf", "oneOf", "allOf"] {
        for part in schema[form].as_array().into_iter().flatten() {
            walk(part, root, path, keys);
        }
    }
    if schema["items"].is_object() {
        walk(&schema["items"], root, &format!("{path}[]"), keys);
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(value, root, &path, keys);
        keys.insert(path);
    }
}
