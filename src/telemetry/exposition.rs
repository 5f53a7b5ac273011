//! The order of the exposition: families by name, series by their labels, buckets as they ascend.
//!
//! The exporter writes hash maps as they come. A stable order makes two scrapes comparable by eye and by `diff`, and
//! compresses better.

use super::hidden::Names;

/// `text` in the Prometheus text format, sorted, without what is hidden.
pub(super) fn sorted(text: &str, hidden: Option<&Names>) -> String {
    let mut families: Vec<&str> = text.split("\n\n").filter(|family| !family.trim().is_empty()).collect();
    families.sort_unstable_by_key(|family| name_of(family));
    let mut out = String::with_capacity(text.len() + 1);
    for family in families {
        push_family(&mut out, family, hidden);
    }
    out
}

fn name_of(family: &str) -> &str {
    family.trim_start().split(' ').nth(2).unwrap_or_default()
}

fn push_family(out: &mut String, family: &str, hidden: Option<&Names>) {
    let (comments, mut lines): (Vec<&str>, Vec<&str>) =
        family.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with('#'));
    if let Some(hidden) = hidden {
        lines.retain(|line| !hidden.hide(line));
        if lines.is_empty() {
            return;
        }
    }
    let is_histogram = comments.iter().any(|line| line.ends_with(" histogram"));
    let mut series: Vec<&[&str]> = if is_histogram {
        // The exporter writes each series' buckets, then its sum, then its count.
        lines.split_inclusive(|line| is_count(line)).collect()
    } else {
        lines.chunks(1).collect()
    };
    series.sort_unstable();
    for line in comments.iter().chain(series.into_iter().flatten()) {
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
}

fn is_count(line: &str) -> bool {
    line.split(['{', ' ']).next().is_some_and(|name| name.ends_with("_count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_series_are_sorted_and_buckets_stay_in_order() {
        let text = "# HELP b_seconds B.\n# TYPE b_seconds histogram\n\
                    b_seconds_bucket{a=\"2\",le=\"0.5\"} 0\nb_seconds_bucket{a=\"2\",le=\"10\"} 0\n\
                    b_seconds_bucket{a=\"2\",le=\"+Inf\"} 0\nb_seconds_sum{a=\"2\"} 0\nb_seconds_count{a=\"2\"} 0\n\
                    b_seconds_bucket{a=\"1\",le=\"0.5\"} 1\nb_seconds_sum{a=\"1\"} 1\nb_seconds_count{a=\"1\"} 1\n\n\
                    # HELP a_total A.\n# TYPE a_total counter\na_total{x=\"2\"} 1\na_total{x=\"1\"} 1\n\n";
        let expected = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 1\na_total{x=\"2\"} 1\n\n\
                        # HELP b_seconds B.\n# TYPE b_seconds histogram\n\
                        b_seconds_bucket{a=\"1\",le=\"0.5\"} 1\nb_seconds_sum{a=\"1\"} 1\nb_seconds_count{a=\"1\"} 1\n\
                        b_seconds_bucket{a=\"2\",le=\"0.5\"} 0\nb_seconds_bucket{a=\"2\",le=\"10\"} 0\n\
                        b_seconds_bucket{a=\"2\",le=\"+Inf\"} 0\nb_seconds_sum{a=\"2\"} 0\nb_seconds_count{a=\"2\"} 0\n\n";
        assert_eq!(sorted(text, None), expected);
    }
}
