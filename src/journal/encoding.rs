//! Records as bytes: what is stored, and what is hashed.
//!
//! A stored record is a frame: one version byte, the length of the payload, its CRC-32C, and the payload. The payload
//! is canonical, so its SHA-256 is the record's hash, and it begins with the hash of the record before it in its log.
//! The layout is given at [`frame`] and [`body`]; a golden file holds it fast. Nothing here knows where frames lie.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Actor, NewRecord, Record, RecordHash, StreamId};
use crate::clock::Timestamp;
use crate::ids::{Seq, TraceId};
use crate::limits::JOURNAL_DETAIL_BYTES_MAX;

/// The version of the frame and of the payload in it.
pub(super) const VERSION: u8 = 1;

/// Bytes before the payload: version, length, checksum.
pub(super) const HEADER_BYTES: usize = 9;

/// Where the seq stands in a payload: after the previous hash.
const SEQ_AT: usize = 32;

/// Bytes of a payload before its body: previous hash, seq, time.
const PREFIX_BYTES: usize = SEQ_AT + 16;

/// The longest payload that can have been written.
pub(super) const PAYLOAD_BYTES_MAX: usize = PREFIX_BYTES + 1024 + JOURNAL_DETAIL_BYTES_MAX;

/// The longest kind, in bytes: room for a few words, and its length fits one byte.
const KIND_BYTES_MAX: usize = 64;

/// Adds the part of a payload that its caller knows: length and text of stream, kind and actor (one byte each), the
/// kind's version (big-endian), the trace id (16 bytes, zeros for none), the detail as JSON to the end.
///
/// # Errors
/// Says what about the record cannot be stored; `out` is then to be thrown away.
pub(super) fn body(stream: &StreamId, new: &NewRecord, out: &mut Vec<u8>) -> Result<(), String> {
    if new.kind.is_empty() || new.kind.len() > KIND_BYTES_MAX {
        return Err(format!("the kind {:?} is not 1 to {KIND_BYTES_MAX} bytes long", new.kind));
    }
    if !new.detail.is_object() {
        return Err(format!("the detail of {:?} is not a JSON object", new.kind));
    }
    text(stream.as_str(), out);
    text(new.kind, out);
    match &new.actor {
        Actor::Token(name) => text(name.as_str(), out),
        Actor::Local => text("local", out),
        Actor::Planner => text("planner", out),
        Actor::System => text("system", out),
    }
    out.extend_from_slice(&new.version.to_be_bytes());
    out.extend_from_slice(&new.trace_id.map_or(0, TraceId::to_bits).to_be_bytes());
    let start = out.len();
    serde_json::to_writer(&mut *out, &new.detail).map_err(|e| e.to_string())?;
    let bytes = out.len() - start;
    if bytes > JOURNAL_DETAIL_BYTES_MAX {
        return Err(format!(
            "the detail of {:?} has {bytes} bytes, at most {JOURNAL_DETAIL_BYTES_MAX} are kept",
            new.kind
        ));
    }
    Ok(())
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Ids are capped at 64 bytes, streams at 73, kinds at 64.
    let length = u8::try_from(text.len()).expect("ids and kinds are shorter than 256 bytes");
    out.push(length);
    out.extend_from_slice(text.as_bytes());
}

/// Adds a whole frame to `out` and answers the record's hash. Numbers are big-endian.
pub(super) fn frame(
    prev: &RecordHash,
    seq: Seq,
    time: Timestamp,
    body: &[u8],
    out: &mut Vec<u8>,
) -> RecordHash {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    out.extend_from_slice(&prev.0);
    out.extend_from_slice(&seq.0.to_be_bytes());
    out.extend_from_slice(&time.as_millis().to_be_bytes());
    out.extend_from_slice(body);
    let (header, payload) = out[start..].split_at_mut(HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("a detail is far shorter than 4 GiB");
    header[0] = VERSION;
    header[1..5].copy_from_slice(&length.to_be_bytes());
    header[5..].copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    hash(payload)
}

/// The hash of a record, from its payload.
pub(super) fn hash(payload: &[u8]) -> RecordHash {
    RecordHash(Sha256::digest(payload).into())
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) payload_bytes: usize,
    checksum: u32,
}

impl Header {
    /// Reads the first bytes of a frame.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let header: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or_else(|| "it ends within its header".to_owned())?;
        let [version, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        if version != VERSION {
            return Err(format!("its version is {version}, this plimsoll reads {VERSION}"));
        }
        let payload_bytes = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if !(PREFIX_BYTES..=PAYLOAD_BYTES_MAX).contains(&payload_bytes) {
            return Err(format!("its length {payload_bytes} is impossible"));
        }
        Ok(Self { payload_bytes, checksum: u32::from_be_bytes([c0, c1, c2, c3]) })
    }

    /// Whether the payload is the one that was written.
    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes && crc32c::crc32c(payload) == self.checksum
    }
}

/// The seq in a payload of at least the length that [`Header::read`] accepts, or in its beginning.
pub(super) fn seq_of(payload: &[u8]) -> Option<Seq> {
    let bytes = payload.get(SEQ_AT..SEQ_AT + 8)?;
    Some(Seq(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// The time in a payload.
pub(super) fn time_of(payload: &[u8]) -> Option<Timestamp> {
    let bytes = payload.get(SEQ_AT + 8..PREFIX_BYTES)?;
    Some(Timestamp::from_millis(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// The hash of the record before, as a payload has it.
pub(super) fn prev_hash_of(payload: &[u8]) -> Option<RecordHash> {
    payload.first_chunk::<SEQ_AT>().copied().map(RecordHash)
}

/// The stream's name in a payload, unchecked.
pub(super) fn stream_of(payload: &[u8]) -> Option<&str> {
    Reader(payload.get(PREFIX_BYTES..)?).text()
}

/// Reads a payload.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn decode(payload: &[u8]) -> Result<Record, String> {
    let short = || "it ends too early".to_owned();
    let mut reader = Reader(payload);
    let prev_hash = RecordHash(*reader.array().ok_or_else(short)?);
    let seq = Seq(u64::from_be_bytes(*reader.array().ok_or_else(short)?));
    let time = Timestamp::from_millis(u64::from_be_bytes(*reader.array().ok_or_else(short)?));
    let stream =
        reader.text().ok_or_else(short).and_then(|t| StreamId::parse(t).map_err(|e| e.to_string()))?;
    let kind = reader.text().ok_or_else(short)?.to_owned();
    let actor = reader.text().ok_or_else(short)?.to_owned();
    let actor = Actor::try_from(actor).map_err(|e| e.to_string())?;
    let version = u16::from_be_bytes(*reader.array().ok_or_else(short)?);
    let trace_id = TraceId::from_bits(u128::from_be_bytes(*reader.array().ok_or_else(short)?));
    let detail: Value =
        serde_json::from_slice(reader.0).map_err(|e| format!("its detail is not JSON: {e}"))?;
    Ok(Record { seq, time, stream, kind, version, actor, trace_id, detail, prev_hash })
}

/// Reads one frame that stands alone, as a fuzzer gives it.
///
/// # Errors
/// Says what is wrong with it.
pub fn decode_frame(bytes: &[u8]) -> Result<Record, String> {
    let header = Header::read(bytes)?;
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.payload_bytes).ok_or("it ends too early")?;
    if !header.matches(payload) {
        return Err("its checksum does not match".to_owned());
    }
    decode(payload)
}

/// What is left to read of a payload.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<&'a str> {
        let [length] = *self.array()?;
        let (head, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::TokenName;

    fn sample() -> (StreamId, NewRecord) {
        let new = NewRecord {
            kind: "token_created",
            version: 1,
            actor: Actor::Token(TokenName::parse("anna").expect("valid")),
            trace_id: TraceId::from_bits(7),
            detail: json!({"name": "ci", "role": "viewer"}),
        };
        (StreamId::operator(), new)
    }

    fn framed(stream: &StreamId, new: &NewRecord) -> (Vec<u8>, RecordHash) {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        body(stream, new, &mut bytes).expect("storable");
        let hash = frame(&RecordHash([9; 32]), Seq(5), Timestamp::from_millis(1_000), &bytes, &mut out);
        (out, hash)
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let (stream, new) = sample();
        let (bytes, hash) = framed(&stream, &new);
        let record = decode_frame(&bytes).expect("whole");
        assert_eq!(record.stream, stream);
        assert_eq!(record.kind, new.kind);
        assert_eq!(record.actor, new.actor);
        assert_eq!(record.trace_id, new.trace_id);
        assert_eq!(record.detail, new.detail);
        assert_eq!((record.seq, record.time), (Seq(5), Timestamp::from_millis(1_000)));
        assert_eq!(super::hash(&bytes[HEADER_BYTES..]), hash);
        assert_eq!(stream_of(&bytes[HEADER_BYTES..]), Some("operator"));
    }

    #[test]
    fn the_encoding_is_the_golden_one() {
        let (stream, new) = sample();
        let (bytes, hash) = framed(&stream, &new);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        insta::assert_snapshot!(format!("frame {hex}\nhash {hash}"));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (stream, new) = sample();
        let (bytes, _) = framed(&stream, &new);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_detail_is_taken_at_its_longest_and_refused_one_byte_later() {
        let (stream, mut new) = sample();
        let frame_bytes = json!({"t": ""}).to_string().len();
        new.detail = json!({"t": "x".repeat(JOURNAL_DETAIL_BYTES_MAX - frame_bytes)});
        assert_eq!(body(&stream, &new, &mut Vec::new()), Ok(()));
        new.detail = json!({"t": "x".repeat(JOURNAL_DETAIL_BYTES_MAX - frame_bytes + 1)});
        assert!(body(&stream, &new, &mut Vec::new()).is_err());
        new.detail = json!([]);
        assert!(body(&stream, &new, &mut Vec::new()).is_err());
    }
}
