//! Towns over a journal in memory and a real gateway whose agents are played.

mod endings;
mod faults;
mod lateness;
mod leftovers;
mod members;
mod moves;
mod refusals;
mod repeats;
mod restarts;
mod snapshots;
mod time;
mod trouble;
mod violations;
mod world;
