//! The demo: a small team of echo agents, people who keep it busy through the real gateway, and a town with a crew of
//! its own, which other people give work.
//!
//! What happens is a pure function of a seed ([`Plan`], [`People`]); [`drive`] and [`keep_busy`] carry it out over real
//! connections. It does not start a server: the command `demo` does. Start at [`Plan`].

mod breach;
pub mod cast;
pub mod crew;
mod load;
mod people;
mod plan;

pub use breach::Breach;
pub use load::{Tally, drive};
pub use people::{OPEN_MAX, PACE, People, keep_busy};
pub use plan::{Plan, Road, Step};
