//! plimsoll runs a fleet of AI agents, and shows, records and guards everything the fleet does.
//!
//! Modules in reading order; each may import only those after it (`tests/tidy` checks that): `cli`, `app`, `config`,
//! `api`, `reconciler`, `gateway`, `notify` and `alerts`, `provider` and `lifecycle`, `live` and `journal`, `telemetry`, `town`,
//! and the small ones that know nobody.

pub mod cli;

pub mod demo;

pub mod client;

pub mod app;

pub mod catalogue;
pub mod config;
pub mod doctor;
pub(crate) mod rules;

pub mod api;

pub mod reconciler;

pub mod alerts;
pub mod gateway;
pub mod lifecycle;
pub mod notify;
pub mod provider;

pub mod journal;
pub mod live;

pub mod telemetry;

pub mod process;

pub mod town;

pub mod clock;
pub mod ids;
pub mod limits;
pub(crate) mod outgoing;
pub mod secret;
pub mod units;
