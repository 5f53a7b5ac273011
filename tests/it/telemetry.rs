//! The catalogue of metrics keeps its rules, and what is recorded once is seen everywhere alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use metrics::{Key, Label, Metadata, Recorder as _};
use plimsoll::clock::{Clock, Timestamp};
use plimsoll::ids::{AgentId, RequestId, SessionId, TraceId};
use plimsoll::live::{self, Event, EventFilter, Level, Live, ModelCall, ToolCall, gen_ai};
use plimsoll::telemetry::metric::{Audience, Definition, Kind, is_open_label};
use plimsoll::telemetry::{CONTENT_TYPE, Registry, Shared};
use proptest::prelude::*;

use crate::support::tools::needs;

fn registry() -> Registry {
    Registry::new(&plimsoll::catalogue::all()).expect("a valid catalogue")
}

/// What is wrong with the catalogue, one line each.
fn complaints(catalogue: &[Definition]) -> Vec<String> {
    let mut found = Vec::new();
    let mut names: Vec<&str> = catalogue.iter().map(|definition| definition.name).collect();
    names.sort_unstable();
    found.extend(names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("{} twice", pair[0])));
    for definition in catalogue {
        let mut rule = |kept: bool, rule: &str| {
            if !kept {
                found.push(format!("{}: {rule}", definition.name));
            }
        };
        let name = definition.name;
        let word = |word: &str| name.split('_').any(|part| part == word);
        rule(["plimsoll_", "gen_ai_", "process_"].iter().any(|prefix| name.starts_with(prefix)), "prefix");
        rule(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "characters");
        let scaled = ["ms", "millis", "milliseconds", "minutes", "hours", "kb", "mb", "percent", "cents"];
        rule(!scaled.into_iter().any(word), "a base unit");
        rule(definition.help.ends_with('.') && definition.help.len() > 10, "help is a sentence");
        rule(definition.series_max > 0 && definition.series_max <= 1_000, "a cap of 1 to 1,000 series");
        rule(!definition.labels.iter().any(|label| ["instance", "job", "le"].contains(label)), "label names");
        let is_id =
            |label: &&&str| label.ends_with("_id") || ["session", "request", "bead", "user"].contains(*label);
        rule(definition.labels.iter().find(is_id).is_none(), "no id is a label");
        match definition.kind {
            Kind::Counter => rule(name.ends_with("_total"), "a counter ends in _total"),
            Kind::Gauge => rule(!name.ends_with("_total"), "only a counter ends in _total"),
            Kind::Histogram { buckets, reason } => {
                rule(!name.ends_with("_total"), "only a counter ends in _total");
                let unit = ["_seconds", "_bytes", "_usd"].iter().any(|unit| name.ends_with(unit));
                rule(unit || name == gen_ai::TOKEN_USAGE, "a histogram ends in its unit");
                rule(buckets.is_sorted_by(|a, b| a < b) && !buckets.is_empty(), "buckets ascend");
                rule(buckets.iter().all(|edge| edge.is_finite() && *edge > 0.0), "buckets are finite");
                rule(reason.len() > 10, "buckets have a reason");
            }
        }
    }
    found
}

#[test]
fn every_metric_keeps_the_rules() {
    assert_eq!(complaints(&plimsoll::catalogue::all()), [""; 0]);
}

#[test]
fn each_broken_rule_is_found() {
    let good = live::metrics::OPERATION_DURATION.0;
    assert_eq!(complaints(&[good]), [""; 0]);
    let one = |broken: Definition, rule: &str| {
        let found = complaints(&[broken]);
        assert!(matches!(found.as_slice(), [only] if only.ends_with(rule)), "{rule}: {found:?}");
    };
    assert_eq!(complaints(&[good, good]).len(), 1);
    one(Definition { name: "other_seconds", ..good }, "prefix");
    one(Definition { help: "No full stop", ..good }, "help is a sentence");
    one(Definition { labels: &["instance"], ..good }, "label names");
    one(Definition { labels: &["trace_id"], ..good }, "no id is a label");
    one(Definition { name: "plimsoll_x_ms_total", kind: Kind::Counter, ..good }, "a base unit");
    one(Definition { name: "plimsoll_x", kind: Kind::Counter, ..good }, "a counter ends in _total");
    one(Definition { name: "plimsoll_x_total", kind: Kind::Gauge, ..good }, "only a counter ends in _total");
    let kind = Kind::Histogram { buckets: &[2.0, 1.0], reason: "a reason for these" };
    one(Definition { kind, ..good }, "buckets ascend");
}

/// The most samples as which one metric can be scraped: what its cap allows, and what is folded under `other` once for
/// each set of values of its closed labels.
fn samples_max(definition: &Definition) -> usize {
    // More than the largest closed label, `code`, has.
    const CLOSED_VALUES_MAX: usize = 40;
    let all_open = definition.labels.iter().all(|label| is_open_label(label));
    let folded = if all_open { 1 } else { CLOSED_VALUES_MAX };
    let samples = match definition.kind {
        Kind::Counter | Kind::Gauge => 1,
        // The edges, +Inf, the sum and the count.
        Kind::Histogram { buckets, .. } => buckets.len() + 3,
    };
    (definition.series_max + folded) * samples
}

#[test]
fn prometheus_takes_a_plimsoll_that_is_at_all_its_caps() {
    let worst: usize = plimsoll::catalogue::all().iter().map(samples_max).sum();
    let configured = include_str!("../../stack/prometheus.yml").split("sample_limit: ").skip(1);
    let limits: Vec<usize> = configured
        .map(|rest| rest.lines().next().and_then(|line| line.parse().ok()).expect("a number of samples"))
        .collect();
    assert!(!limits.is_empty(), "the scrape has a limit");
    for limit in limits {
        assert!(
            worst <= limit,
            "{worst} samples would be refused whole by {limit}, and show as a target down"
        );
        assert!(limit < 2 * worst, "{limit} samples are no limit: the worst is {worst}");
    }
}

/// The edges that rules and dashboards name. Prometheus 2 writes an integer edge as `1`, Prometheus 3 as `1.0`.
fn named_edges(text: &str) -> Vec<&str> {
    let after = text.split("le=").skip(1).map(|rest| rest.trim_start_matches(['~', '\\', '"', '\'']));
    after.filter_map(|rest| rest.split(['"', '\\', '\'', '}']).next()).collect()
}

#[test]
fn rules_and_dashboards_name_no_integer_edge() {
    assert_eq!(named_edges("a{le=\"0.5\"} b{x=\"1\",le=\\\"1.0\\\"}"), ["0.5", "1.0"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["alerts", "dashboards"].iter().flat_map(|dir| files_below(&root.join(dir))) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        for edge in named_edges(&text) {
            let integer = edge.parse::<f64>().is_ok_and(|edge| edge.fract() == 0.0);
            assert!(!integer, "{} names the edge {edge}", file.display());
        }
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn document(catalogue: &[Definition]) -> String {
    let mut text = format!(
        "# Metrics\n\nEvery metric that `GET /metrics` can show, made from the catalogue in the code: \
         `PLIMSOLL_BLESS=1 cargo test the_document_lists` writes this file anew.\n\n\
         Names, labels and buckets of `gen_ai_*` are those of the OpenTelemetry semantic conventions, version {}, the \
         newest release that defines them: dots are written as underscores, and the unit `s` as `_seconds`. Money is \
         a histogram whose `_sum` is the amount. Durations are in seconds, sizes in bytes.\n\n\
         A metric makes at most as many series as its cap says. What comes after is counted under `other` for the \
         labels whose values come from outside, and steps `plimsoll_series_overflow_total`. Internal metrics are for \
         looking into plimsoll itself; no dashboard or alert needs them.\n\n\
         The first 20 towns have series of their own, in the order in which they were made; the others share \
         `town=\"other\"`, where counters and histograms add up, gauges of events and seconds show the worst town, and \
         counts of beads, agents and violations are sums. The label `invariant` is number and name, such as \
         `7_working_without_hook`: the number is that of events and of docs/towns.md, the name says in an alert what is \
         wrong.\n\n\
         | metric | type | labels | cap | meaning |\n|---|---|---|---|---|\n",
        gen_ai::CONVENTIONS_VERSION
    );
    for Definition { name, help, labels, series_max, kind, audience } in catalogue {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram { .. } => "histogram",
        };
        let internal = if *audience == Audience::Internal { " (internal)" } else { "" };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let row =
            [format!("`{name}`"), format!("{kind}{internal}"), labels.join(", "), series_max.to_string()];
        let _ = writeln!(text, "| {} | {} |", row.join(" | "), help.replace('|', "\\|"));
    }
    text.push_str("\n## Buckets\n\n| metric | upper edges | why |\n|---|---|---|\n");
    for definition in catalogue {
        if let Kind::Histogram { buckets, reason } = definition.kind {
            let edges: Vec<_> = buckets.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "| `{}` | {} | {reason} |", definition.name, edges.join(", "));
        }
    }
    text
}

#[test]
fn the_document_lists_every_metric() {
    let expected = document(&plimsoll::catalogue::all());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("PLIMSOLL_BLESS").is_some() {
        std::fs::write(&path, &expected).expect("docs/metrics.md is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == expected, "docs/metrics.md is old: PLIMSOLL_BLESS=1 cargo test the_document_lists");
}

/// An exposition in which every metric of the catalogue has a series with hostile label values.
fn full_exposition() -> String {
    const METADATA: Metadata<'static> = Metadata::new("test", metrics::Level::INFO, None);
    let registry = registry();
    let recorder = registry.recorder();
    for definition in plimsoll::catalogue::all() {
        let value = "quote \" backslash \\ newline \n \u{202e}";
        let labels: Vec<_> = definition.labels.iter().map(|label| Label::new(*label, value)).collect();
        let key = Key::from_parts(definition.name, labels);
        match definition.kind {
            Kind::Counter => recorder.register_counter(&key, &METADATA).increment(1),
            Kind::Gauge => recorder.register_gauge(&key, &METADATA).set(1.5),
            Kind::Histogram { .. } => {
                registry.histogram(&definition, &vec![value; definition.labels.len()]).record(0.3)
            }
        }
    }
    registry.render()
}

#[test]
fn promtool_has_nothing_to_say_about_the_whole_exposition() {
    let Some(promtool) = needs("promtool") else { return };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let exposition = full_exposition();
    check.stdin.take().expect("piped").write_all(exposition.as_bytes()).expect("promtool reads");
    let said = check.wait_with_output().expect("promtool ends");
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && text.trim().is_empty(), "{text}");
    assert_eq!(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
}

#[test]
fn two_renderings_are_in_the_same_order() {
    let names = |text: &str| {
        let series =
            text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned());
        series.filter(|series| !series.starts_with('#')).collect::<Vec<_>>()
    };
    let (first, second) = (names(&full_exposition()), names(&full_exposition()));
    assert!(first == second && first.len() > 100);
    assert!(full_exposition().contains("process_start_time_seconds "));
}

/// One thing that happens to the live view.
#[derive(Debug, Clone)]
enum Fact {
    Message,
    Event { level: Level, source: usize },
    Call { provider: usize, latency: u32, failed: bool, tokens: Option<(u16, u16)>, cents: Option<u16> },
    Tool { name: usize, failed: bool },
}

fn fact() -> impl Strategy<Value = Fact> {
    let level = prop_oneof![Just(Level::Info), Just(Level::Warn), Just(Level::Error)];
    let call = (0..3_usize, 1..5_000_u32, any::<bool>(), any::<Option<(u16, u16)>>(), any::<Option<u16>>());
    prop_oneof![
        1 => Just(Fact::Message),
        2 => (level, 0..4_usize).prop_map(|(level, source)| Fact::Event { level, source }),
        3 => call.prop_map(|(provider, latency, failed, tokens, cents)| {
            Fact::Call { provider, latency, failed, tokens, cents }
        }),
        1 => (0..3_usize, any::<bool>()).prop_map(|(name, failed)| Fact::Tool { name, failed }),
    ]
}

const SOURCES: [&str; 4] = ["agent.send", "journal", "tool.call", "otlp"];

fn record(live: &Live, fact: &Fact) {
    let agent = AgentId::parse("a").expect("valid");
    match fact {
        Fact::Message => live.record_message(),
        Fact::Event { level, source } => live.record_event(Event {
            timestamp: Timestamp::from_millis(1),
            level: *level,
            source: SOURCES[*source].into(),
            message: "it happened".to_owned(),
            context: serde_json::Map::new(),
        }),
        Fact::Tool { name, failed } => {
            let error = failed.then(|| "exit 1".to_owned());
            live.record_tool_call(
                &agent,
                &ToolCall { name: format!("tool{name}"), error, duration: Some(5.0) },
            );
        }
        Fact::Call { provider, latency, failed, tokens, cents } => live.record_model_call(ModelCall {
            timestamp: Timestamp::from_millis(1),
            provider: format!("p{provider}"),
            model: "m-1".to_owned(),
            requested_model: "m".to_owned(),
            agent,
            session: SessionId::parse("s").expect("valid"),
            request_id: RequestId::parse("r").expect("valid"),
            trace_id: TraceId::from_bits(1).expect("not zero"),
            latency: f64::from(*latency),
            time_to_first_token: Some(f64::from(*latency) / 2.0),
            input_tokens: tokens.map(|(input, _)| u64::from(input)),
            output_tokens: tokens.map(|(_, output)| u64::from(output)),
            tokens_per_sec: None,
            cost_usd: cents.map(|cents| f64::from(cents) / 100.0),
            unpriced: cents.is_none(),
            error: failed.then(|| "timeout".to_owned()),
        }),
    }
}

/// The sum of all series of this name whose labels contain `label`.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
    let values = text.lines().filter(of_name).filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
}

fn assert_agreement(live: &Live, registry: &Registry, facts: &[Fact]) {
    let text = registry.render();
    let calls = live.model_calls();
    let count = |matches: fn(&Fact) -> bool| facts.iter().filter(|fact| matches(fact)).count() as u64;

    let messages = count(|fact| matches!(fact, Fact::Message));
    assert_eq!(live.messages_processed(), messages);
    assert_eq!(sum(&text, "plimsoll_messages_processed_total", ""), messages as f64);

    let errors = count(|fact| matches!(fact, Fact::Event { level: Level::Error, .. }));
    assert_eq!(live.errors(), errors);
    assert_eq!(sum(&text, "plimsoll_errors_total", ""), errors as f64);
    let events = count(|fact| matches!(fact, Fact::Event { .. }));
    assert_eq!(live.events(&EventFilter::default()).len() as u64, events.min(500));

    let total = count(|fact| matches!(fact, Fact::Call { .. }));
    let failed = count(|fact| matches!(fact, Fact::Call { failed: true, .. }));
    let duration_count = format!("{}_count", gen_ai::OPERATION_DURATION);
    assert_eq!((calls.total, calls.recent.len() as u64), (total, total.min(200)));
    assert_eq!(sum(&text, &duration_count, ""), total as f64);
    assert_eq!(sum(&text, &duration_count, "error_type=\"timeout\""), failed as f64);
    let unpriced = sum(&text, "plimsoll_model_unpriced_calls_total", "");
    assert_eq!(sum(&text, "plimsoll_model_call_cost_usd_count", "") + unpriced, total as f64);
    if total <= 200 {
        let in_ring = |read: fn(&ModelCall) -> f64| calls.recent.iter().map(|call| read(call)).sum::<f64>();
        let seconds = sum(&text, &format!("{}_sum", gen_ai::OPERATION_DURATION), "");
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
        assert!(near(in_ring(|call| call.latency) / 1_000.0, seconds));
        assert!(near(calls.avg_latency * calls.recent.len() as f64 / 1_000.0, seconds));
        assert!(near(calls.error_rate * total as f64, failed as f64));
        let tokens = |kind| sum(&text, &format!("{}_sum", gen_ai::TOKEN_USAGE), kind);
        assert!(near(in_ring(|call| call.input_tokens.unwrap_or(0) as f64), tokens("type=\"input\"")));
        assert!(near(in_ring(|call| call.output_tokens.unwrap_or(0) as f64), tokens("type=\"output\"")));
        let spent = sum(&text, "plimsoll_model_call_cost_usd_sum", "");
        assert!(near(in_ring(|call| call.cost_usd.unwrap_or(0.0)), spent));
    }
    let tools = count(|fact| matches!(fact, Fact::Tool { .. }));
    let failed = count(|fact| matches!(fact, Fact::Tool { failed: true, .. }));
    assert_eq!(sum(&text, "plimsoll_tool_calls_total", ""), tools as f64);
    assert_eq!(sum(&text, "plimsoll_tool_calls_total", "outcome=\"failed\""), failed as f64);
}

fn fresh() -> (Arc<Live>, Registry) {
    let registry = registry();
    let _shared = Shared::new(&registry);
    (Live::new(&live::Config::default(), &registry, Clock::system()), registry)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn snapshot_rings_and_prometheus_agree_after_random_load(facts in prop::collection::vec(fact(), 0..1_200)) {
        let (live, registry) = fresh();
        facts.iter().for_each(|fact| record(&live, fact));
        assert_agreement(&live, &registry, &facts);
    }

    #[test]
    fn they_agree_when_four_threads_record_and_one_scrapes(facts in prop::collection::vec(fact(), 100..1_200)) {
        let (live, registry) = fresh();
        std::thread::scope(|scope| {
            for part in facts.chunks(facts.len().div_ceil(4)) {
                let live = &live;
                scope.spawn(move || part.iter().for_each(|fact| record(live, fact)));
            }
            (0..5).for_each(|_| drop(registry.render()));
        });
        assert_agreement(&live, &registry, &facts);
    }
}

#[test]
fn closed_label_sets_stand_at_zero_from_the_start() {
    let (_live, registry) = fresh();
    let text = registry.render();
    let zeros: BTreeMap<_, _> = live::ERROR_SOURCES
        .iter()
        .map(|source| (*source, sum(&text, "plimsoll_errors_total", &format!("source=\"{source}\""))))
        .collect();
    assert!(zeros.values().all(|count| *count == 0.0));
    let series = text.lines().filter(|line| line.starts_with("plimsoll_errors_total{")).count();
    assert_eq!(series, zeros.len());
    assert!(text.contains("plimsoll_messages_processed_total 0"));
}
