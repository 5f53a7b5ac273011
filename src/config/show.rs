//! How a configuration is shown: as YAML, as JSON, or key by key with the place each value comes from.
//!
//! Secrets show the name they were given under, because that is all a [`crate::secret::Secret`] ever writes.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Config, KeyPath, Loaded};

/// The whole configuration as YAML.
///
/// # Errors
/// What the writer said; a configuration that was loaded can be written.
pub fn yaml(config: &Config) -> Result<String, String> {
    serde_saphyr::to_string(config).map_err(|error| error.to_string())
}

/// The whole configuration as JSON.
///
/// # Errors
/// What the writer said; a configuration that was loaded can be written.
pub fn json(config: &Config) -> Result<String, String> {
    serde_json::to_string_pretty(config).map(|text| text + "\n").map_err(|error| error.to_string())
}

/// Every value on a line of its own, with the file and line it comes from or `default`.
///
/// # Errors
/// What the writer said; a configuration that was loaded can be written.
pub fn origins(loaded: &Loaded) -> Result<String, String> {
    let value = serde_json::to_value(&loaded.config).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    leaves(&value, &KeyPath::default(), loaded, &mut lines);
    let width = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0).min(60);
    let mut text = String::new();
    for (left, origin) in lines {
        let _ = writeln!(text, "{left:width$}  # {origin}");
    }
    Ok(text)
}

fn leaves(value: &Value, path: &KeyPath, loaded: &Loaded, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| leaves(value, &path.key(key), loaded, lines));
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| leaves(value, &path.index(index), loaded, lines));
        }
        _ => lines.push((format!("{path}: {value}"), place(path, loaded))),
    }
}

fn place(path: &KeyPath, loaded: &Loaded) -> String {
    match loaded.origin(path).or_else(|| loaded.origin(&file_variant(path))) {
        Some(at) => format!("{}:{}", at.file.display(), at.line),
        None => "default".to_owned(),
    }
}

/// A secret that was read from a file stands under the key with `_file` at its end.
fn file_variant(path: &KeyPath) -> KeyPath {
    let mut steps = path.0.clone();
    if let Some(super::Step::Key(key)) = steps.last_mut() {
        key.push_str("_file");
    }
    KeyPath(steps)
}
