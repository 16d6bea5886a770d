//! HTTP/2 toward clients, through hyper: its types end here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::handler::{Handler, Refused, Request, Response};
use crate::access_log::Record;
use crate::body::{Body, Counter, Frame, Moved, Source};
use crate::drain::Draining;
use crate::error::Error;
use crate::h1;
use crate::message::{Headers, RequestHead, Version};
use crate::net::{Corked, Output, Stream};
use crate::state::Limits;

/// Streams a client may have open at a time.
const MAX_STREAMS: u32 = 128;
/// Window of a stream: fills a link of 80 Mbit/s at 100 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Response bytes kept per stream while the client's window is closed.
const SEND_BUFFER: usize = 64 << 10;
/// How long, and for how many bytes, the body of a request that was answered early is read on.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;
/// Interval of pings to a silent client.
const PING: Duration = Duration::from_secs(30);

/// Serves a connection until it ends.
pub(crate) async fn serve<H: Handler + 'static>(
    stream: Stream,
    limits: &Limits,
    handler: Rc<H>,
    connection: Rc<H::Connection>,
    mut draining: Draining,
) where
    H::Connection: 'static,
{
    let activity = Rc::new(Activity { streams: Cell::new(0), last: Cell::new(Instant::now()) });
    let body_size = limits.body_size;
    let service = service_fn(|request: http::Request<Incoming>| {
        let (handler, connection) = (Rc::clone(&handler), Rc::clone(&connection));
        let open = activity.open();
        async move {
            let (parts, incoming) = request.into_parts();
            let incoming = (!incoming.is_end_stream()).then(|| Rc::new(RefCell::new(incoming)));
            if let Some(incoming) = &incoming {
                tokio::task::spawn_local(linger(Rc::clone(incoming), open.ended()));
            }
            let response = match convert_request(parts, incoming, body_size) {
                Ok(request) => handler.handle(&connection, request).await,
                Err(refused) => handler.refuse(&connection, refused),
            };
            Ok::<_, std::convert::Infallible>(convert_response(response, open))
        }
    });
    let list_size = u32::try_from(limits.codec.head_bytes).unwrap_or(u32::MAX);
    let served = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(list_size)
        .keep_alive_interval(PING)
        .serve_connection(TokioIo::new(Corked::new(stream)), service);
    let mut served = pin!(served);
    loop {
        let idle_until = activity.idle_until(limits.keepalive_timeout);
        tokio::select! {
            // Errors are the client's or the network's, and the connection is gone either way.
            _ = served.as_mut() => return,
            () = draining.started() => break,
            () = tokio::time::sleep_until(idle_until) => {
                if activity.is_idle(limits.keepalive_timeout) {
                    break;
                }
            }
        }
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// Open streams of a connection, to tell when it is idle.
struct Activity {
    streams: Cell<usize>,
    last: Cell<Instant>,
}

impl Activity {
    fn open(self: &Rc<Self>) -> OpenStream {
        self.streams.set(self.streams.get() + 1);
        OpenStream { activity: Rc::clone(self), ended: Rc::default() }
    }

    fn is_idle(&self, patience: Duration) -> bool {
        self.streams.get() == 0 && Instant::now() >= self.last.get() + patience
    }

    fn idle_until(&self, patience: Duration) -> Instant {
        let from = if self.streams.get() == 0 { self.last.get() } else { Instant::now() };
        from + patience.max(Duration::from_secs(1))
    }
}

/// Counts one stream for as long as its response is under way.
struct OpenStream {
    activity: Rc<Activity>,
    ended: Rc<Notify>,
}

impl OpenStream {
    /// Told when the response has ended.
    fn ended(&self) -> Rc<Notify> {
        Rc::clone(&self.ended)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.activity.streams.set(self.activity.streams.get() - 1);
        self.activity.last.set(Instant::now());
        self.ended.notify_one();
    }
}

/// Keeps a request's body for a moment behind its response: a reset at once makes some clients, curl 7.88 among
/// them, forget the response that came before it.
async fn linger(incoming: Rc<RefCell<Incoming>>, ended: Rc<Notify>) {
    ended.notified().await;
    let mut left = LINGER_BYTES;
    let at_end = poll_fn(|cx| {
        let mut incoming = incoming.borrow_mut();
        loop {
            match std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                Some(Ok(frame)) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) | None => return Poll::Ready(()),
            }
            if left == 0 {
                return Poll::Ready(());
            }
        }
    });
    let _ = tokio::time::timeout(LINGER, at_end).await;
}

/// Spawns on the worker's own thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn convert_request(
    parts: http::request::Parts,
    incoming: Option<Rc<RefCell<Incoming>>>,
    body_size: u64,
) -> Result<Request, Refused> {
    if parts.method == http::Method::CONNECT {
        return Err(Error::Head(h1::HeadError::Connect).into());
    }
    let mut headers = Headers::new();
    for (name, value) in &parts.headers {
        // HTTP/2 could carry what would become a line of its own in HTTP/1.1 (RFC 9113 10.3).
        if !h1::valid_name(name.as_str().as_bytes()) || !h1::valid_value(value.as_bytes()) {
            return Err(Error::Head(h1::HeadError::FieldValue).into());
        }
        headers.append(name.as_str(), value.as_bytes());
    }
    let authority = match (parts.uri.authority(), headers.get("host")) {
        (Some(authority), Some(host)) if authority.as_str().as_bytes() != host => {
            return Err(Error::Host.into());
        }
        (Some(authority), _) => authority.as_str().to_owned(),
        (None, Some(host)) => String::from_utf8(host.to_vec()).map_err(|_| Error::Host)?,
        (None, None) => return Err(Error::Host.into()),
    };
    headers.remove("host");
    headers.join("cookie", b"; ");
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let head =
        Box::new(RequestHead { method: parts.method, target, authority, version: Version::Http2, headers });
    let mut received = Counter::default();
    let arrived = Instant::now();
    let Some(incoming) = incoming else {
        return Ok(Request { head, body: Body::empty(), upgrade: false, arrived, received });
    };
    let length = incoming.borrow().size_hint().exact();
    if length.is_some_and(|length| length > body_size) {
        return Err(Refused { head: Some(head), error: Error::BodyTooLarge });
    }
    received = Counter::new(0);
    let body =
        Body::stream(Box::new(RequestBody { incoming, left: body_size, length })).counted(received.clone());
    Ok(Request { head, body, upgrade: false, arrived, received })
}

struct RequestBody {
    incoming: Rc<RefCell<Incoming>>,
    left: u64,
    length: Option<u64>,
}

impl Source for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        loop {
            let polled = Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(cx);
            let frame = match std::task::ready!(polled) {
                None => return Poll::Ready(None),
                Some(Err(_)) => return Poll::Ready(Some(Err(Error::ClientGone))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    let Some(left) = self.left.checked_sub(data.len() as u64) else {
                        return Poll::Ready(Some(Err(Error::BodyTooLarge)));
                    };
                    self.left = left;
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Err(other) => {
                    let Ok(trailers) = other.into_trailers() else { continue };
                    let mut headers = Headers::new();
                    for (name, value) in &trailers {
                        if h1::valid_name(name.as_str().as_bytes()) && h1::valid_value(value.as_bytes()) {
                            headers.append(name.as_str(), value.as_bytes());
                        }
                    }
                    return Poll::Ready(Some(Ok(Frame::Trailers(headers))));
                }
            }
        }
    }

    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output,
        chunked: bool,
    ) -> Poll<Result<Moved, Error>> {
        Poll::Ready(match std::task::ready!(self.poll_frame(cx)) {
            None => Ok(Moved::Last(0)),
            Some(Ok(Frame::Trailers(trailers))) => Ok(Moved::Trailers(trailers)),
            Some(Ok(Frame::Data(data))) => {
                let length = data.len() as u64;
                output.push_body(data, chunked);
                Ok(Moved::Data(length))
            }
            Some(Err(error)) => Err(error),
        })
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

fn convert_response(response: Response, open: OpenStream) -> http::Response<ResponseBody> {
    let Response { head, body, record, .. } = response;
    let length = body.length();
    let mut converted = http::Response::new(ResponseBody { body, length, record, sent: 0, _open: open });
    *converted.status_mut() = head.status;
    let fields = converted.headers_mut();
    for (name, value) in head.headers.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    converted
}

/// The body of a response as hyper wants it; writes the record when it ends or is dropped.
struct ResponseBody {
    body: Body,
    length: Option<u64>,
    record: Option<Box<Record>>,
    sent: u64,
    _open: OpenStream,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(frame) = std::task::ready!(this.body.poll_frame(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(match frame {
            Ok(Frame::Data(data)) => {
                this.sent += data.len() as u64;
                Ok(http_body::Frame::data(data))
            }
            Ok(Frame::Trailers(trailers)) => Ok(http_body::Frame::trailers(field_map(&trailers))),
            Err(error) => {
                if let Some(record) = &mut this.record {
                    record.ended(this.sent, Some(error));
                }
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.length.map_or_else(http_body::SizeHint::default, |length| {
            http_body::SizeHint::with_exact(length.saturating_sub(self.sent))
        })
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(record) = &mut self.record {
            let complete = self.body.is_empty() || self.length.is_none_or(|length| length == self.sent);
            record.ended(self.sent, (!complete).then_some(Error::ClientGone));
        }
    }
}

fn field_map(headers: &Headers) -> http::HeaderMap {
    headers
        .iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
        .collect()
}
