//! One request on a connection of its own: what a health check needs.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;

use crate::h1;
use crate::h2::{Answered, Client, Connection, Event, Limits};
use crate::message::{Headers, RequestHead, ResponseHead};
use crate::net::{Io, Stream};

/// Bytes of the response's content that are looked at: its window, which is never opened again.
const WINDOW: u32 = 65_535;

/// A whole response.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Option<Headers>,
}

/// The response to a request with this content; nothing where none comes, or only part of one.
pub(crate) async fn ask(stream: Stream, head: &RequestHead, content: &[u8]) -> Option<Answer> {
    let scheme = if matches!(stream, Stream::Tls(_)) { "https" } else { "http" };
    let mut io = Io::new(stream);
    let mut out = Vec::new();
    let limits = Limits {
        streams: 1,
        stream_window: WINDOW,
        connection_window: WINDOW,
        largest_window: WINDOW,
        head: h1::Limits::default(),
    };
    let mut connection = Connection::connect(limits, &mut out);
    let slot = connection.open(head, scheme, None, content.is_empty(), &mut out)?;
    if !content.is_empty() {
        connection.send_data(slot, content.len(), true, &mut out);
        out.extend_from_slice(content);
    }
    let mut answer = Answer::default();
    loop {
        io.stream.write_all(&out).await.ok()?;
        io.stream.flush().await.ok()?;
        out.clear();
        if std::future::poll_fn(|cx| io.poll_read_head(cx)).await.ok()? == 0 {
            return None;
        }
        if take(&mut connection, &mut io.input, &mut out, &mut answer)? {
            return Some(answer);
        }
    }
}

/// Takes what has come; whether the response is complete.
fn take(
    connection: &mut Connection<Client>,
    input: &mut BytesMut,
    out: &mut Vec<u8>,
    answer: &mut Answer,
) -> Option<bool> {
    loop {
        match connection.receive(input, out).ok()? {
            Event::NeedMore => return Some(false),
            Event::Head(Answered::Response { head, ended, .. }) => {
                answer.head = *head;
                if ended {
                    return Some(true);
                }
            }
            Event::Head(Answered::Interim { .. }) => {}
            Event::Head(Answered::Leaving { refused }) if refused.is_empty() => {}
            Event::Head(Answered::Malformed { .. } | Answered::Leaving { .. }) | Event::Reset { .. } => {
                return None;
            }
            Event::Data { bytes, .. } => answer.content.extend_from_slice(&input.split_to(bytes)),
            Event::Ended { trailers, .. } => {
                answer.trailers = trailers;
                return Some(true);
            }
            Event::Window { .. } | Event::Windows | Event::ConnectionWindow | Event::Alive => {}
        }
    }
}
