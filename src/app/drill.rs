//! What goes wrong on purpose, for the demo: no API leads here.

use super::App;
use crate::reconciler::Drill;

impl App {
    /// See [`Reconciler::drill`](crate::reconciler::Reconciler::drill).
    #[must_use]
    pub fn drill(&self) -> Drill {
        self.parts.0.drill()
    }
}
