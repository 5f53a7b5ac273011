//! The demo: a small team of echo agents, and people who keep it busy through the real gateway.
//!
//! What happens is a pure function of a seed ([`Plan`]); [`drive`] carries it out over real connections. It does
//! not start a server: the command `demo` does. Start at [`Plan`].

pub mod cast;
mod load;
mod plan;

pub use load::{Tally, drive};
pub use plan::{Plan, Road, Step};
