//! Towns over a journal in memory and a real gateway whose agents are played.

mod endings;
mod lateness;
mod leftovers;
mod members;
mod moves;
mod refusals;
mod repeats;
mod restarts;
mod time;
mod trouble;
mod violations;
mod world;
