//! Measures what the performance table claims.
fn main() {}
