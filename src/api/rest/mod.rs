//! The handlers of plain routes: one file per route or pair of routes.

mod agents;
mod alerts;
mod audit;
mod contract;
mod events;
mod health;
mod metrics;
mod page;
mod rpc;
mod usage;

pub(crate) use agents::{AgentEntry, Agents, agents, create_agent, delete_agent};
pub(crate) use alerts::{alerts, post_alerts};
pub(crate) use audit::{AuditPage, AuditQuery, audit};
pub(crate) use contract::contract;
pub(crate) use events::{EventsQuery, events};
pub(crate) use health::{Health, Ready, health, ready};
pub(crate) use metrics::metrics;
pub(crate) use page::page;
pub(crate) use rpc::{RpcAnswer, RpcMessage, rpc};
pub(crate) use usage::{UsageParams, usage};

use serde::Deserialize;

/// The query of a route that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}
