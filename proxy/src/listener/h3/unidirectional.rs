//! The task of a stream that the client has opened for itself (RFC 9114 6.2).

use std::rc::Rc;

use quinn::{ReadError, RecvStream};

use super::code;
use super::connection::Link;
use crate::h3::qpack::{DecoderStream, EncoderStream};
use crate::h3::{Beginning, Code, ConnectionError, Kind};

/// Most bytes that are taken from QUIC at a time.
const PIECE: usize = 4096;

/// Reads it to its end.
pub(super) async fn serve(link: Rc<Link>, mut stream: RecvStream) {
    let begun = tokio::time::timeout(link.limits.header_timeout, begin(&link, &mut stream)).await;
    let done = match begun {
        Ok(Ok(Some((kind, rest)))) => follow(&link, &mut stream, kind, &rest).await,
        Ok(Ok(None)) | Err(_) => {
            link.strayed();
            let _ = stream.stop(code(Code::StreamCreation));
            Ok(())
        }
        Ok(Err(error)) => Err(error),
    };
    if let Err(error) = done {
        link.fail(error);
    }
}

/// What the stream is for, and what has come behind that; nothing where it is for nothing.
async fn begin(
    link: &Link,
    stream: &mut RecvStream,
) -> Result<Option<(Kind, bytes::Bytes)>, ConnectionError> {
    let mut beginning = Beginning::default();
    while let Ok(Some(chunk)) = stream.read_chunk(PIECE, true).await {
        let mut rest = &chunk.bytes[..];
        if let Some(kind) = beginning.take(&mut rest) {
            let kind = link.streams.borrow_mut().open(kind)?;
            return Ok((kind != Kind::Unknown).then(|| (kind, chunk.bytes.slice_ref(rest))));
        }
    }
    Ok(None)
}

/// Obeys what is said on a stream that has to stay open.
async fn follow(
    link: &Link,
    stream: &mut RecvStream,
    kind: Kind,
    first: &[u8],
) -> Result<(), ConnectionError> {
    let (mut encoder, mut decoder) = (EncoderStream::default(), DecoderStream::default());
    let mut receive = |bytes: &[u8]| match kind {
        Kind::Control => link.control.borrow_mut().receive(bytes),
        Kind::Encoder => encoder.receive(bytes),
        Kind::Decoder => decoder.receive(bytes),
        Kind::Unknown => Ok(()),
    };
    receive(first)?;
    loop {
        match stream.read_chunk(PIECE, true).await {
            Ok(Some(chunk)) => receive(&chunk.bytes)?,
            Ok(None) | Err(ReadError::Reset(_)) => return Err(ConnectionError::closed_critical_stream()),
            Err(_) => return Ok(()),
        }
    }
}
