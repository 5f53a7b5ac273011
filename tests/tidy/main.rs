//! House rules that no compiler checks. Each rule takes sources and returns complaints; each is tried on a bad
//! example too, because a check that cannot fail is no check. Start at [`source::Source`]; the rules are one file
//! per subject.

mod dependencies;
mod layers;
mod links;
mod lists;
mod shape;
mod source;
mod words;

/// Fails with every complaint on a line of its own.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaint(s):\n{}", complaints.len(), complaints.join("\n"));
}

/// The one complaint that a bad example must give.
#[track_caller]
fn exactly(complaints: &[String], fragment: &str) {
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(fragment), "{:?} does not say {fragment:?}", complaints[0]);
}
