//! Traces over OTLP: they arrive whole over every wire, and a collector that fails costs spans, never time.

mod certificates;
mod spans;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use plimsoll::clock::Clock;
use plimsoll::secret::Secret;
use plimsoll::telemetry::metric::Definition;
use plimsoll::telemetry::span::{set_parent, trace_id_of, traceparent_of};
use plimsoll::telemetry::{
    Config, InstallError, LineFormat, OtlpConfig, OtlpProtocol, Registry, Telemetry, TelemetryParts,
    TraceContext, build,
};
use plimsoll::units::Period;
use tracing::Dispatch;

use crate::support::receiver::{Answer, Receiver, Security};

const BOTH: [OtlpProtocol; 2] = [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf];

/// A telemetry stack of its own, not the process's.
struct Stack {
    dispatch: Dispatch,
    telemetry: Telemetry,
    registry: Registry,
}

impl Stack {
    fn new(otlp: OtlpConfig, env: &[(&str, &str)]) -> Self {
        Self::build(otlp, env).expect("a working configuration")
    }

    fn build(otlp: OtlpConfig, env: &[(&str, &str)]) -> Result<Self, InstallError> {
        let catalogue: Vec<Definition> = plimsoll::catalogue::all();
        let registry = Registry::new(&catalogue).expect("a valid catalogue");
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        let (dispatch, telemetry) = build(TelemetryParts {
            config: &Config { otlp, ..Config::default() },
            registry: &registry,
            event_sink: Arc::new(|_| {}),
            clock: Clock::system(),
            env: &env,
            log: (Box::new(std::io::sink()), LineFormat::Json),
        })?;
        Ok(Self { dispatch, telemetry, registry })
    }

    fn within<T>(&self, emit: impl FnOnce() -> T) -> T {
        tracing::dispatcher::with_default(&self.dispatch, emit)
    }

    /// Ends the stack, and gives the losses by reason and how long ending took.
    async fn end(self, deadline: Duration) -> (BTreeMap<String, u64>, Duration) {
        let Self { dispatch, telemetry, registry } = self;
        let clock = Clock::system();
        tokio::task::spawn_blocking(move || telemetry.shutdown(deadline)).await.expect("no panic");
        drop(dispatch);
        (losses(&registry), clock.elapsed())
    }
}

/// What was lost, by reason, without zeros.
fn losses(registry: &Registry) -> BTreeMap<String, u64> {
    let text = registry.render();
    let lost =
        text.lines().filter_map(|line| line.strip_prefix("plimsoll_dropped_total{what=\"spans\",reason=\""));
    let lost = lost.filter_map(|line| line.split_once("\"} "));
    let lost = lost.map(|(reason, count)| (reason.to_owned(), count.parse().expect("a whole number")));
    lost.filter(|(_, count)| *count > 0).collect()
}

fn lost(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

fn to(receiver: &Receiver, protocol: OtlpProtocol) -> OtlpConfig {
    OtlpConfig { endpoint: Some(receiver.endpoint()), protocol: Some(protocol), ..OtlpConfig::default() }
}

/// Ends `count` spans, every second one a child of the one before.
fn emit(count: usize) {
    for n in 0..count / 2 {
        let parent = tracing::info_span!(target: "plimsoll::test", "agent.send", n, otel.kind = "server");
        let _entered = parent.enter();
        tracing::info_span!(target: "plimsoll::test", "lane.wait", n).in_scope(|| {
            tracing::info!(target: "plimsoll::test", depth = 3, "waited");
        });
    }
}

fn assert_complete(spans: &[Span], count: usize) {
    assert_eq!(spans.len(), count);
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    assert_eq!(by_id.len(), count, "every span has an id of its own");
    for span in spans {
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        if span.name == "lane.wait" {
            let parent = by_id[span.parent_span_id.as_slice()];
            assert_eq!((parent.name.as_str(), &parent.trace_id), ("agent.send", &span.trace_id));
            assert_eq!(span.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["waited"]);
        } else {
            assert_eq!((span.name.as_str(), span.kind), ("agent.send", 2));
            assert!(span.parent_span_id.is_empty());
        }
        assert!(span.attributes.iter().any(|attribute| attribute.key == "n"));
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_complete_over_grpc_and_http_plain_and_tls() {
    for protocol in BOTH {
        for security in [Security::Plain, Security::Tls] {
            let receiver = Receiver::start(protocol, security, &[]).await;
            let ca_file = receiver.certificates.as_ref().map(|certificates| certificates.file("ca.pem"));
            let headers = [("x-api-key".to_owned(), Secret::new("k1".to_owned(), "***"))].into();
            let config = OtlpConfig { ca_file, headers, ..to(&receiver, protocol) };
            let stack = Stack::new(config, &[]);
            stack.within(|| emit(5_000));
            let (losses, _took) = stack.end(PATIENCE).await;
            assert_eq!(losses, lost(&[]), "{protocol:?} {security:?}");
            let inbox = receiver.inbox();
            assert_complete(&inbox.spans, 5_000);
            assert!(inbox.requests.iter().all(|headers| headers["x-api-key"] == "k1"));
            assert!(inbox.requests.len() >= 3, "batches of at most 2,048");
            assert!(inbox.resources.iter().any(|(k, v)| k == "service.name" && v.contains("plimsoll")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    for protocol in BOTH {
        let receiver = Receiver::start(protocol, Security::Tls, &[]).await;
        let stack = Stack::new(to(&receiver, protocol), &[]);
        stack.within(|| emit(2));
        let (losses, _took) = stack.end(Duration::from_millis(300)).await;
        assert_eq!(losses, lost(&[("shutdown", 2)]), "{protocol:?}");
        assert_eq!(receiver.inbox().requests.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standard_variables_alone_suffice() {
    for (protocol, name) in BOTH.into_iter().zip(["grpc", "http/protobuf"]) {
        let receiver = Receiver::start(protocol, Security::Plain, &[]).await;
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.endpoint()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", name),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_SERVICE_NAME", "fleet"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=lost"),
        ];
        let stack = Stack::new(OtlpConfig::default(), &env);
        stack.within(|| emit(100));
        assert_eq!(stack.end(PATIENCE).await.0, lost(&[]));
        let inbox = receiver.inbox();
        assert_complete(&inbox.spans, 100);
        assert_eq!(inbox.requests[0]["x-tenant"], "a b");
        let encoding = if name == "grpc" { "grpc-encoding" } else { "content-encoding" };
        assert_eq!(inbox.requests[0][encoding], "gzip");
        let resource = |key: &str| inbox.resources.iter().filter(|(k, _)| k == key).count();
        assert!(inbox.resources.iter().any(|(k, v)| k == "service.name" && v.contains("fleet")));
        assert_eq!((resource("service.name"), resource("deployment.environment.name")), (1, 1));
    }
}

/// The library reads the process's variables on its own. They are set for a child, because all tests here share one
/// process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_wins_over_what_the_library_reads_itself() {
    const INSIDE: &str = "PLIMSOLL_TEST_WITH_OTEL_VARIABLES";
    if std::env::var_os(INSIDE).is_none() {
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "otlp::the_configuration_wins_over_what_the_library_reads_itself"])
            .env(INSIDE, "1")
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=theirs,x-tenant=theirs")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            .env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    for protocol in BOTH {
        let receiver = Receiver::start(protocol, Security::Plain, &[]).await;
        let headers = [("X-Api-Key".to_owned(), Secret::new("ours".to_owned(), "***"))].into();
        let stack = Stack::new(OtlpConfig { headers, ..to(&receiver, protocol) }, &[]);
        stack.within(|| emit(2));
        assert_eq!(stack.end(PATIENCE).await.0, lost(&[]), "{protocol:?}");
        let inbox = receiver.inbox();
        assert_complete(&inbox.spans, 2);
        let sent = inbox.requests[0].get_all("x-api-key").iter().collect::<Vec<_>>();
        assert_eq!(sent, ["ours"], "{protocol:?}");
        assert_eq!(inbox.requests[0]["x-tenant"], "theirs", "what is left open comes from the variables");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_trace_goes_on_and_its_decision_is_kept() {
    let receiver = Receiver::start(OtlpProtocol::Grpc, Security::Plain, &[]).await;
    let stack = Stack::new(to(&receiver, OtlpProtocol::Grpc), &[]);
    let joined = |flags: &str| {
        let caller = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let caller = TraceContext::parse(&caller).expect("valid").with_state("rojo=1");
        stack.within(|| {
            let span = tracing::info_span!(target: "plimsoll::test", "agent.send");
            set_parent(&span, &caller);
            assert_eq!(trace_id_of(&span), Some(caller.trace_id));
            traceparent_of(&span).expect("a context")
        })
    };
    let (recorded, ignored) = (joined("01"), joined("00"));
    assert_eq!((recorded.sampled, ignored.sampled), (true, false));
    assert_eq!([&recorded, &ignored].map(|context| context.state.header()), ["rojo=1"; 2]);
    assert_eq!(stack.end(PATIENCE).await.0, lost(&[]));
    let inbox = receiver.inbox();
    let [span] = inbox.spans.as_slice() else { panic!("only the sampled one, not {}", inbox.spans.len()) };
    assert_eq!(
        (span.trace_state.as_str(), span.parent_span_id.as_slice()),
        ("rojo=1", &0xb7ad_6b71_6920_3331_u64.to_be_bytes()[..])
    );
    assert_eq!(span.span_id, recorded.parent_span_id.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_for_good_is_not_retried_and_counted_as_rejected() {
    for protocol in BOTH {
        let receiver = Receiver::start(protocol, Security::Plain, &[Answer::Refuse]).await;
        let stack = Stack::new(to(&receiver, protocol), &[]);
        stack.within(|| emit(10));
        assert_eq!(stack.end(PATIENCE).await.0, lost(&[("rejected", 10)]), "{protocol:?}");
        assert_eq!(receiver.inbox().requests.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_partial_success_leaves_out_is_counted() {
    for protocol in BOTH {
        let receiver = Receiver::start(protocol, Security::Plain, &[Answer::Partial(7)]).await;
        let stack = Stack::new(to(&receiver, protocol), &[]);
        stack.within(|| emit(10));
        assert_eq!(stack.end(PATIENCE).await.0, lost(&[("partial", 7)]), "{protocol:?}");
        assert_eq!(receiver.inbox().requests.len(), 1, "a partial success is not sent again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_asks_to_wait_is_waited_for() {
    for protocol in BOTH {
        let wait = Duration::from_secs(1);
        let script = [Answer::Throttle(wait), Answer::Unavailable];
        let receiver = Receiver::start(protocol, Security::Plain, &script).await;
        let stack = Stack::new(to(&receiver, protocol), &[]);
        stack.within(|| emit(10));
        let (losses, took) = stack.end(PATIENCE).await;
        assert_eq!(losses, lost(&[]), "{protocol:?}");
        assert!(took >= wait, "{protocol:?} came back after {took:?}");
        let inbox = receiver.inbox();
        assert_complete(&inbox.spans, 10);
        assert_eq!(inbox.requests.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_longer_than_spans_are_kept_is_not_begun() {
    for protocol in BOTH {
        let script = [Answer::Throttle(Duration::from_secs(300))];
        let receiver = Receiver::start(protocol, Security::Plain, &script).await;
        let stack = Stack::new(to(&receiver, protocol), &[]);
        stack.within(|| emit(10));
        let (losses, took) = stack.end(PATIENCE).await;
        assert_eq!(losses, lost(&[("throttled", 10)]), "{protocol:?}");
        assert!(took < PATIENCE, "{protocol:?} waited {took:?}");
        assert_eq!(receiver.inbox().requests.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_or_is_gone_costs_spans_but_no_time() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    for protocol in BOTH {
        let hangs = Receiver::start(protocol, Security::Plain, &[Answer::Hang; 1_000]).await;
        for endpoint in [hangs.endpoint(), format!("http://{gone}")] {
            let timeout = Some(Period::from_millis(200));
            let config = OtlpConfig {
                endpoint: Some(endpoint.clone()),
                protocol: Some(protocol),
                timeout,
                ..OtlpConfig::default()
            };
            let stack = Stack::new(config, &[("OTEL_BSP_MAX_QUEUE_SIZE", "1000")]);
            stack.within(|| emit(20_000));
            let (losses, ending) = stack.end(Duration::from_millis(500)).await;
            assert!(ending < PATIENCE, "{endpoint}: {ending:?}");
            assert_eq!(
                losses.values().sum::<u64>(),
                20_000,
                "{endpoint}: every span is accounted for: {losses:?}"
            );
            // Whoever waited for the collector would have found room in the queue.
            assert!(losses["queue_full"] > 15_000, "{losses:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_flaps_loses_nothing() {
    let script = [Answer::Unavailable, Answer::Unavailable, Answer::Take, Answer::Unavailable, Answer::Hang];
    for protocol in BOTH {
        let receiver = Receiver::start(protocol, Security::Plain, &script).await;
        let config = OtlpConfig { timeout: Some(Period::from_millis(300)), ..to(&receiver, protocol) };
        let stack = Stack::new(config, &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")]);
        stack.within(|| emit(400));
        assert_eq!(stack.end(PATIENCE).await.0, lost(&[]), "{protocol:?}");
        assert_complete(&receiver.inbox().spans, 400);
    }
}

/// The exporter uses tonic, hyper and reqwest, whose own spans would make a trace of sending traces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spans_of_libraries_are_not_exported() {
    let receiver = Receiver::start(OtlpProtocol::Grpc, Security::Plain, &[]).await;
    let stack = Stack::new(to(&receiver, OtlpProtocol::Grpc), &[]);
    stack.within(|| {
        let _theirs = tracing::info_span!(target: "h2::client", "connection").entered();
        let _near = tracing::info_span!(target: "plimsollish", "near").entered();
        let _fine = tracing::debug_span!(target: "plimsoll::test", "fine").entered();
        emit(2);
    });
    assert_eq!(stack.end(PATIENCE).await.0, lost(&[]));
    assert_complete(&receiver.inbox().spans, 2);
}
