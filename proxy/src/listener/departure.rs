//! Whether a client of HTTP/1.1 that has ended its side still waits for its answer. One that is gone looks the same until
//! something is sent to it (RFC 9112 9.6): so it is told that the answer takes a while, and whoever is gone replies to that
//! with a reset. No RS goes on working for nobody, and who has only finished sending is answered. Nothing of this happens
//! to a request that is answered within a second.

use std::io::ErrorKind;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::h1::{self, Framing};
use crate::message::{ResponseHead, Version};
use crate::net::{Io, Watchdog, clock};

/// How long an answer may take before anybody looks for the client, and the client to be heard.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of one client during one request.
pub(super) struct Departure<'a> {
    stage: Stage,
    pause: &'a mut Watchdog,
}

enum Stage {
    /// The request has just come.
    Early,
    /// The client may still send something, or end its side.
    Open,
    /// It was sent 102.
    Asked,
    /// It is there, or cannot be asked.
    Settled,
}

impl<'a> Departure<'a> {
    /// For a request that arrived at this moment. Clients of HTTP/1.0 know no interim responses (RFC 9110 15.2).
    pub(super) fn new(client: Version, arrived: Instant, pause: &'a mut Watchdog) -> Self {
        pause.feed(arrived, PAUSE);
        let stage = match client {
            Version::Http10 => Stage::Settled,
            Version::Http11 | Version::Http2 | Version::Http3 => Stage::Early,
        };
        Self { stage, pause }
    }

    /// Ready when the client is gone. Only behind the end of its request, and while nothing of the answer is written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<()> {
        loop {
            self.stage = match self.stage {
                Stage::Early => {
                    ready!(self.pause.poll_expired_alone(cx));
                    Stage::Open
                }
                // It is there for certain: it has asked for something else.
                Stage::Open if !io.input.is_empty() => Stage::Settled,
                Stage::Open => match ready!(io.poll_read_head(cx)) {
                    Ok(1..) => Stage::Settled,
                    Ok(0) => self.ask(cx, io),
                    // The same over TLS, without close_notify.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => self.ask(cx, io),
                    Err(_) => return Poll::Ready(()),
                },
                Stage::Asked => {
                    ready!(self.pause.poll_expired_alone(cx));
                    if io.stream.has_failed() {
                        return Poll::Ready(());
                    }
                    Stage::Settled
                }
                Stage::Settled => return Poll::Pending,
            };
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Stage {
        let head = ResponseHead::new(StatusCode::PROCESSING);
        h1::write_response(&head, Framing::None, true, Version::Http11, io.output.tail());
        self.pause.feed(clock::now(), PAUSE);
        // An error is found in a moment.
        let _ = io.poll_write(cx, &mut false);
        Stage::Asked
    }
}
