//! Leaving: every connection learns that no further request is wanted on it. Either for good, or because another process has
//! taken over, which accepts from the same sockets.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::watch;

/// What another process has taken over.
#[derive(Debug, Clone)]
pub(crate) struct HandOver {
    /// Of each listener, whether its connections are accepted there from now on.
    pub(crate) listeners: Vec<bool>,
    /// Whether the admin listener is.
    pub(crate) admin: bool,
    /// How long a kept-alive connection may still bring a request before it is closed. Nobody else can have its port, so
    /// there is no hurry, and a client that sends just then would find it closed.
    pub(crate) idle: Duration,
}

/// Tells everybody to drain.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    /// What is asked for every request; set before anybody is told.
    started: Arc<AtomicBool>,
    /// Set before that, if at all.
    handed_over: Arc<OnceLock<HandOver>>,
    tell: watch::Sender<()>,
}

impl Drain {
    pub(crate) fn new() -> Self {
        Self { started: Arc::default(), handed_over: Arc::default(), tell: watch::channel(()).0 }
    }

    /// From now on nothing new is begun.
    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::SeqCst);
        self.tell.send_replace(());
    }

    /// The same, but another process has taken over; only the first one counts.
    pub(crate) fn hand_over(&self, what: HandOver) {
        let _ = self.handed_over.set(what);
        self.start();
    }

    pub(crate) fn draining(&self) -> Draining {
        Draining {
            started: Arc::clone(&self.started),
            handed_over: Arc::clone(&self.handed_over),
            told: self.tell.subscribe(),
            waiting: None,
        }
    }
}

/// One connection's view of it.
pub(crate) struct Draining {
    started: Arc<AtomicBool>,
    handed_over: Arc<OnceLock<HandOver>>,
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

    /// What another process has taken over; `None` while there is no drain, and where it is for good.
    pub(crate) fn handed_over(&self) -> Option<&HandOver> {
        self.handed_over.get()
    }

    /// Whether another process accepts the connections of this listener.
    pub(crate) fn has_successor(&self, listener: usize) -> bool {
        self.handed_over().is_some_and(|what| what.listeners.get(listener) == Some(&true))
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
        Self {
            started: Arc::clone(&self.started),
            handed_over: Arc::clone(&self.handed_over),
            told: self.told.clone(),
            waiting: None,
        }
    }
}
