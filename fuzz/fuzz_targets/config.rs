//! Any bytes as a configuration file: a configuration or a list of what is wrong with it, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Either outcome is right; only a panic or a hang is not.
    let _ = plimsoll::config::load_text(bytes, &|name| (name == "SET").then(|| "a: ${b}\n\"".into()));
});
