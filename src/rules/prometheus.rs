//! The rules as a file that Prometheus loads.

use super::source::Rules;

/// Renders them; without anything set it says what the source says, but for its comments.
pub(crate) fn render(rules: &Rules) -> String {
    let yaml = serde_saphyr::to_string(rules).expect("text and lists are always YAML");
    format!(
        "# Rendered by `plimsoll alerts prometheus`, version {}: do not edit, render again.\n{yaml}",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_reads_back_as_the_same_rules() {
        let rules = Rules::embedded();
        let read: Rules = serde_saphyr::from_str(&render(&rules)).expect("rules");
        assert_eq!(read, rules);
    }
}
