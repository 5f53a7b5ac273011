//! Any bytes as a row of the journal: a record or what is damaged in it, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Either outcome is right; only a panic or a hang is not.
    let _ = plimsoll::journal::decode_frame(bytes);
});
