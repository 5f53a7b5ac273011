//! Integration tests: the real binary, real sockets, a real disk.

mod support;

mod agreement;
mod alerts;
mod cli;
mod cli_docs;
mod dashboards;
mod gateway;
mod journal;
mod litellm;
mod otlp;
mod prometheus;
mod provider;
mod serve;
mod shutdown;
