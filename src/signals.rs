//! Signals: TERM and INT drain (a second one leaves at once), HUP reloads, USR1 opens the log again.

use std::io;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// TERM or INT.
    Stop,
    /// HUP.
    Reload,
    /// USR1.
    ReopenLog,
}

/// The signals that are listened to, from the moment this is made; before, they end the program as usual.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    /// Starts listening; nothing is lost that comes before somebody asks for it. Not before a helper is
    /// forked, which would inherit the way to us.
    pub(crate) fn new(runtime: &Runtime) -> io::Result<Self> {
        let _entered = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user.recv() => Request::ReopenLog,
        }
    }
}
