//! The journal: its contract, and what it withstands.

mod contract;
mod disk;
pub(crate) mod fixture;
