//! Leaving with a message when a part that must not end has ended.

/// Says why and ends the process at once: a dead worker or engine thread means that something is served by
/// nobody, and a supervisor restarts a process that is gone, not one that is half there.
pub(crate) fn abandon(reason: &str) -> ! {
    crate::notice::say(reason);
    std::process::exit(1)
}
