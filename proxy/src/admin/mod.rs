//! The admin listener: is the program alive, is it ready, what has it counted. Plain HTTP/1.1, GET only,
//! and nothing that changes anything.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::drain::{Drain, Draining};
use crate::h1;
use crate::listener::{Handler, Refused, Request, Response, serve_h1};
use crate::net::{Io, Stream};
use crate::state::Limits;

/// A page of the admin listener, made when somebody asks.
pub struct Page {
    /// Path, such as `/metrics`.
    pub path: &'static str,
    /// Media type of the text.
    pub kind: &'static str,
    /// Makes the text.
    pub text: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Page {
    /// The page /metrics, in the text format of Prometheus.
    pub fn metrics(text: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Self { path: "/metrics", kind: "text/plain; version=0.0.4; charset=utf-8", text }
    }
}

/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 64;

pub(crate) struct Admin {
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) pages: Vec<Page>,
}

/// Serves the pages until the program ends, or another process serves them: readiness is asked for during the drain as
/// well.
pub(crate) async fn serve(listener: TcpListener, admin: Rc<Admin>, draining: Draining) {
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let limits = Limits {
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(10),
        send_timeout: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(10),

        keepalive_requests: u32::MAX,
        body_size: 0,
        alt_svc: None,
        codec: h1::Limits { head_bytes: 8 << 10, ..h1::Limits::default() },
    };
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let accepted = tokio::select! {
            biased;
            () = handed_over(draining.clone()) => return,
            accepted = next => accepted,
        };
        let Some((accepted, permit)) = accepted else { return };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (admin, limits, draining) = (Rc::clone(&admin), limits.clone(), draining.clone());
        tokio::task::spawn_local(async move {
            serve_h1(Io::new(Stream::Plain(stream)), &limits, &*admin, &(), draining).await;
            drop(permit);
        });
    }
}

/// Returns once another process serves the pages.
async fn handed_over(mut draining: Draining) {
    draining.started().await;
    if draining.handed_over().is_none_or(|what| !what.admin) {
        std::future::pending().await
    }
}

/// Serves pages on a thread of its own, without a proxy; always ready. The thread ends with the process.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn serve_pages(listener: std::net::TcpListener, pages: Vec<Page>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    std::thread::Builder::new().name("admin".into()).spawn(move || {
        let served = crate::local_runtime().and_then(|runtime| {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                let admin = Rc::new(Admin { ready: Arc::new(AtomicBool::new(true)), pages });
                let drain = Drain::new();
                serve(listener, admin, drain.draining()).await;
                Ok(())
            })
        });
        // The tunnels go on without their page, and whoever asks for it sees that it is gone.
        served.unwrap_or(())
    })?;
    Ok(())
}

impl Handler for Admin {
    type Connection = ();

    async fn handle(&self, (): &(), request: Request) -> Response {
        if !matches!(request.head.method, Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n");
        }
        let path = request.head.target.split('?').next().unwrap_or_default();
        match path {
            "/livez" => plain(StatusCode::OK, "ok\n"),
            "/readyz" if self.ready.load(Ordering::Relaxed) => plain(StatusCode::OK, "ready\n"),
            "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            _ => match self.pages.iter().find(|page| page.path == path) {
                Some(page) => Response::text(StatusCode::OK, page.kind, (page.text)()),
                None => plain(StatusCode::NOT_FOUND, "no such page\n"),
            },
        }
    }

    fn refuse(&self, (): &(), refused: Refused) -> Response {
        Response::failed(&refused.error)
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    Response::text(status, "text/plain; charset=utf-8", text)
}
