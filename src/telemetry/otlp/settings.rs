//! Where traces go: the configuration, and for what it leaves open the standard `OTEL_*` variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! Nothing is sent unless an endpoint is named. `OTEL_SDK_DISABLED=true` turns traces off whatever else is set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

use super::super::config::{OtlpConfig, OtlpProtocol};

/// Reads one variable of the environment; tests hand in their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why traces cannot go where they should.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint is no address.
    #[error("{key} is no address such as http://127.0.0.1:4317")]
    Endpoint {
        /// Where it was given.
        key: &'static str,
    },
    /// A header cannot be sent.
    #[error("{key} has a header whose name or value cannot be sent: `{name}`")]
    Header {
        /// Where it was given.
        key: &'static str,
        /// Its name; never its value.
        name: String,
    },
    /// The share of traces is out of range.
    #[error("telemetry.otlp.sample_ratio is {0}: expected 0.0 to 1.0")]
    SampleRatio(f64),
    /// A client certificate without its key, or a key without its certificate.
    #[error("{given} is set and {missing} is not: mutual TLS needs both")]
    Half {
        /// The variable that is set.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A certificate or key could not be read.
    #[error("cannot read {}, named by {key}", path.display())]
    File {
        /// Where it was named.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

/// Everything the exporter needs to know.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) endpoint: Uri,
    pub(super) protocol: OtlpProtocol,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
    pub(super) compression: Compression,
    pub(super) tls: TlsFiles,
    pub(super) sampler: Sampler,
    pub(super) batch: Batch,
}

/// What export requests are packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
}

/// PEM files for TLS.
#[derive(Debug, Default)]
pub(super) struct TlsFiles {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

/// How spans are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) queue_spans_max: usize,
    pub(super) batch_spans_max: usize,
    pub(super) delay: Duration,
}

/// The variable's form for traces, and the one for all signals.
type Names = (&'static str, &'static str);

const ENDPOINT: Names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
const PROTOCOL: Names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
const HEADERS: Names = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
const TIMEOUT: Names = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
const COMPRESSION: Names = ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION");
const INSECURE: Names = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE");
const CERTIFICATE: Names = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
const CLIENT_CERTIFICATE: Names =
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE");
const CLIENT_KEY: Names = ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY");

impl Settings {
    /// The settings, or `None` if no traces are to be sent.
    pub(super) fn resolve(config: &OtlpConfig, env: Environment<'_>) -> Result<Option<Self>, SettingsError> {
        let env = Env(env);
        if env.is_true("OTEL_SDK_DISABLED") || (config.endpoint.is_none() && env.exporter_is_other()) {
            return Ok(None);
        }
        let protocol = config.protocol.unwrap_or_else(|| env.protocol());
        let Some(endpoint) = endpoint(config, &env, protocol)? else { return Ok(None) };
        Ok(Some(Self {
            endpoint,
            protocol,
            headers: headers(config, &env)?,
            timeout: config.timeout.map_or_else(|| env.timeout(), |period| period.0),
            compression: env.compression(),
            tls: tls_files(config, &env)?,
            sampler: sampler(config, &env)?,
            batch: env.batch(),
        }))
    }
}

/// Whether a caller's trace context is read and passed on: unless `OTEL_PROPAGATORS` names others only, or `none`.
pub(in super::super) fn propagates(env: Environment<'_>) -> bool {
    Env(env)
        .get("OTEL_PROPAGATORS")
        .is_none_or(|list| list.split(',').any(|name| name.trim() == "tracecontext"))
}

fn endpoint(
    config: &OtlpConfig,
    env: &Env<'_>,
    protocol: OtlpProtocol,
) -> Result<Option<Uri>, SettingsError> {
    let for_signal = || env.get(ENDPOINT.0).map(|text| (text, ENDPOINT.0, ""));
    let base = |text, key| match protocol {
        OtlpProtocol::Grpc => (text, key, ""),
        OtlpProtocol::HttpProtobuf => (text, key, "/v1/traces"),
    };
    let configured = config.endpoint.clone().map(|text| base(text, "telemetry.otlp.endpoint"));
    let named =
        configured.or_else(for_signal).or_else(|| env.get(ENDPOINT.1).map(|text| base(text, ENDPOINT.1)));
    let Some((text, key, path)) = named else { return Ok(None) };
    let scheme =
        match (text.contains("://"), env.pair(INSECURE).is_some_and(|v| v.eq_ignore_ascii_case("true"))) {
            (true, _) => "",
            (false, true) => "http://",
            (false, false) => "https://",
        };
    let path = if path.is_empty() || text.trim_end_matches('/').ends_with(path) { "" } else { path };
    let whole = format!("{scheme}{}{path}", if path.is_empty() { &text } else { text.trim_end_matches('/') });
    let uri: Uri = whole.parse().map_err(|_| SettingsError::Endpoint { key })?;
    let usable = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    if usable { Ok(Some(uri)) } else { Err(SettingsError::Endpoint { key }) }
}

fn headers(config: &OtlpConfig, env: &Env<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, SettingsError> {
    let mut all = BTreeMap::new();
    for pair in
        env.pair(HEADERS).iter().flat_map(|list| list.split(',')).filter(|pair| !pair.trim().is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
        all.insert(name.trim().to_ascii_lowercase(), (HEADERS.1, value));
    }
    for (name, secret) in &config.headers {
        all.insert(name.to_ascii_lowercase(), ("telemetry.otlp.headers", secret.expose().to_owned()));
    }
    let parse = |(name, (key, value)): (String, (&'static str, String))| match (
        HeaderName::try_from(&name),
        HeaderValue::try_from(value),
    ) {
        (Ok(parsed), Ok(mut value)) => {
            value.set_sensitive(true);
            Ok((parsed, value))
        }
        (Err(_), _) | (_, Err(_)) => Err(SettingsError::Header { key, name }),
    };
    all.into_iter().map(parse).collect()
}

fn tls_files(config: &OtlpConfig, env: &Env<'_>) -> Result<TlsFiles, SettingsError> {
    let read = |key, path: &Path| {
        std::fs::read(path).map_err(|cause| SettingsError::File { key, path: path.to_owned(), cause })
    };
    let from_env = |names: Names| env.pair(names).map(|path| read(names.1, Path::new(&path))).transpose();
    let ca = match &config.ca_file {
        Some(path) => Some(read("telemetry.otlp.ca_file", path)?),
        None => from_env(CERTIFICATE)?,
    };
    let half = |given: Names, missing: Names| SettingsError::Half { given: given.1, missing: missing.1 };
    let client = match (from_env(CLIENT_CERTIFICATE)?, from_env(CLIENT_KEY)?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => return Err(half(CLIENT_CERTIFICATE, CLIENT_KEY)),
        (None, Some(_)) => return Err(half(CLIENT_KEY, CLIENT_CERTIFICATE)),
    };
    Ok(TlsFiles { ca, client })
}

fn sampler(config: &OtlpConfig, env: &Env<'_>) -> Result<Sampler, SettingsError> {
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    if let Some(ratio) = config.sample_ratio {
        let valid = (0.0..=1.0).contains(&ratio);
        let sampler = parent_based(Sampler::TraceIdRatioBased(ratio));
        return if valid { Ok(sampler) } else { Err(SettingsError::SampleRatio(ratio)) };
    }
    let ratio = || {
        let given = env.get("OTEL_TRACES_SAMPLER_ARG").and_then(|arg| arg.parse().ok());
        Sampler::TraceIdRatioBased(given.filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or(1.0))
    };
    Ok(match env.get("OTEL_TRACES_SAMPLER").as_deref() {
        Some("always_on") => Sampler::AlwaysOn,
        Some("always_off") => Sampler::AlwaysOff,
        Some("traceidratio") => ratio(),
        Some("parentbased_always_off") => parent_based(Sampler::AlwaysOff),
        Some("parentbased_traceidratio") => parent_based(ratio()),
        Some(_) | None => parent_based(Sampler::AlwaysOn),
    })
}

/// The environment, in which an empty variable counts as unset, as the specification says.
struct Env<'a>(Environment<'a>);

impl Env<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }

    fn pair(&self, (traces, all): Names) -> Option<String> {
        self.get(traces).or_else(|| self.get(all))
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// `none`, or a list of exporters without ours.
    fn exporter_is_other(&self) -> bool {
        let list = self.get("OTEL_TRACES_EXPORTER");
        list.is_some_and(|list| !list.split(',').any(|name| name.trim() == "otlp"))
    }

    /// `http/json` becomes `http/protobuf`: the same port and path, and every collector reads both.
    fn protocol(&self) -> OtlpProtocol {
        match self.pair(PROTOCOL).as_deref().map(str::trim) {
            Some("http/protobuf" | "http/json") => OtlpProtocol::HttpProtobuf,
            Some(_) | None => OtlpProtocol::Grpc,
        }
    }

    fn timeout(&self) -> Duration {
        let millis =
            self.pair(TIMEOUT).and_then(|text| text.trim().parse().ok()).filter(|millis| *millis > 0);
        millis.map_or(DEFAULT_TIMEOUT, Duration::from_millis)
    }

    fn compression(&self) -> Compression {
        match self.pair(COMPRESSION).as_deref().map(str::trim) {
            Some("gzip") => Compression::Gzip,
            Some(_) | None => Compression::None,
        }
    }

    fn batch(&self) -> Batch {
        let number =
            |name| self.get(name).and_then(|text| text.trim().parse::<usize>().ok()).filter(|n| *n > 0);
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(DEFAULT_BATCH.queue_spans_max);
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(DEFAULT_BATCH.batch_spans_max);
        let delay = number("OTEL_BSP_SCHEDULE_DELAY").and_then(|millis| u64::try_from(millis).ok());
        let queue_spans_max = queue.min(QUEUE_SPANS_MAX);
        Batch {
            queue_spans_max,
            batch_spans_max: batch.min(queue_spans_max),
            delay: delay.map_or(DEFAULT_BATCH.delay, Duration::from_millis),
        }
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// The SDK's queue of 2,048 lost 87 % of a burst of 100,000 spans to a healthy collector; one of 32,768 lost none at
/// the rates plimsoll reaches.
const DEFAULT_BATCH: Batch =
    Batch { queue_spans_max: 32_768, batch_spans_max: 2_048, delay: Duration::from_secs(1) };

/// At about 1 KiB a span this is a gibibyte: whoever asks for more has mistyped.
const QUEUE_SPANS_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::units::Period;

    fn resolve(config: &OtlpConfig, env: &[(&str, &str)]) -> Option<Settings> {
        let read = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Settings::resolve(config, &read).expect("valid")
    }

    fn at(endpoint: &str) -> OtlpConfig {
        OtlpConfig { endpoint: Some(endpoint.to_owned()), ..OtlpConfig::default() }
    }

    fn endpoint_of(config: &OtlpConfig, env: &[(&str, &str)]) -> Option<String> {
        resolve(config, env).map(|settings| settings.endpoint.to_string())
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        assert!(resolve(&OtlpConfig::default(), &[]).is_none());
        assert!(resolve(&OtlpConfig::default(), &[(ENDPOINT.1, "")]).is_none());
    }

    #[test]
    fn a_base_address_gets_the_path_for_http_and_the_traces_variable_is_taken_verbatim() {
        let http = [(PROTOCOL.1, "http/protobuf"), (ENDPOINT.1, "http://c:4318/")];
        assert_eq!(endpoint_of(&OtlpConfig::default(), &http).as_deref(), Some("http://c:4318/v1/traces"));
        let verbatim = [(PROTOCOL.1, "http/protobuf"), (ENDPOINT.0, "http://c:4318/own")];
        assert_eq!(endpoint_of(&OtlpConfig::default(), &verbatim).as_deref(), Some("http://c:4318/own"));
        assert_eq!(endpoint_of(&at("http://c:4317"), &[]).as_deref(), Some("http://c:4317/"));
        let whole =
            OtlpConfig { protocol: Some(OtlpProtocol::HttpProtobuf), ..at("http://c:4318/v1/traces") };
        assert_eq!(endpoint_of(&whole, &[]).as_deref(), Some("http://c:4318/v1/traces"));
    }

    #[test]
    fn the_configuration_wins_over_the_environment() {
        let config = OtlpConfig {
            protocol: Some(OtlpProtocol::Grpc),
            headers: [("x-key".to_owned(), Secret::new("mine".to_owned(), "***"))].into(),
            timeout: Some(Period::from_millis(250)),
            sample_ratio: Some(0.5),
            ..at("http://mine:4317")
        };
        let env = [
            (ENDPOINT.1, "http://theirs:4317"),
            (PROTOCOL.1, "http/protobuf"),
            (HEADERS.1, "x-key=theirs,other=a%20b"),
            (TIMEOUT.1, "9000"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ];
        let settings = resolve(&config, &env).expect("an endpoint is configured");
        assert_eq!(settings.endpoint.host(), Some("mine"));
        assert_eq!((settings.protocol, settings.timeout), (OtlpProtocol::Grpc, Duration::from_millis(250)));
        let sent: Vec<_> = settings.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(sent, [("other", &b"a b"[..]), ("x-key", &b"mine"[..])]);
        assert!(format!("{:?}", settings.sampler).contains("0.5"));
    }

    #[test]
    fn the_standard_switches_turn_traces_off() {
        assert!(resolve(&at("http://c:4317"), &[("OTEL_SDK_DISABLED", "TRUE")]).is_none());
        let env = [(ENDPOINT.1, "http://c:4317"), ("OTEL_TRACES_EXPORTER", "none")];
        assert!(resolve(&OtlpConfig::default(), &env).is_none());
        let env = [(ENDPOINT.1, "http://c:4317"), ("OTEL_TRACES_EXPORTER", "console,otlp")];
        assert!(resolve(&OtlpConfig::default(), &env).is_some());
    }

    #[test]
    fn only_tracecontext_propagates() {
        let with = |value: Option<&'static str>| propagates(&move |_| value.map(str::to_owned));
        assert!(with(None) && with(Some("tracecontext,baggage")) && with(Some("")));
        assert!(!with(Some("none")) && !with(Some("b3")));
    }

    #[test]
    fn samplers_queues_and_compression_follow_their_variables() {
        let env = [
            (ENDPOINT.1, "http://c:4317"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            (COMPRESSION.0, "gzip"),
        ];
        let settings = resolve(&OtlpConfig::default(), &env).expect("an endpoint is given");
        assert!(format!("{:?}", settings.sampler).contains("0.01"));
        assert_eq!((settings.batch.queue_spans_max, settings.batch.batch_spans_max), (100, 100));
        assert_eq!(settings.compression, Compression::Gzip);
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        let refused =
            |config: &OtlpConfig| Settings::resolve(config, &|_| None).expect_err("refused").to_string();
        assert!(refused(&at("ftp://c")).starts_with("telemetry.otlp.endpoint"));
        assert!(refused(&OtlpConfig { sample_ratio: Some(1.5), ..at("http://c") }).contains("0.0 to 1.0"));
        let header = [("a b".to_owned(), Secret::new("secret".to_owned(), "***"))].into();
        let message = refused(&OtlpConfig { headers: header, ..at("http://c") });
        assert!(message.contains("a b") && !message.contains("secret"), "{message}");
        let missing = OtlpConfig { ca_file: Some("/nonexistent/ca.pem".into()), ..at("https://c") };
        assert!(refused(&missing).contains("/nonexistent/ca.pem"));
        let (given, missing) = (CLIENT_CERTIFICATE.1, CLIENT_KEY.1);
        for (given, missing) in [(given, missing), (missing, given)] {
            let half = |name: &str| (name == given).then(|| "/dev/null".to_owned());
            let message = Settings::resolve(&at("https://c"), &half).expect_err("refused").to_string();
            assert!(message.starts_with(given) && message.contains(missing), "{message}");
        }
    }
}
