//! Integration tests: the real binary, real sockets, a real disk.

mod support;

mod agreement;
mod alerts;
mod anthropic;
mod api_auth;
mod api_limits;
mod api_rest;
mod api_rpc;
mod api_stream;
mod api_tls;
mod api_ws;
mod audit;
mod cli;
mod cli_docs;
mod cli_live;
mod collector;
mod config;
mod crowd;
mod dashboards;
mod demo;
mod doctor;
mod failures;
mod full_disk;
mod fuzz_corpus;
mod gateway;
mod journal;
mod otlp;
mod outlive;
mod prometheus;
mod provider;
mod real_input;
mod serve;
mod shutdown;
mod stack;
mod telemetry;
