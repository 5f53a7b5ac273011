//! Damage on purpose, for the demo: no API leads here.

use super::App;
use crate::ids::TownId;

impl App {
    /// See [`Reconciler::damage`](crate::reconciler::Reconciler::damage).
    pub async fn damage(&self, town: &TownId) -> bool {
        self.parts.0.damage(town).await
    }
}
