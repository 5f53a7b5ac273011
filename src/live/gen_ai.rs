//! Names and bucket edges of the OpenTelemetry conventions for generative AI, version 1.41.0: the newest release that
//! defines them (1.42.0 to 1.44.0 point to a successor repository, which has no release yet and renames some).
//!
//! Names are as Prometheus writes them: dots become underscores and the unit `s` the suffix `_seconds`
//! (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>). The version stands in
//! `docs/metrics.md` too. Spans and metrics take their names from here, so that a new release is one file's change.

/// The release these names are from.
pub const CONVENTIONS_VERSION: &str = "1.41.0";

/// `gen_ai.client.operation.duration`.
pub const OPERATION_DURATION: &str = "gen_ai_client_operation_duration_seconds";
/// `gen_ai.client.operation.time_to_first_chunk`.
pub const TIME_TO_FIRST_CHUNK: &str = "gen_ai_client_operation_time_to_first_chunk_seconds";
/// `gen_ai.client.token.usage`, whose unit `{token}` leaves no suffix.
pub const TOKEN_USAGE: &str = "gen_ai_client_token_usage";

/// The label of `gen_ai.operation.name`.
pub const OPERATION_NAME: &str = "gen_ai_operation_name";
/// The label of `gen_ai.provider.name`.
pub const PROVIDER_NAME: &str = "gen_ai_provider_name";
/// The label of `gen_ai.request.model`.
pub const REQUEST_MODEL: &str = "gen_ai_request_model";
/// The label of `gen_ai.token.type`.
pub const TOKEN_TYPE: &str = "gen_ai_token_type";
/// The label of `error.type`.
pub const ERROR_TYPE: &str = "error_type";

/// The operation of every call made here.
pub const CHAT: &str = "chat";
/// Tokens read.
pub const INPUT: &str = "input";
/// Tokens written.
pub const OUTPUT: &str = "output";

/// Edges of durations in seconds: the convention's, and four more, because a coding agent's call goes on for minutes.
pub const SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
    655.36, 1310.72,
];

/// Edges of tokens: the convention's.
pub const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
