//! The demo: a small team of echo agents, people who keep it busy through the real gateway, and a town with a crew of
//! its own, which other people give work.
//!
//! What happens is a pure function of a seed ([`Plan`], [`People`]); [`drive`] and [`keep_busy`] carry it out over real
//! connections. What goes wrong on purpose, and when, is a [`Cycle`]; a [`Drama`] carries it out. It does not start a server:
//! the command `demo` does. Start at [`Plan`].

mod breach;
pub mod cast;
pub mod crew;
mod drama;
mod load;
mod people;
mod plan;

pub use breach::{BREACHES, Breach, Cycle, LASTS_MAX, Scene};
pub use drama::Drama;
pub use load::{Tally, drive};
pub use people::{OPEN_MAX, PACE, People, keep_busy};
pub use plan::{Plan, Road, Step};
