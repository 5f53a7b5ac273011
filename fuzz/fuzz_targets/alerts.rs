//! Any bytes as a body of alerts: alerts or a refusal, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Either outcome is right; only a panic or a hang is not.
    let _ = plimsoll::alerts::read(bytes);
});
