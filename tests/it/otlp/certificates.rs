//! Certificates for OTLP as the standard variables name them.

use std::time::Duration;

use plimsoll::telemetry::OtlpConfig;

use super::{BOTH, PATIENCE, Stack, assert_complete, emit, lost, to};
use crate::support::receiver::{Receiver, Security};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_works_by_the_standard_variables_in_both_forms() {
    for protocol in BOTH {
        for form in ["OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES"] {
            let receiver = Receiver::start(protocol, Security::Mutual, &[]).await;
            let certificates = receiver.certificates.as_ref().expect("it speaks TLS");
            let variables = [
                ("CERTIFICATE", "ca.pem"),
                ("CLIENT_CERTIFICATE", "client.pem"),
                ("CLIENT_KEY", "client-key.pem"),
            ];
            let env = variables.map(|(name, file)| {
                (format!("{form}_{name}"), certificates.file(file).display().to_string())
            });
            let env = env.each_ref().map(|(name, file)| (name.as_str(), file.as_str()));
            let stack = Stack::new(to(&receiver, protocol), &env);
            stack.within(|| emit(100));
            assert_eq!(stack.end(PATIENCE).await.0, lost(&[]), "{protocol:?} {form}");
            assert_complete(&receiver.inbox().spans, 100);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_wants_a_certificate_lets_nobody_in_without() {
    for protocol in BOTH {
        let receiver = Receiver::start(protocol, Security::Mutual, &[]).await;
        let ca_file = receiver.certificates.as_ref().map(|certificates| certificates.file("ca.pem"));
        let stack = Stack::new(OtlpConfig { ca_file, ..to(&receiver, protocol) }, &[]);
        stack.within(|| emit(2));
        let (losses, _took) = stack.end(Duration::from_millis(300)).await;
        // Whether it was refused or there was never a connection depends on which end speaks first.
        assert_eq!(losses.values().sum::<u64>(), 2, "{protocol:?}: {losses:?}");
        assert_eq!(receiver.inbox().requests.len(), 0);
    }
}

#[test]
fn a_file_without_a_certificate_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, "no certificate").expect("written");
    for protocol in BOTH {
        let endpoint = Some("https://localhost:1".to_owned());
        let config = OtlpConfig {
            endpoint,
            protocol: Some(protocol),
            ca_file: Some(ca_file.clone()),
            ..OtlpConfig::default()
        };
        let refused = Stack::build(config, &[]).err().expect("refused");
        let causes = std::iter::successors(Some(&refused as &dyn std::error::Error), |error| error.source());
        let said: Vec<String> = causes.map(ToString::to_string).collect();
        assert!(said.iter().any(|cause| cause.contains("holds no certificate")), "{said:?}");
    }
}
