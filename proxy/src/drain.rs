//! Leaving: every connection learns that no further request is wanted on it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

/// Tells everybody to drain.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    /// What is asked for every request; set before anybody is told.
    started: Arc<AtomicBool>,
    tell: watch::Sender<()>,
}

impl Drain {
    pub(crate) fn new() -> Self {
        Self { started: Arc::default(), tell: watch::channel(()).0 }
    }

    /// From now on nothing new is begun.
    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::SeqCst);
        self.tell.send_replace(());
    }

    pub(crate) fn draining(&self) -> Draining {
        Draining { started: Arc::clone(&self.started), told: self.tell.subscribe(), waiting: None }
    }
}

/// One connection's view of it.
pub(crate) struct Draining {
    started: Arc<AtomicBool>,
    told: watch::Receiver<()>,
    /// Who is woken, and what wakes it: set up once, since a connection waits again and again.
    waiting: Option<(Waker, Told)>,
}

/// Ready when the drain has started.
type Told = Pin<Box<dyn Future<Output = ()>>>;

impl Draining {
    /// Whether the drain has started.
    pub(crate) fn has_started(&self) -> bool {
        self.started.load(Ordering::SeqCst)
    }

    /// Ready once the drain has started.
    pub(crate) fn poll_started(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_started() {
            return Poll::Ready(());
        }
        match &mut self.waiting {
            Some((waker, _)) if waker.will_wake(cx.waker()) => Poll::Pending,
            Some((waker, told)) => {
                waker.clone_from(cx.waker());
                told.as_mut().poll(cx)
            }
            None => {
                let mut receiver = self.told.clone();
                let mut told: Told = Box::pin(async move {
                    // The sender going away means the program ends.
                    let _ = receiver.changed().await;
                });
                let polled = told.as_mut().poll(cx);
                self.waiting = Some((cx.waker().clone(), told));
                polled
            }
        }
    }

    /// Returns once the drain has started.
    pub(crate) async fn started(&mut self) {
        std::future::poll_fn(|cx| self.poll_started(cx)).await;
    }
}

impl Clone for Draining {
    fn clone(&self) -> Self {
        Self { started: Arc::clone(&self.started), told: self.told.clone(), waiting: None }
    }
}
