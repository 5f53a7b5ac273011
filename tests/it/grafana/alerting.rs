//! The files of alerting: rules, contact points, and the policy that says whom an alert goes to.

use serde_json::{Map, Value};

use super::lint::Lint;

/// Seconds of a duration as Prometheus and Grafana write it, with one unit.
fn seconds(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Some(number * unit)
}

const OPERATORS: [&str; 4] = ["=", "!=", "=~", "!~"];

impl Lint<'_> {
    pub(super) fn alerting(&mut self, path: &str, value: &Value) {
        let may = ["groups", "contactPoints", "policies"];
        let Some(map) = self.map(path, value, &["apiVersion"], &may) else { return };
        for (at, one) in self.list(path, map, "groups") {
            self.group(&at, one);
        }
        for (at, one) in self.list(path, map, "contactPoints") {
            self.contact_point(&at, one);
        }
        for (at, one) in self.list(path, map, "policies") {
            self.expanded(&at, one);
            if let Some(org) = one.as_object() {
                self.org(&at, org);
            }
            self.once("policy of an organisation", &at, &one["orgId"].to_string());
            self.route(&at, one, Depth::Root);
        }
    }

    fn duration(&mut self, at: &str, map: &Map<String, Value>, key: &str) -> Option<f64> {
        let text = self.text(at, map, key)?;
        let length = seconds(text);
        if length.is_none() {
            self.complain(at, format!("{key} is no duration"));
        }
        length
    }

    fn group(&mut self, at: &str, value: &Value) {
        let Some(group) = self.map(at, value, &["name", "folder", "interval", "rules"], &["orgId"]) else {
            return;
        };
        self.org(at, group);
        for key in ["name", "folder"] {
            self.expanded(at, group.get(key).unwrap_or(&Value::Null));
        }
        let folder = self.text(at, group, "folder").unwrap_or_default();
        if let Some(name) = self.text(at, group, "name") {
            self.once("group", at, &format!("{folder}/{name}"));
        }
        let interval = self.duration(at, group, "interval");
        if interval.is_some_and(|length| length < 10.0 || length % 10.0 != 0.0) {
            self.complain(at, "interval is no multiple of 10 s");
        }
        let rules = self.list(at, group, "rules");
        if rules.is_empty() {
            self.complain(at, "a group without rules");
        }
        for (at, one) in rules {
            self.rule(&at, one, folder);
        }
    }

    fn rule(&mut self, at: &str, value: &Value, folder: &str) {
        let must = [
            "uid",
            "title",
            "condition",
            "data",
            "noDataState",
            "execErrState",
            "for",
            "annotations",
            "labels",
        ];
        let may = ["keepFiringFor", "missing_series_evals_to_resolve", "isPaused"];
        let Some(rule) = self.map(at, value, &must, &may) else { return };
        for key in ["uid", "title", "condition", "labels"] {
            self.expanded(at, rule.get(key).unwrap_or(&Value::Null));
        }
        self.uid("rule's uid", at, rule, "uid");
        if let Some(title) = self.text(at, rule, "title") {
            self.once("rule", at, &format!("{folder}/{title}"));
        }
        self.word(at, rule, "noDataState", &["OK", "NoData", "Alerting", "KeepLast"]);
        self.word(at, rule, "execErrState", &["OK", "Error", "Alerting", "KeepLast"]);
        self.flags(at, rule, &["isPaused"]);
        for key in ["for", "keepFiringFor"] {
            self.duration(at, rule, key);
        }
        if rule
            .get("missing_series_evals_to_resolve")
            .is_some_and(|number| number.as_u64().is_none_or(|n| n == 0))
        {
            self.complain(at, "missing_series_evals_to_resolve is no whole number above 0");
        }
        self.told_texts(at, rule);
        let queries = self.list(at, rule, "data");
        let names: Vec<&str> = queries.iter().filter_map(|(_, one)| one["refId"].as_str()).collect();
        if self.text(at, rule, "condition").is_some_and(|condition| !names.contains(&condition)) {
            self.complain(at, "condition is none of the queries");
        }
        for (number, (place, query)) in queries.iter().enumerate() {
            let before = names.get(..number).unwrap_or_default();
            self.query(place, query, before);
        }
    }

    fn told_texts(&mut self, at: &str, rule: &Map<String, Value>) {
        for key in ["labels", "annotations"] {
            let Some(texts) = rule.get(key).and_then(Value::as_object) else {
                self.complain(at, format!("{key} is no map"));
                continue;
            };
            for (name, text) in texts {
                if self.text(at, texts, name).is_none() {
                    continue;
                }
                let text = text.as_str().unwrap_or_default();
                if key == "annotations" && (text.contains("${") || text.contains("$$")) {
                    self.complain(
                        at,
                        format!("{name} has a variable of the environment or a doubled dollar"),
                    );
                }
                if text.contains("$value") && !text.contains("$values.") {
                    self.complain(
                        at,
                        format!("{name} has $value, which Grafana fills with a text of all values"),
                    );
                }
            }
        }
        let annotation =
            |name: &str| rule.get("annotations").and_then(|all| all.get(name)).and_then(Value::as_str);
        match (annotation("__dashboardUid__"), annotation("__panelId__")) {
            (None, None) => {}
            (Some(uid), Some(panel)) if self.world.panels.contains(&(uid.to_owned(), panel.to_owned())) => {}
            (uid, panel) => self.complain(at, format!("there is no panel {panel:?} of a dashboard {uid:?}")),
        }
    }

    fn query(&mut self, at: &str, value: &Value, before: &[&str]) {
        let must = ["refId", "datasourceUid", "relativeTimeRange", "model"];
        let Some(query) = self.map(at, value, &must, &["queryType"]) else { return };
        for key in ["refId", "datasourceUid"] {
            self.expanded(at, query.get(key).unwrap_or(&Value::Null));
        }
        if self.text(at, query, "refId").is_some_and(|name| before.contains(&name)) {
            self.complain(at, "a second query of this refId");
        }
        let model = query.get("model").unwrap_or(&Value::Null);
        if model.get("refId") != query.get("refId") {
            self.complain(at, "the model is of another refId");
        }
        let range = query.get("relativeTimeRange").unwrap_or(&Value::Null);
        let range = self.map(&format!("{at}.relativeTimeRange"), range, &["from", "to"], &[]);
        let second = |key: &str| range.and_then(|range| range.get(key)).and_then(Value::as_u64);
        let (Some(from), Some(to)) = (second("from"), second("to")) else {
            return self.complain(at, "relativeTimeRange is no pair of whole seconds");
        };
        match self.text(at, query, "datasourceUid") {
            Some("__expr__") => self.expression(at, model, before),
            Some(uid) => {
                if !self.uids_of_data_sources.contains(uid) {
                    self.complain(at, format!("there is no data source {uid}"));
                }
                if from <= to {
                    self.complain(at, "relativeTimeRange ends before it begins");
                }
                self.map(at, model, &["refId", "expr", "instant"], &["range"]);
                if model["instant"] != Value::Bool(true) || model["range"] == Value::Bool(true) {
                    self.complain(at, "the query is not of an instant");
                }
            }
            None => {}
        }
    }

    fn expression(&mut self, at: &str, model: &Value, before: &[&str]) {
        let Some(model) = self.map(at, model, &["refId", "type", "expression"], &[]) else { return };
        self.word(at, model, "type", &["math"]);
        let Some(expression) = self.text(at, model, "expression") else { return };
        let named = expression.split('$').skip(1).map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
        });
        let named: Vec<&str> = named.collect();
        if named.is_empty() || named.iter().any(|name| !before.contains(name)) {
            self.complain(at, "the expression is of a query that is not there");
        }
    }

    fn contact_point(&mut self, at: &str, value: &Value) {
        self.expanded(at, value);
        let Some(point) = self.map(at, value, &["name", "receivers"], &["orgId"]) else { return };
        self.org(at, point);
        if let Some(name) = self.text(at, point, "name") {
            self.once("contact point", at, name);
            self.contact_points.insert(name.to_owned());
        }
        let receivers = self.list(at, point, "receivers");
        if receivers.is_empty() {
            self.complain(at, "no receivers");
        }
        for (at, one) in receivers {
            let Some(one) = self.map(&at, one, &["uid", "type", "settings"], &["disableResolveMessage"])
            else {
                continue;
            };
            self.uid("receiver's uid", &at, one, "uid");
            self.word(&at, one, "type", &["webhook"]);
            self.flags(&at, one, &["disableResolveMessage"]);
            let settings = one.get("settings").unwrap_or(&Value::Null);
            // No authorization_*: 9.4 reads them under another key and sends nothing.
            let may = ["httpMethod", "username", "password", "maxAlerts"];
            let Some(settings) = self.map(&at, settings, &["url"], &may) else { continue };
            self.address(&at, settings, "url");
            self.word(&at, settings, "httpMethod", &["POST", "PUT"]);
            if settings.contains_key("username") != settings.contains_key("password") {
                self.complain(&at, "a username and a password belong together");
            }
        }
    }

    fn route(&mut self, at: &str, value: &Value, depth: Depth) {
        let shared = ["group_by", "group_wait", "group_interval", "repeat_interval", "routes"];
        let own = match depth {
            Depth::Root => ["orgId", "receiver"],
            Depth::Below => ["object_matchers", "continue"],
        };
        let must = match depth {
            Depth::Root => ["receiver"],
            Depth::Below => ["object_matchers"],
        };
        let may = [&shared[..], &own[..], &["receiver"]].concat();
        let Some(route) = self.map(at, value, &must, &may) else { return };
        if let Some(receiver) = self.text(at, route, "receiver") {
            self.told.push((at.to_owned(), receiver.to_owned()));
        }
        self.duration(at, route, "group_wait");
        for key in ["group_interval", "repeat_interval"] {
            if self.duration(at, route, key) == Some(0.0) {
                self.complain(at, format!("{key} is 0"));
            }
        }
        let labels: Vec<&Value> =
            self.list(at, route, "group_by").into_iter().map(|(_, label)| label).collect();
        let twice = labels.iter().enumerate().any(|(number, label)| labels[..number].contains(label));
        let all = labels.iter().any(|label| **label == "...") && labels.len() > 1;
        if twice || all || labels.iter().any(|label| !label.is_string()) {
            self.complain(at, "group_by has a label twice, `...` beside others, or what is no text");
        }
        self.flags(at, route, &["continue"]);
        for (at, matcher) in self.list(at, route, "object_matchers") {
            let parts: Option<Vec<&str>> =
                matcher.as_array().and_then(|parts| parts.iter().map(Value::as_str).collect());
            let fine = matches!(parts.as_deref(), Some([name, operator, _]) if !name.is_empty() && OPERATORS.contains(operator));
            if !fine {
                self.complain(&at, "a matcher is [label, operator, value]");
            }
        }
        for (at, one) in self.list(at, route, "routes") {
            self.route(&at, one, Depth::Below);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Depth {
    Root,
    Below,
}
