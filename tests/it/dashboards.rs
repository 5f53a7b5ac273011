//! The dashboards keep their rules, and none of their expressions comes back empty from a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use plimsoll::telemetry::metric::Audience;
use serde_json::{Value, json};

use crate::alerts::{known_metrics, metrics_in, rules};
use crate::prometheus::{demo, load_and_work};
use crate::support::prometheus::Prometheus;
use crate::support::server::{Server, until};
use crate::support::tools::needs;

/// Every dashboard, with the name of its file.
pub(crate) fn dashboards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let files =
        fs::read_dir(folder).expect("the folder of dashboards").map(|entry| entry.expect("an entry").path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    assert!(!files.is_empty(), "there are dashboards");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).expect("a readable file");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files
        .iter()
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), read(path)))
        .collect()
}

/// The dashboard in this file.
pub(crate) fn dashboard(file: &str) -> Value {
    dashboards().into_iter().find_map(|(name, dashboard)| (name == file).then_some(dashboard)).expect(file)
}

fn gateway() -> Value {
    dashboard("gateway.json")
}

/// Whether it is about towns, one of which can be chosen.
fn is_about_towns(dashboard: &Value) -> bool {
    list(dashboard, "/templating/list").iter().any(|variable| text(variable, "/name") == "town")
}

/// What the panels ask.
pub(crate) fn expressions(dashboard: &Value) -> impl Iterator<Item = &str> {
    let targets = list(dashboard, "/panels").iter().flat_map(|panel| list(panel, "/targets"));
    targets.map(|target| text(target, "/expr"))
}

/// What the annotations ask.
fn annotations(dashboard: &Value) -> impl Iterator<Item = &str> {
    let all = list(dashboard, "/annotations/list").iter().filter(|one| one.get("expr").is_some());
    all.map(|annotation| text(annotation, "/expr"))
}

/// The query `letter` of the panel that is called so, as Grafana asks it.
fn asked(dashboard: &Value, panel: &str, letter: &str) -> String {
    let mut targets = list(dashboard, "/panels")
        .iter()
        .filter(|one| text(one, "/title") == panel)
        .flat_map(|panel| list(panel, "/targets"));
    let target = targets.find(|target| text(target, "/refId") == letter);
    filled_in(text(target.unwrap_or_else(|| panic!("{panel} has {letter}")), "/expr"))
}

pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The rules of Grafana's dashboard-linter that apply here, and our own.
fn complaints(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            found.push(what);
        }
    };
    demand(text(dashboard, "/title").contains('?'), "the title names no question".to_owned());
    demand(!text(dashboard, "/uid").is_empty(), "no uid".to_owned());
    demand(dashboard["editable"] == json!(false), "it is editable".to_owned());
    demand(
        matches!(dashboard["schemaVersion"].as_u64(), Some(39..=42)),
        "schemaVersion is not 39 to 42".to_owned(),
    );
    let variables = list(dashboard, "/templating/list");
    for name in ["datasource", "job", "instance"] {
        let variable = variables.iter().find(|variable| text(variable, "/name") == name);
        demand(variable.is_some(), format!("no variable `{name}`"));
    }
    for variable in variables {
        let name = text(variable, "/name");
        demand(!text(variable, "/label").is_empty(), format!("variable `{name}`: no label"));
        if name == "datasource" {
            let chosen = (text(variable, "/type"), text(variable, "/query"));
            demand(chosen == ("datasource", "prometheus"), format!("variable `{name}`: not a data source"));
            continue;
        }
        demand(text(variable, "/type") == "query", format!("variable `{name}`: not asked for"));
        demand(
            text(variable, "/datasource/uid") == "${datasource}",
            format!("variable `{name}`: asked elsewhere"),
        );
        demand(variable["multi"] == json!(true), format!("variable `{name}`: not several"));
        demand(variable["includeAll"] == json!(true), format!("variable `{name}`: not all"));
        demand(text(variable, "/allValue") == ".+", format!("variable `{name}`: all is not .+"));
        demand(variable["refresh"] == json!(2), format!("variable `{name}`: not asked for again"));
    }
    let panels = list(dashboard, "/panels");
    demand((1..=25).contains(&panels.len()), format!("{} panels", panels.len()));
    let ids: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    demand(ids.len() == panels.len(), "panels share an id".to_owned());
    let first_row = panels.iter().filter(|panel| panel.pointer("/gridPos/y") == Some(&json!(0)));
    demand(
        first_row.clone().count() > 1 && first_row.clone().all(|panel| panel["type"] == "stat"),
        "the first row does not say whether it is healthy".to_owned(),
    );
    found.extend(panels.iter().flat_map(panel_complaints));
    if is_about_towns(dashboard) {
        let every_town = |one: &&str| one.matches("town=~\"$town\"").count() != one.matches('{').count();
        found.extend(
            expressions(dashboard).filter(every_town).map(|one| format!("a selector without `town`: {one}")),
        );
    }
    found
}

/// Whether every range is Grafana's, which follows the step and the scrapes; one that looks far back for where a line leads
/// names its own.
fn ranges_follow(expression: &str) -> bool {
    let mut ranges = expression.match_indices('[').map(|(at, _)| expression.split_at(at));
    ranges.all(|(before, range)| {
        let call = before.rsplit_once('(').map_or("", |(call, _)| call);
        let leads_on = call.ends_with("deriv") || call.ends_with("predict_linear");
        range.starts_with("[$__rate_interval]") || range.starts_with("[$__range]") || leads_on
    })
}

fn panel_complaints(panel: &Value) -> Vec<String> {
    let title = text(panel, "/title");
    let mut found = Vec::new();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("panel `{title}`: {what}"));
        }
    };
    demand(!title.is_empty(), "no title");
    if panel["type"] == "text" {
        demand(text(panel, "/options/content").len() > 40, "it says nothing");
        return found;
    }
    demand(text(panel, "/description").len() > 40, "its description does not say what to do");
    demand(!text(panel, "/fieldConfig/defaults/unit").is_empty(), "no unit");
    demand(text(panel, "/datasource/uid") == "${datasource}", "its data source is not the variable");
    let targets = list(panel, "/targets");
    demand(!targets.is_empty(), "no query");
    for target in targets {
        let expression = text(target, "/expr");
        demand(
            text(target, "/datasource/uid") == "${datasource}",
            "a query's data source is not the variable",
        );
        demand(!text(target, "/legendFormat").is_empty(), "a query without a legend");
        let selectors = expression.matches('{').count();
        demand(selectors > 0, "a query without a selector");
        demand(
            expression.matches("job=~\"$job\"").count() == selectors,
            "a selector without the variable `job`",
        );
        demand(
            expression.matches("instance=~\"$instance\"").count() == selectors,
            "a selector without `instance`",
        );
        demand(ranges_follow(expression), "a range that is not $__rate_interval or $__range");
        for counter in
            expression.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| w.ends_with("_total"))
        {
            let before = &expression[..expression.find(counter).expect("it is there")];
            demand(
                before.ends_with("rate(") || before.ends_with("increase("),
                "a counter without rate or increase",
            );
        }
    }
    found
}

#[test]
fn every_dashboard_keeps_the_rules() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert_eq!(complaints(&dashboard), Vec::<String>::new(), "{file}");
        assert!(
            uids.insert(text(&dashboard, "/uid").to_owned()),
            "{file}: its uid stands in another one too"
        );
    }
}

#[test]
fn each_rule_complains_about_a_dashboard_that_breaks_it() {
    let good = gateway();
    let broken = [
        ("/title", json!("Gateway"), "no question"),
        ("/uid", json!(""), "no uid"),
        ("/editable", json!(true), "editable"),
        ("/schemaVersion", json!(38), "schemaVersion"),
        ("/templating/list/1/name", json!("jobs"), "no variable `job`"),
        ("/templating/list/0/query", json!("loki"), "not a data source"),
        ("/templating/list/1/label", json!(""), "no label"),
        ("/templating/list/1/type", json!("custom"), "not asked for"),
        ("/templating/list/1/datasource/uid", json!("abc"), "asked elsewhere"),
        ("/templating/list/1/multi", json!(false), "not several"),
        ("/templating/list/2/includeAll", json!(false), "not all"),
        ("/templating/list/2/allValue", json!(".*"), "all is not"),
        ("/templating/list/2/refresh", json!(1), "not asked for again"),
        ("/panels/3/type", json!("text"), "says nothing"),
        ("/panels/1/id", json!(1), "share an id"),
        ("/panels/0/type", json!("timeseries"), "healthy"),
        ("/panels/3/title", json!(""), "no title"),
        ("/panels/3/description", json!("Errors."), "what to do"),
        ("/panels/3/fieldConfig/defaults/unit", json!(""), "no unit"),
        ("/panels/3/datasource/uid", json!("abc"), "not the variable"),
        ("/panels/3/targets", json!([]), "no query"),
        ("/panels/1/targets/0/legendFormat", json!(""), "legend"),
        ("/panels/1/targets/0/expr", json!("max(plimsoll_queue_depth)"), "without a selector"),
        ("/panels/1/targets/0/expr", json!("max(a{instance=~\"$instance\"})"), "variable `job`"),
        ("/panels/1/targets/0/expr", json!("max(a{job=~\"$job\"})"), "without `instance`"),
        (
            "/panels/1/targets/0/expr",
            json!("rate(a_total{job=~\"$job\",instance=~\"$instance\"}[5m])"),
            "$__rate_interval",
        ),
        (
            "/panels/1/targets/0/expr",
            json!("max_over_time(a{job=~\"$job\",instance=~\"$instance\"}[6h])"),
            "$__rate_interval",
        ),
        (
            "/panels/1/targets/0/expr",
            json!("sum(a_total{job=~\"$job\",instance=~\"$instance\"})"),
            "without rate",
        ),
    ];
    let of_towns = json!("max(a{job=~\"$job\",instance=~\"$instance\"})");
    let mut bad = dashboard("reconciler.json");
    bad["panels"][0]["targets"][0]["expr"] = of_towns;
    assert_eq!(complaints(&bad).len(), 1, "{:?}", complaints(&bad));
    for (pointer, value, fragment) in broken {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} exists")) = value;
        let complaints = complaints(&bad);
        assert!(
            complaints.iter().any(|one| one.contains(fragment)),
            "{pointer}: {fragment:?} not in {complaints:?}"
        );
    }
}

#[tokio::test]
async fn no_expression_is_empty_after_the_demo_load() {
    if needs("prometheus").is_none() {
        return;
    }
    let mut config = demo(11);
    // Spans that are lost are counted only where they are sent.
    config["telemetry"]["otlp"]["endpoint"] = json!("http://127.0.0.1:1");
    let server = Server::start(config).await;
    let prometheus = Prometheus::scraping(&server).await.expect("it was there a moment ago");
    // Over several scrapes, so that rates have two samples that differ.
    load_and_work(&server, 11, 400, 80.0).await;
    for (file, dashboard) in dashboards() {
        for expression in expressions(&dashboard) {
            let asked = filled_in(expression);
            let what = format!("{file}: {expression} has a value");
            until(&what, async || {
                let values = prometheus.values(&asked).await?;
                values.iter().any(|value| value.is_finite()).then_some(())
            })
            .await;
        }
        // Annotations are empty while all is well; they have to be accepted.
        for expression in annotations(&dashboard) {
            until(expression, async || prometheus.values(&filled_in(expression)).await.map(drop)).await;
        }
    }
    for rule in rules() {
        let asked = rule.record.unwrap_or_else(|| without_comparisons(&rule.expr));
        until(&format!("{asked} has a value"), async || {
            let values = prometheus.values(&asked).await?;
            values.iter().any(|value| value.is_finite()).then_some(())
        })
        .await;
    }
}

/// What an alert asks, of all series: whether a comparison holds instead of only where it does.
fn without_comparisons(expression: &str) -> String {
    let signs = [(" > ", " > bool "), (" < ", " < bool "), (" == ", " == bool ")];
    let open = signs.iter().fold(expression.to_owned(), |text, (sign, bool)| text.replace(sign, bool));
    open.replace(" unless ", " and ").replace("absent(", "count(")
}

#[tokio::test]
async fn a_job_that_is_not_plimsoll_counts_nowhere_and_a_plimsoll_that_ended_counts_as_down() {
    if needs("prometheus").is_none() {
        return;
    }
    let server = Server::start(demo(12)).await;
    let mut prometheus = Prometheus::scraping(&server).await.expect("it was there a moment ago");
    prometheus.until_value("count(process_start_time_seconds)", 2.0).await;
    for (file, dashboard) in dashboards() {
        for expression in expressions(&dashboard).chain(annotations(&dashboard)) {
            let foreign = filled_in(expression).replace("job=~\".+\"", "job=~\"prometheus\"");
            let values = until(&foreign, async || prometheus.values(&foreign).await).await;
            assert!(values.is_empty(), "{file}: {expression} counts a foreign job: {values:?}");
        }
    }
    let gateway = gateway();
    let down = asked(&gateway, "Instances that are down", "A");
    let known = asked(&gateway, "Instances that are down", "B");
    let failed = asked(&gateway, "Requests that failed", "A");
    prometheus.until_value(&down, 0.0).await;
    prometheus.until_value(&known, 1.0).await;
    prometheus.until_value(&failed, 0.0).await;
    server.kill();
    prometheus.until_value(&down, 1.0).await;
    prometheus.until_value(&known, 1.0).await;
    until("no share of failures", async || prometheus.values(&failed).await?.is_empty().then_some(())).await;
}

#[test]
fn every_metric_that_is_not_internal_is_used_and_every_one_used_exists() {
    let dashboards = dashboards();
    let panels = dashboards.iter().flat_map(|(_, dashboard)| expressions(dashboard));
    let rules = rules();
    let read = panels.chain(rules.iter().map(|rule| rule.expr.as_str())).flat_map(metrics_in);
    let used: BTreeSet<&str> = read.collect();
    for definition in plimsoll::catalogue::all().iter().filter(|one| one.audience == Audience::Operators) {
        let spelled = ["", "_bucket", "_sum", "_count"].map(|ending| format!("{}{ending}", definition.name));
        let shown = spelled.iter().any(|name| used.contains(name.as_str()));
        assert!(shown, "no dashboard and no alert uses {}", definition.name);
    }
    let known = known_metrics();
    for name in used {
        assert!(known.contains(name), "{name} is in no catalogue");
    }
    for record in rules.iter().filter_map(|rule| rule.record.as_deref()) {
        assert!(rules.iter().any(|rule| metrics_in(&rule.expr).contains(record)), "no alert reads {record}");
    }
}

/// What Grafana puts in for the variables.
pub(crate) fn filled_in(expression: &str) -> String {
    let expression = expression.replace("$__rate_interval", "60s").replace("$__range", "1h");
    ["$job", "$instance", "$town"].iter().fold(expression, |filled, name| filled.replace(name, ".+"))
}
