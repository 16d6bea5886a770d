//! Leaving: every connection learns that no further request is wanted on it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;

/// Tells everybody to drain.
#[derive(Debug, Clone)]
pub(crate) struct Drain(watch::Sender<bool>);

impl Drain {
    pub(crate) fn new() -> Self {
        Self(watch::channel(false).0)
    }

    /// From now on nothing new is begun.
    pub(crate) fn start(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn draining(&self) -> Draining {
        let receiver = self.0.subscribe();
        Draining { receiver, started: None }
    }
}

/// One connection's view of it.
pub(crate) struct Draining {
    receiver: watch::Receiver<bool>,
    started: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Draining {
    /// Whether the drain has started.
    pub(crate) fn has_started(&self) -> bool {
        *self.receiver.borrow()
    }

    /// Ready once the drain has started.
    pub(crate) fn poll_started(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_started() {
            return Poll::Ready(());
        }
        let started = self.started.get_or_insert_with(|| {
            let mut receiver = self.receiver.clone();
            Box::pin(async move {
                // The sender going away means the program ends.
                let _ = receiver.wait_for(|started| *started).await;
            })
        });
        started.as_mut().poll(cx)
    }

    /// Returns once the drain has started.
    pub(crate) async fn started(&mut self) {
        std::future::poll_fn(|cx| self.poll_started(cx)).await;
    }
}

impl Clone for Draining {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), started: None }
    }
}
