//! Server-sent events, as far as chat completions use them: the data of each event, from bytes that are cut anywhere
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).

use crate::limits::MODEL_STREAM_LINE_BYTES_MAX;

/// A line is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

/// Puts events together. Bytes stay bytes until a line is whole, so a character cut in two does no harm.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    data: Vec<u8>,
    /// Whether the byte before was a carriage return, whose line feed is still to be skipped.
    after_return: bool,
    begun: bool,
}

impl Decoder {
    /// Takes bytes in; gives the data of every event that they complete.
    ///
    /// # Errors
    /// [`LineTooLong`]; what came before is lost with it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let skip = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            match byte {
                _ if skip => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() + self.data.len() >= MODEL_STREAM_LINE_BYTES_MAX => {
                    return Err(LineTooLong);
                }
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    /// The data of an event that the end of the stream leaves without its empty line. The standard drops it; servers
    /// that forget the last empty line are too common for that.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        self.end_line().or_else(|| self.end_line())
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.begun, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then_some(data);
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(parts: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut events: Vec<_> = parts.iter().flat_map(|part| decoder.push(part).expect("short")).collect();
        events.extend(decoder.finish());
        events.into_iter().map(|event| String::from_utf8(event).expect("text")).collect()
    }

    #[test]
    fn all_line_ends_comments_and_other_fields_are_understood() {
        let text = b"\xef\xbb\xbf: hello\r\ndata: a\r\n\r\nevent: x\ndata:b\ndata: c\n\nid: 1\rdata: d\r\r\n\ndata: e";
        assert_eq!(decode(&[text]), ["a", "b\nc", "d", "e"]);
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_byte_more_does_not() {
        let line = [b"data:".as_slice(), &vec![b'x'; MODEL_STREAM_LINE_BYTES_MAX - 5]].concat();
        assert!(Decoder::default().push(&line).is_ok());
        assert_eq!(Decoder::default().push(&[line, b"x".to_vec()].concat()), Err(LineTooLong));
    }

    proptest! {
        /// Wherever the bytes are cut, even inside a character or a line end, the events are the same.
        #[test]
        fn cuts_change_nothing(texts in prop::collection::vec("[a-zäß€🙂 ]{1,9}", 1..6), cut in 1..7_usize) {
            let stream: String = texts.iter().map(|text| format!("data: {text}\r\n\r\n")).collect();
            let parts: Vec<_> = stream.as_bytes().chunks(cut).collect();
            prop_assert_eq!(decode(&parts), texts);
        }
    }
}
