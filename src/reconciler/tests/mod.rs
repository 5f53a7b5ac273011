//! Towns over a journal in memory and a real gateway whose agents are played.

mod endings;
mod restarts;
mod world;
