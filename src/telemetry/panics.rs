//! A panic in a task is a log line and a counted error; the task's owner sees to the rest.

/// From now on, panics are logged too.
pub fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(source = "panic", place, "a part of plimsoll panicked: please report it");
        default(panic);
    }));
}
