//! Reads the Prometheus text format back
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>), as far as plimsoll writes it.

#![allow(dead_code, reason = "each area uses its own part")]

use std::collections::BTreeMap;

/// One sample.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// All samples of one scrape.
#[derive(Debug)]
pub(crate) struct Scrape(pub(crate) Vec<Sample>);

impl Scrape {
    /// Reads a whole exposition.
    ///
    /// # Panics
    /// At a line that is no sample and no comment.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line:?}"))).collect())
    }

    /// The samples of this name whose labels contain these.
    pub(crate) fn of<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let fits = |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        };
        self.0.iter().filter(move |sample| sample.name == name).filter(fits)
    }

    /// Their sum.
    ///
    /// # Panics
    /// When there is none: a missing series is not a 0.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<f64> = self.of(name, labels).map(|sample| sample.value).collect();
        assert!(!found.is_empty(), "there is no series {name} with {labels:?}");
        found.iter().sum()
    }

    /// Their sum as a whole number.
    ///
    /// # Panics
    /// When there is none, or the sum is no whole number.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name} {labels:?} is {sum}");
        format!("{sum:.0}").parse().expect("a whole number")
    }

    /// Sums by the value of one label.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let values: std::collections::BTreeSet<&String> =
            self.of(name, &[]).filter_map(|sample| sample.labels.get(label)).collect();
        values.into_iter().map(|value| (value.clone(), self.count(name, &[(label, value)]))).collect()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: BTreeMap::new(), value });
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let (text, length) = quoted(after)?;
        labels.insert(key.trim_start_matches(',').to_owned(), text);
        rest = &after[length..];
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and how many bytes it took with the quote.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[test]
fn samples_are_read_with_escapes_and_commas_in_labels() {
    let scrape = Scrape::parse("# HELP x y\nx{a=\"1,\\\"2\\\"\",b=\"c}\"} 3\nx{a=\"2\",b=\"d\"} 4\ny 0.5\n");
    assert_eq!(scrape.count("x", &[("a", "1,\"2\"")]), 3);
    assert_eq!(scrape.count("x", &[]), 7);
    assert_eq!(scrape.sum("y", &[]), 0.5);
}
