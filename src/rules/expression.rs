//! What the renderers have to know of PromQL: where strings, comments and lengths of time are. Parses no more of it.

use std::num::NonZeroU32;

use super::span::Span;

/// A stretch of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    /// In quotes, with them.
    Quoted(&'a str),
    /// From `#` to the end of the line.
    Comment(&'a str),
    Code(&'a str),
}

fn pieces(expression: &str) -> Vec<Piece<'_>> {
    let (mut found, mut rest) = (Vec::new(), expression);
    while let Some(first) = rest.chars().next() {
        let piece = match first {
            '"' | '\'' | '`' => Piece::Quoted(&rest[..quoted_len(rest, first)]),
            '#' => Piece::Comment(&rest[..rest.find('\n').unwrap_or(rest.len())]),
            _ => Piece::Code(&rest[..rest.find(['"', '\'', '`', '#']).unwrap_or(rest.len())]),
        };
        let (Piece::Quoted(text) | Piece::Comment(text) | Piece::Code(text)) = piece;
        rest = &rest[text.len()..];
        found.push(piece);
    }
    found
}

/// How many bytes the string takes that `text` begins with, quotes included. Backquotes know no escapes.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !escaped {
            return at + quote.len_utf8();
        }
        escaped = character == '\\' && quote != '`' && !escaped;
    }
    text.len()
}

/// The expression with every range, resolution and offset divided. Plain numbers of seconds are thresholds, and stay.
pub(crate) fn with_durations_divided(expression: &str, divisor: NonZeroU32) -> String {
    let divided = |word: &str| Span::parse(word).map(|span| span.divided_by(divisor).to_string());
    let code = |text: &str| {
        let (mut result, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(|c: char| c.is_alphanumeric() || c == '_') {
            let len = rest[at..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - at);
            let word = &rest[at..at + len];
            // Of all that PromQL has, only a duration begins with a digit and ends with a unit.
            let is_duration = word.starts_with(|c: char| c.is_ascii_digit()) && word != "0";
            let kept = divided(word).filter(|_| is_duration).unwrap_or_else(|| word.to_owned());
            result.push_str(&rest[..at]);
            result.push_str(&kept);
            rest = &rest[at + len..];
        }
        result + rest
    };
    let kept = pieces(expression).into_iter().map(|piece| match piece {
        Piece::Quoted(text) | Piece::Comment(text) => text.to_owned(),
        Piece::Code(text) => code(text),
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_resolutions_and_offsets_are_divided_and_nothing_else() {
        let by_30 = |text| with_durations_divided(text, NonZeroU32::new(30).expect("not zero"));
        assert_eq!(by_30("increase(a[11m]) > 60"), "increase(a[22s]) > 60");
        assert_eq!(
            by_30("max_over_time(a[1h:30s] offset 5m) > 0.5"),
            "max_over_time(a[2m:1s] offset 10s) > 0.5"
        );
        assert_eq!(by_30("predict_linear(a[6h], 86400) < 0"), "predict_linear(a[12m], 86400) < 0");
        assert_eq!(by_30(r#"a{le="5m", b='[5m]', c="\"5m"}[5m]"#), r#"a{le="5m", b='[5m]', c="\"5m"}[10s]"#);
        assert_eq!(
            by_30("job:errors:ratio_rate5m > 1e-6 # over [5m]\n"),
            "job:errors:ratio_rate5m > 1e-6 # over [5m]\n"
        );
        assert_eq!(by_30("sum(rate(a_5m[5m])) > 1.5"), "sum(rate(a_5m[10s])) > 1.5");
    }
}
