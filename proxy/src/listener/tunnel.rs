//! A connection that has left HTTP (WebSocket): bytes both ways, each direction ended on its own.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;

use super::handler::Switched;
use crate::net::{Io, Watchdog, clock};

/// Bytes one side may be ahead of the other.
const HIGH_WATER: usize = 64 << 10;

/// Bytes that went through.
pub(super) struct Moved {
    pub(super) up: u64,
    pub(super) down: u64,
}

/// Copies until both directions have ended, one side fails, or nothing moved for too long. When the program
/// drains, the connection lives on until the end of the drain.
pub(crate) async fn copy(client: Io, switched: Switched) -> Moved {
    let Switched { io: server, idle, grant: _held } = switched;
    let mut up = Direction::default();
    let mut down = Direction::default();
    let (mut client, mut server) = (client, *server);
    up.queue_input(&mut client, &mut server);
    down.queue_input(&mut server, &mut client);
    let mut watchdog = Watchdog::default();
    watchdog.feed(clock::now(), idle);
    poll_fn(|cx| {
        let mut progress = false;
        let going_up = up.poll(&mut client, &mut server, cx, &mut progress);
        let going_down = down.poll(&mut server, &mut client, cx, &mut progress);
        match (going_up, going_down) {
            (Err(()), _) | (_, Err(())) => return Poll::Ready(()),
            (Ok(Poll::Ready(())), Ok(Poll::Ready(()))) => return Poll::Ready(()),
            (Ok(_), Ok(_)) => {}
        }
        if progress {
            watchdog.feed(clock::now(), idle);
        }
        watchdog.poll_expired_alone(cx)
    })
    .await;
    let _ = tokio::time::timeout(Duration::from_secs(1), client.shutdown()).await;
    Moved { up: up.moved, down: down.moved }
}

/// One way: what is read from one side is queued on the other.
#[derive(Default)]
struct Direction {
    ended: bool,
    passed_on: bool,
    moved: u64,
}

impl Direction {
    fn queue_input(&mut self, from: &mut Io, to: &mut Io) {
        let length = from.input.len();
        if length > 0 {
            self.moved += length as u64;
            to.output.push_body_from(&mut from.input, length, false);
        }
    }

    /// Ready when this direction has ended and its end was passed on.
    fn poll(
        &mut self,
        from: &mut Io,
        to: &mut Io,
        cx: &mut Context<'_>,
        progress: &mut bool,
    ) -> Result<Poll<()>, ()> {
        loop {
            let written = match to.poll_write(cx, progress) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => false,
            };
            if self.ended {
                return if written { self.pass_on(to, cx) } else { Ok(Poll::Pending) };
            }
            if to.output.len() >= HIGH_WATER {
                return Ok(Poll::Pending);
            }
            match from.poll_read_head(cx) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {
                    *progress = true;
                    self.queue_input(from, to);
                }
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    fn pass_on(&mut self, to: &mut Io, cx: &mut Context<'_>) -> Result<Poll<()>, ()> {
        if !self.passed_on {
            match std::pin::Pin::new(&mut to.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.passed_on = true,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }
}
