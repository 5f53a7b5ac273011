//! From the bytes of one file to a tree of values, within limits.
//!
//! Uses the YAML parser beneath serde-saphyr directly, because a scalar must keep its text and whether it was quoted:
//! only so can `sha256: 0123` be text and `${PORT}` be a number, by the field it fills. Start at [`parse`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::problem::{ConfigProblem, KeyPath, Origin};
use super::tree::{Entry, Node, Scalar, Value};
use crate::limits::{CONFIG_DEPTH_MAX, CONFIG_FILE_BYTES_MAX, CONFIG_NODES_MAX, CONFIG_PROBLEMS_MAX};

/// Reads the tree of one file. An empty file is an empty map.
pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Node, Vec<ConfigProblem>> {
    let whole = Origin::file(file);
    let refuse = |at, message: String| vec![ConfigProblem::new(Some(at), KeyPath::default(), message)];
    if bytes.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(refuse(whole, format!("the file is larger than {CONFIG_FILE_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        refuse(Origin { line, column: 1, ..whole.clone() }, "the file is not UTF-8 text".to_owned())
    })?;
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder {
        file: file.into(),
        events: Parser::new_from_str_with_options(text.strip_prefix('\u{feff}').unwrap_or(text), options),
        anchors: HashMap::new(),
        nodes: 0,
        problems: Vec::new(),
    };
    let root = match builder.document() {
        Ok(root) => root,
        Err(problem) => {
            builder.problems.push(problem);
            return Err(builder.problems);
        }
    };
    if builder.problems.is_empty() { Ok(root) } else { Err(builder.problems) }
}

/// A finished node that an alias may repeat.
struct Anchored {
    node: Node,
    size: Size,
}

#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    height: usize,
}

struct Builder<'a> {
    file: Arc<Path>,
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    problems: Vec<ConfigProblem>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, ConfigProblem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd | Event::DocumentStart(..) => {}
                event if root.is_none() => {
                    root = Some(self.node(event, span, &KeyPath::default())?.0);
                }
                _ => return Err(self.wrong(span, "a second document: one file holds one")),
            }
        }
        let whole = Origin::file(&self.file);
        match root {
            None => Ok(Node::empty(whole)),
            Some(Node { value: Value::Null, .. }) => Ok(Node::empty(whole)),
            Some(root @ Node { value: Value::Map(_), .. }) => Ok(root),
            Some(root) => {
                let message = "expected keys and values, such as `server:`";
                Err(ConfigProblem::new(Some(root.at), KeyPath::default(), message))
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), ConfigProblem> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = self.at(*error.marker());
                let message = format!("not YAML: {}", error.kind());
                Err(ConfigProblem::new(Some(at), KeyPath::default(), message))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, path: &KeyPath) -> Result<(Node, Size), ConfigProblem> {
        self.nodes += 1;
        if self.nodes > CONFIG_NODES_MAX {
            return Err(self.wrong(span, format!("more than {CONFIG_NODES_MAX} values, aliases written out")));
        }
        if path.0.len() > CONFIG_DEPTH_MAX {
            return Err(self.wrong(span, format!("values are nested more than {CONFIG_DEPTH_MAX} deep")));
        }
        let at = self.at(span.start);
        let leaf = Size { nodes: 1, height: 0 };
        let (value, anchor, size) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.is_text(tag.as_deref(), span)?;
                (scalar(text.into_owned(), plain), anchor, leaf)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                let (list, size) = self.list(path)?;
                (Value::List(list), anchor, size)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                let (map, size) = self.map(path)?;
                (Value::Map(map), anchor, size)
            }
            Event::Alias(id) => return self.alias(id, span, path),
            _ => return Err(self.wrong(span, "not YAML: expected a value")),
        };
        let node = Node::new(value, at);
        if anchor > 0 {
            self.nodes += size.nodes;
            self.anchors.insert(anchor, Anchored { node: node.clone(), size });
        }
        Ok((node, size))
    }

    fn list(&mut self, path: &KeyPath) -> Result<(Vec<Node>, Size), ConfigProblem> {
        let mut list = Vec::new();
        let mut size = Size { nodes: 1, height: 0 };
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((list, size));
            }
            let (node, inner) = self.node(event, span, &path.index(list.len()))?;
            size = size.around(inner);
            list.push(node);
        }
    }

    fn map(&mut self, path: &KeyPath) -> Result<(BTreeMap<String, Entry>, Size), ConfigProblem> {
        let mut map: BTreeMap<String, Entry> = BTreeMap::new();
        let mut size = Size { nodes: 1, height: 0 };
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok((map, size));
            }
            let (key, key_size) = self.node(event, span, path)?;
            let key_at = key.at.clone();
            let Some(key) = key_text(key) else {
                return Err(self.wrong(span, "a key is text, without braces or brackets"));
            };
            let path = path.key(&key);
            if key == "<<" {
                self.note(ConfigProblem::new(Some(key_at.clone()), path.clone(), "merge keys are not supported: repeat the value with an alias (`key: *name`), or use an overlay file"));
            }
            let (event, span) = self.next()?;
            let (node, inner) = self.node(event, span, &path)?;
            size = size.around(key_size).around(inner);
            if let Some(first) = map.get(&key) {
                let message = format!("the key stands here twice: first in line {}", first.key_at.line);
                self.note(ConfigProblem::new(Some(key_at), path, message));
            } else {
                map.insert(key, Entry { key_at, node });
            }
        }
    }

    fn alias(&mut self, id: usize, span: Span, path: &KeyPath) -> Result<(Node, Size), ConfigProblem> {
        let Some(Anchored { node, size }) = self.anchors.get(&id) else {
            return Err(self.wrong(span, "an alias inside the value it stands for"));
        };
        if path.0.len() + size.height > CONFIG_DEPTH_MAX {
            return Err(self.wrong(span, format!("values are nested more than {CONFIG_DEPTH_MAX} deep")));
        }
        if self.nodes + size.nodes > CONFIG_NODES_MAX {
            return Err(self.wrong(span, format!("more than {CONFIG_NODES_MAX} values, aliases written out")));
        }
        self.nodes += size.nodes;
        Ok((node.clone(), *size))
    }

    /// Whether a tag says that the scalar is text.
    fn is_text(&self, tag: Option<&Tag>, span: Span) -> Result<bool, ConfigProblem> {
        if tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str")) {
            return Ok(true);
        }
        self.refuse_tag(tag, span).map(|()| false)
    }

    fn refuse_tag(&self, tag: Option<&Tag>, span: Span) -> Result<(), ConfigProblem> {
        match tag {
            None => Ok(()),
            Some(_) => Err(self.wrong(span, "tags (`!...`) are not supported, except `!!str`")),
        }
    }

    fn at(&self, mark: granit_parser::Marker) -> Origin {
        Origin { file: Arc::clone(&self.file), line: mark.line(), column: mark.col() + 1 }
    }

    fn wrong(&self, span: Span, message: impl Into<String>) -> ConfigProblem {
        ConfigProblem::new(Some(self.at(span.start)), KeyPath::default(), message)
    }

    /// Keeps a problem after which reading can go on.
    fn note(&mut self, problem: ConfigProblem) {
        if self.problems.len() < CONFIG_PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

impl Size {
    /// The size of a collection that holds this besides what it held.
    fn around(self, inner: Self) -> Self {
        Self { nodes: self.nodes + inner.nodes, height: self.height.max(inner.height + 1) }
    }
}

fn scalar(text: String, plain: bool) -> Value {
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar(Scalar { text, plain, shown: None })
}

fn key_text(key: Node) -> Option<String> {
    match key.value {
        Value::Scalar(scalar) => Some(scalar.text),
        Value::Null => Some("null".to_owned()),
        Value::List(_) | Value::Map(_) | Value::Refused => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Node, Vec<String>> {
        parse(Path::new("f.yaml"), text.as_bytes())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn refused(text: &str) -> String {
        read(text).expect_err(text).join("\n")
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        for text in ["", "\n", "# nothing\n", "---\n", "null\n", "\u{feff}"] {
            assert_eq!(read(text).map(|node| node.keys().count()), Ok(0), "{text:?}");
        }
    }

    #[test]
    fn every_duplicate_key_is_told_with_both_places() {
        assert_eq!(
            refused("a: 1\nb: {c: 1, c: 2}\na: 2\n"),
            "f.yaml:2:11: b.c: the key stands here twice: first in line 2\n\
             f.yaml:3:1: a: the key stands here twice: first in line 1"
        );
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_place() {
        for (text, place) in
            [("a:\n\t- b\n", "f.yaml:2:"), ("a: [1, 2\n", "f.yaml:1:4"), ("a: *x\n", "f.yaml:1:4")]
        {
            assert!(refused(text).starts_with(place), "{}", refused(text));
        }
        assert!(refused("- a\n").contains("expected keys and values"));
        assert!(refused("a: 1\n---\nb: 1\n").contains("second document"));
        assert!(refused("a: !x 1\n").contains("tags"));
        assert!(refused("a: &a {b: 1}\nc: {<<: *a}\n").contains("merge keys"));
    }

    #[test]
    fn text_that_is_not_utf8_names_the_line() {
        let problems = parse(Path::new("f.yaml"), b"a: 1\nb: \xff\n").expect_err("no UTF-8");
        assert_eq!(problems[0].to_string(), "f.yaml:2:1: the file is not UTF-8 text");
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_before_it_grows() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(refused(&bomb).contains("more than 100000 values"));
    }

    #[test]
    fn nesting_has_an_end_also_through_aliases() {
        let at_most = format!("a: {}{}", "[".repeat(CONFIG_DEPTH_MAX - 1), "]".repeat(CONFIG_DEPTH_MAX - 1));
        assert!(read(&at_most).is_ok());
        let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
        assert!(refused(&deep).contains("nested more than"));
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for level in 1..5_000 {
            chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(refused(&chain).contains("nested more than"));
    }

    #[test]
    fn a_file_may_be_as_large_as_its_limit_and_no_larger() {
        let size = usize::try_from(CONFIG_FILE_BYTES_MAX).expect("it fits");
        assert!(read(&format!("#{}", "x".repeat(size - 1))).is_ok());
        assert!(refused(&format!("#{}", "x".repeat(size))).contains("larger than"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Path::new("f.yaml"), &bytes);
        }

        #[test]
        fn no_text_of_yaml_signs_panics(text in "[-:{}\\[\\],&*!|>'\"%@`#? a0\n\t~$<]{0,80}") {
            let _ = parse(Path::new("f.yaml"), text.as_bytes());
        }
    }
}
