//! Integration tests: the real binary, real sockets, a real disk.

mod support;

mod agreement;
mod cli;
mod cli_docs;
mod gateway;
mod journal;
mod litellm;
mod otlp;
mod provider;
mod serve;
mod shutdown;
