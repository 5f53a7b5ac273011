//! What Grafana demands of its provisioning files, and more: known keys only. A bad file keeps Grafana from starting, and
//! says so only there.
//!
//! Known from Grafana's public sources, `pkg/services/provisioning` and `pkg/services/ngalert`, and from trials with 9.4.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What the files may refer to.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Files that exist where Grafana runs, for `$__file{...}`.
    pub(super) files: BTreeSet<String>,
    /// Folders that exist there.
    pub(super) folders: BTreeSet<String>,
    /// The panels there are, by the dashboard's uid.
    pub(super) panels: BTreeSet<(String, String)>,
}

/// Looks at all files of a provisioning folder: a path in it, and what stands there.
pub(super) fn complaints(files: &[(String, String)], world: &World) -> Vec<String> {
    let mut lint = Lint { world, ..Lint::new(world) };
    let parsed: Vec<(&str, Value)> =
        files.iter().filter_map(|(path, text)| Some((path.as_str(), lint.parsed(path, text)?))).collect();
    let of =
        |folder: &str| parsed.iter().filter(move |(path, _)| path.starts_with(folder)).collect::<Vec<_>>();
    for (path, value) in of("datasources/") {
        lint.data_sources(path, value);
    }
    for (path, value) in of("dashboards/") {
        lint.dashboards(path, value);
    }
    for (path, value) in of("alerting/") {
        lint.alerting(path, value);
    }
    lint.receivers_exist();
    lint.found
}

pub(super) struct Lint<'a> {
    pub(super) world: &'a World,
    pub(super) found: Vec<String>,
    /// What may be there once only.
    names: BTreeSet<(&'static str, String)>,
    pub(super) uids_of_data_sources: BTreeSet<String>,
    pub(super) contact_points: BTreeSet<String>,
    /// Where one is named, and which.
    pub(super) told: Vec<(String, String)>,
}

impl<'a> Lint<'a> {
    fn new(world: &'a World) -> Self {
        Self {
            world,
            found: Vec::new(),
            names: BTreeSet::new(),
            uids_of_data_sources: BTreeSet::new(),
            contact_points: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    pub(super) fn complain(&mut self, at: &str, what: impl AsRef<str>) {
        self.found.push(format!("{at}: {}", what.as_ref()));
    }

    fn parsed(&mut self, path: &str, text: &str) -> Option<Value> {
        let folder = path.split('/').next().unwrap_or_default();
        let known = ["datasources", "dashboards", "alerting", "plugins"].contains(&folder);
        let deep = path.matches('/').count() > 1;
        if path.ends_with(".gitkeep") && folder != "alerting" {
            return None;
        }
        if !known || deep || !(path.ends_with(".yaml") || path.ends_with(".yml")) {
            // In alerting/ anything else stops Grafana up to 9.1; elsewhere it is not read.
            self.complain(path, "no file that Grafana reads");
            return None;
        }
        match serde_saphyr::from_str::<Value>(text) {
            Err(error) => {
                self.complain(
                    path,
                    format!("no YAML: {}", error.to_string().lines().next().unwrap_or_default()),
                );
                None
            }
            Ok(value) => {
                if value.get("apiVersion") != Some(&Value::from(1)) {
                    self.complain(path, "apiVersion is not 1");
                }
                Some(value)
            }
        }
    }

    /// The map there, with all of the keys it must have and none that nobody knows.
    pub(super) fn map<'v>(
        &mut self,
        at: &str,
        value: &'v Value,
        must: &[&str],
        may: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Some(map) = value.as_object() else {
            self.complain(at, "no map");
            return None;
        };
        for key in must {
            if map.get(*key).is_none_or(Value::is_null) {
                self.complain(at, format!("{key} is missing"));
            }
        }
        for key in map.keys().filter(|key| !must.contains(&key.as_str()) && !may.contains(&key.as_str())) {
            self.complain(at, format!("unknown key {key}"));
        }
        Some(map)
    }

    /// The entries of a list, each with its place; nothing where there is no such key.
    pub(super) fn list<'v>(
        &mut self,
        at: &str,
        map: &'v Map<String, Value>,
        key: &str,
    ) -> Vec<(String, &'v Value)> {
        match map.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().enumerate().map(|(number, one)| (format!("{at}: {key}[{number}]"), one)).collect()
            }
            Some(_) => {
                self.complain(at, format!("{key} is no list"));
                Vec::new()
            }
        }
    }

    /// The text there, after checking that it is one and not empty; nothing where there is no such key.
    pub(super) fn text<'v>(&mut self, at: &str, map: &'v Map<String, Value>, key: &str) -> Option<&'v str> {
        match map.get(key)? {
            Value::String(text) if !text.trim().is_empty() => Some(text),
            _ => {
                self.complain(at, format!("{key} is no text, or empty"));
                None
            }
        }
    }

    /// One of few words.
    pub(super) fn word(&mut self, at: &str, map: &Map<String, Value>, key: &str, words: &[&str]) {
        if self.text(at, map, key).is_some_and(|text| !words.contains(&text)) {
            self.complain(at, format!("{key} is none of {}", words.join(", ")));
        }
    }

    pub(super) fn flags(&mut self, at: &str, map: &Map<String, Value>, keys: &[&str]) {
        for key in keys {
            if map.get(*key).is_some_and(|value| !value.is_boolean()) {
                self.complain(at, format!("{key} is neither true nor false"));
            }
        }
    }

    /// The uid there, which is short, plain and nobody else's.
    pub(super) fn uid(&mut self, kind: &'static str, at: &str, map: &Map<String, Value>, key: &str) {
        let Some(uid) = self.text(at, map, key) else { return };
        if uid.len() > 40 || !uid.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            self.complain(
                at,
                format!("{key} {uid:?} has over 40 characters, or others than letters, digits, - and _"),
            );
        }
        self.once(kind, at, uid);
    }

    pub(super) fn once(&mut self, kind: &'static str, at: &str, name: &str) {
        if !self.names.insert((kind, name.to_owned())) {
            self.complain(at, format!("a second {kind} {name}"));
        }
    }

    /// The organisation: only the first is there when Grafana starts for the first time.
    pub(super) fn org(&mut self, at: &str, map: &Map<String, Value>) {
        if map.get("orgId").is_some_and(|org| org.as_u64() != Some(1)) {
            self.complain(at, "orgId is not 1, and no other organisation exists");
        }
    }

    /// Every text that Grafana expands: `$$` is a dollar, all else that begins with one has to be there.
    pub(super) fn expanded(&mut self, at: &str, value: &Value) {
        match value {
            Value::String(text) => {
                for (number, part) in text.split("$$").flat_map(|part| part.split('$').enumerate()) {
                    if number > 0 {
                        self.variable(at, part);
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|one| self.expanded(at, one)),
            Value::Object(map) => map.values().for_each(|one| self.expanded(at, one)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// What stands behind a dollar.
    fn variable(&mut self, at: &str, rest: &str) {
        let file = rest.strip_prefix("__file{").and_then(|rest| rest.split_once('}'));
        match file {
            Some((path, _)) if self.world.files.contains(path) => {}
            Some((path, _)) => self.complain(at, format!("nobody writes the file {path}")),
            None => self.complain(at, format!("${rest} is a variable, and may be empty")),
        }
    }

    fn data_sources(&mut self, path: &str, value: &Value) {
        self.expanded(path, value);
        let Some(map) = self.map(path, value, &["apiVersion", "datasources"], &["prune"]) else { return };
        self.flags(path, map, &["prune"]);
        for (at, one) in self.list(path, map, "datasources") {
            let may = ["orgId", "url", "isDefault", "editable", "jsonData", "secureJsonData"];
            let Some(one) = self.map(&at, one, &["name", "uid", "type", "access"], &may) else { continue };
            self.org(&at, one);
            self.uid("data source's uid", &at, one, "uid");
            self.uids_of_data_sources.extend(one.get("uid").and_then(Value::as_str).map(str::to_owned));
            if let Some(name) = self.text(&at, one, "name") {
                self.once("data source", &at, name);
            }
            self.word(&at, one, "type", &["prometheus", "jaeger", "alertmanager"]);
            self.word(&at, one, "access", &["proxy"]);
            self.flags(&at, one, &["isDefault", "editable"]);
            if one.get("isDefault") == Some(&Value::Bool(true)) {
                self.once("data source by default", &at, "(two of them stop Grafana)");
            }
            self.address(&at, one, "url");
            for key in ["jsonData", "secureJsonData"] {
                if one.get(key).is_some_and(|data| !data.is_object()) {
                    self.complain(&at, format!("{key} is no map"));
                }
            }
        }
    }

    /// The address there, of HTTP.
    pub(super) fn address(&mut self, at: &str, map: &Map<String, Value>, key: &str) {
        let Some(text) = self.text(at, map, key) else { return };
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or_default();
        if rest.is_empty() || text.contains(char::is_whitespace) {
            self.complain(at, format!("{key} is no address"));
        }
    }

    fn dashboards(&mut self, path: &str, value: &Value) {
        self.expanded(path, value);
        let Some(map) = self.map(path, value, &["apiVersion", "providers"], &[]) else { return };
        for (at, one) in self.list(path, map, "providers") {
            let may = [
                "orgId",
                "folder",
                "folderUid",
                "disableDeletion",
                "allowUiUpdates",
                "updateIntervalSeconds",
            ];
            let Some(one) = self.map(&at, one, &["name", "type", "options"], &may) else { continue };
            self.org(&at, one);
            self.word(&at, one, "type", &["file"]);
            self.flags(&at, one, &["disableDeletion", "allowUiUpdates"]);
            if let Some(name) = self.text(&at, one, "name") {
                self.once("provider", &at, name);
            }
            if let Some(folder) = self.text(&at, one, "folder") {
                self.once("folder", &at, folder);
            }
            self.uid("folder's uid", &at, one, "folderUid");
            let at = format!("{at}.options");
            let options = one.get("options").unwrap_or(&Value::Null);
            let Some(options) = self.map(&at, options, &["path"], &["foldersFromFilesStructure"]) else {
                continue;
            };
            if self.text(&at, options, "path").is_some_and(|path| !self.world.folders.contains(path)) {
                self.complain(&at, "path is no folder that is mounted");
            }
            let by_files = options.get("foldersFromFilesStructure") == Some(&Value::Bool(true));
            if by_files && (one.contains_key("folder") || one.contains_key("folderUid")) {
                self.complain(&at, "foldersFromFilesStructure and a folder stop Grafana");
            }
        }
    }

    fn receivers_exist(&mut self) {
        for (at, name) in std::mem::take(&mut self.told) {
            if !self.contact_points.contains(&name) {
                self.complain(&at, format!("there is no contact point {name}"));
            }
        }
    }
}
