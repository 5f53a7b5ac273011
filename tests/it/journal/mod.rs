//! The journal: its contract, and what it withstands.

mod child;
mod contract;
mod crash;
mod damage;
mod disk;
mod fault;
pub(crate) mod fixture;
mod folds;
mod power;
mod recording;
pub(crate) mod shim;
