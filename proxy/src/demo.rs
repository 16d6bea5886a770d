//! A built-in RS for first steps, the lab and the tests: it answers with what reached it, so that the effect
//! of every setting can be seen.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::body::Body;
use crate::drain::Drain;
use crate::h1;
use crate::listener::{Handler, Refused, Request, Response, serve_h1};
use crate::message::RequestHead;
use crate::net::{Io, Stream};
use crate::state::Limits;

/// Serves on this socket, under this name, until the process ends. It accepts no more once `stop` is ready.
///
/// # Errors
/// Where the runtime cannot be made.
pub fn serve(listener: std::net::TcpListener, name: &str, stop: impl Future<Output = ()>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = crate::local_runtime()?;
    let demo = std::rc::Rc::new(Demo { name: name.to_owned(), address });
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let drain = Drain::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (demo, draining) = (std::rc::Rc::clone(&demo), drain.draining());
            tokio::task::spawn_local(async move {
                let io = Io::new(Stream::Plain(stream));
                serve_h1(io, &limits(), &*demo, &peer, draining).await;
            });
        }
        drop(listener);
        std::future::pending().await
    })
}

fn limits() -> Limits {
    let minute = Duration::from_secs(60);
    Limits {
        header_timeout: minute,
        body_timeout: minute,
        send_timeout: minute,
        keepalive_timeout: Duration::from_secs(3600),

        keepalive_requests: u32::MAX,
        body_size: u64::MAX,
        alt_svc: None,
        codec: h1::Limits::default(),
    }
}

struct Demo {
    name: String,
    address: SocketAddr,
}

impl Handler for Demo {
    type Connection = SocketAddr;

    async fn handle(&self, peer: &SocketAddr, mut request: Request) -> Response {
        let received = match request.body.skip().await {
            Ok(received) => received,
            Err(error) => return Response::failed(&error),
        };
        let page = self.page(*peer, &request.head, received);
        let kind = "text/plain; charset=utf-8";
        let mut response = Response::text(StatusCode::OK, kind, page);
        if let Some(size) = request.head.target.strip_prefix("/bytes/").and_then(|size| size.parse().ok()) {
            response = Response::text(StatusCode::OK, "application/octet-stream", "");
            response.body = Body::full(Bytes::from(vec![b'x'; usize::min(size, 1 << 30)]));
        }
        response.head.headers.append("X-Real-Server", &self.name);
        if request.head.method == Method::HEAD {
            let length = response.body.length().unwrap_or_default().to_string();
            response.head.headers.append("Content-Length", length);
        }
        response
    }

    fn refuse(&self, _: &SocketAddr, refused: Refused) -> Response {
        Response::failed(&refused.error)
    }
}

impl Demo {
    fn page(&self, peer: SocketAddr, head: &RequestHead, received: u64) -> String {
        let mut page = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _ = writeln!(page, "real server: {} ({})", self.name, self.address);
        let _ = writeln!(page, "connected from: {peer}");
        let _ = writeln!(page, "body: {received} bytes\n");
        let _ = writeln!(page, "{} {} HTTP/1.1\nHost: {}", head.method, head.target, head.authority);
        for (name, value) in head.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"host")) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let _ = writeln!(page, "{}: {}", text(name), text(value));
        }
        page
    }
}
