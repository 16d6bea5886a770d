//! A session of TLS once its handshake is complete: content to records and back, and what the two sides have to say about
//! the session itself. The keys come from rustls, which has made the handshake and knows how they are renewed.

use std::io::IoSlice;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets, ProtocolVersion,
    SupportedCipherSuite,
};

use super::super::BLOCK;
use super::record::{Direction, HEAD, Head, MOST, MOST_EXTRA, kind};
use super::sealed::Sealed;

/// Records one after the other that bring no content; each costs us more than the other side.
const PATIENCE: u8 = 32;
/// Longest message about the session; a ticket may be 64 KiB, and none is.
const MOST_MESSAGE: usize = 32 << 10;
/// Records before the last that a key may seal; they are left for what ends the session.
const RESERVE: u64 = 8;

/// Handshake messages (RFC 8446 B.3, RFC 5246 7.4.1).
mod message {
    pub(super) const HELLO_REQUEST: u8 = 0;
    pub(super) const CLIENT_HELLO: u8 = 1;
    pub(super) const NEW_SESSION_TICKET: u8 = 4;
    pub(super) const KEY_UPDATE: u8 = 24;
    /// Bytes of type and length.
    pub(super) const HEAD: usize = 4;
}

/// Alert levels (RFC 8446 B.2).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// A record, and what is behind it.
pub(super) struct Record<'a> {
    head: Head,
    fragment: &'a [u8],
    pub(super) rest: &'a [u8],
}

/// What rustls keeps of a connection.
pub(super) enum Keeper {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl Keeper {
    fn agreed(&self) -> (ProtocolVersion, SupportedCipherSuite) {
        match self {
            Self::Server(kernel) => (kernel.protocol_version(), kernel.negotiated_cipher_suite()),
            Self::Client(kernel) => (kernel.protocol_version(), kernel.negotiated_cipher_suite()),
        }
    }

    /// The next key that we seal with, and the number of its first record.
    fn next_of_ours(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_tx_secret(),
            Self::Client(kernel) => kernel.update_tx_secret(),
        }
    }

    /// The next key that the other side seals with, and the number of its first record.
    fn next_of_theirs(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_rx_secret(),
            Self::Client(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// A session.
pub(crate) struct Session {
    send: Direction,
    receive: Direction,
    keeper: Keeper,
    is_tls13: bool,
    /// Records that a key may seal.
    limit: u64,
    out: Sealed,
    /// The beginning of a handshake message, of which the rest comes in further records.
    message: Vec<u8>,
    patience: u8,
    /// The other side has new keys, and wants us to have as well.
    owes_keys: bool,
    /// The other side has wanted to begin anew, and was told that there is no such thing.
    has_declined: bool,
    /// The other side has said that nothing follows.
    ended: bool,
    failed: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Takes over after the handshake; what it has left to say goes first.
    ///
    /// # Errors
    /// Where the version or the cipher is none that we speak.
    pub(super) fn new(secrets: ExtractedSecrets, keeper: Keeper, out: Sealed) -> Result<Self, Error> {
        let (version, suite) = keeper.agreed();
        let common = match suite {
            SupportedCipherSuite::Tls13(suite) => &suite.common,
            SupportedCipherSuite::Tls12(suite) => &suite.common,
        };
        Ok(Self {
            send: Direction::new(version, secrets.tx)?,
            receive: Direction::new(version, secrets.rx)?,
            keeper,
            is_tls13: version == ProtocolVersion::TLSv1_3,
            limit: common.confidentiality_limit,
            out,
            message: Vec::new(),
            patience: PATIENCE,
            owes_keys: false,
            has_declined: false,
            ended: false,
            failed: false,
        })
    }

    /// Records on their way out.
    pub(super) fn out(&mut self) -> &mut Sealed {
        &mut self.out
    }

    /// Whether nothing is left to say, or half said by the other side.
    pub(super) fn is_at_rest(&self) -> bool {
        self.out.is_empty() && self.message.is_empty() && !self.ended
    }

    /// Whether the other side has said that nothing follows.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The record at the front of these bytes, if it is whole, and what is behind it.
    ///
    /// # Errors
    /// Where it is longer than any may be.
    pub(super) fn next_record<'a>(&mut self, input: &'a [u8]) -> Result<Option<Record<'a>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let Some(head) = Head::parse(input).map_err(|alert| self.fail(alert.into()))? else {
            return Ok(None);
        };
        let behind = input.get(HEAD..).unwrap_or_default();
        let parts = behind.split_at_checked(head.fragment);
        Ok(parts.map(|(fragment, rest)| Record { head, fragment, rest }))
    }

    /// Room that is needed to open a record.
    pub(super) fn room(&self, record: &Record<'_>) -> usize {
        self.receive.room(&record.head)
    }

    /// Opens a record into `room`, of the size that [`Self::room`] says, and returns how much of it is
    /// content.
    ///
    /// # Errors
    /// Where the other side does what it may not, or says that it gives up. It has been told why then, in what waits to
    /// leave.
    pub(super) fn open(&mut self, record: &Record<'_>, room: &mut [u8]) -> Result<usize, Error> {
        self.try_open(record, room).map_err(|fault| self.fail(fault))
    }

    /// The session is over; the other side is told why, once.
    fn fail(&mut self, fault: Fault) -> Error {
        let (alert, error) = match fault {
            Fault::Ours(alert, error) => (Some(alert), error),
            Fault::Theirs(error) => (None, error),
        };
        if !std::mem::replace(&mut self.failed, true)
            && let Some(alert) = alert
        {
            // Without keys nothing can be said.
            let _ = self.seal(kind::ALERT, &[FATAL, alert.into()], &[]);
        }
        error
    }

    fn try_open(&mut self, record: &Record<'_>, room: &mut [u8]) -> Result<usize, Fault> {
        let opened = self.receive.open(&record.head, record.fragment, room)?;
        let content = room.get(..opened.length).unwrap_or_default();
        if opened.kind == kind::APPLICATION_DATA && self.message.is_empty() {
            match opened.length {
                0 => self.tired()?,
                _ => self.patience = PATIENCE,
            }
            return Ok(opened.length);
        }
        self.tired()?;
        match opened.kind {
            kind::HANDSHAKE if !content.is_empty() => self.handshake(content)?,
            kind::ALERT if self.message.is_empty() => self.alert(content)?,
            _ => return Err(Fault::unexpected("a record out of place")),
        }
        Ok(0)
    }

    /// The other side has brought no content.
    fn tired(&mut self) -> Result<(), Fault> {
        let fault = Fault::unexpected("too many records without content");
        self.patience = self.patience.checked_sub(1).ok_or(fault)?;
        Ok(())
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), Fault> {
        let &[level, code] = content else { return Err(Fault::malformed("an alert of another length")) };
        let alert = AlertDescription::from(code);
        match alert {
            AlertDescription::CloseNotify => self.ended = true,
            // It says nothing about the session (RFC 8446 6.1).
            AlertDescription::UserCanceled => {}
            _ if level == WARNING && !self.is_tls13 => {}
            _ => return Err(Fault::Theirs(Error::AlertReceived(alert))),
        }
        Ok(())
    }

    /// Messages about the session, which may come in pieces (RFC 8446 5.1).
    fn handshake(&mut self, content: &[u8]) -> Result<(), Fault> {
        let mut waiting = std::mem::take(&mut self.message);
        waiting.extend_from_slice(content);
        let mut rest = waiting.as_slice();
        while let Some((&[kind, a, b, c], behind)) = rest.split_first_chunk::<{ message::HEAD }>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MOST_MESSAGE {
                return Err(Fault::malformed("a message that is too long"));
            }
            let Some((body, behind)) = behind.split_at_checked(length) else { break };
            rest = behind;
            self.tired()?;
            self.message(kind, body, rest.is_empty())?;
        }
        self.message = rest.to_vec();
        Ok(())
    }

    fn message(&mut self, kind: u8, body: &[u8], is_last: bool) -> Result<(), Fault> {
        match (kind, &mut self.keeper) {
            // No message may stand on both sides of a change of keys.
            (message::KEY_UPDATE, _) if self.is_tls13 && is_last => self.key_update(body),
            (message::NEW_SESSION_TICKET, Keeper::Client(kernel)) if self.is_tls13 => kernel
                .handle_new_session_ticket(body)
                .map_err(|error| Fault::Ours(AlertDescription::DecodeError, error)),
            (message::CLIENT_HELLO, Keeper::Server(_)) | (message::HELLO_REQUEST, Keeper::Client(_))
                if !self.is_tls13 && !std::mem::replace(&mut self.has_declined, true) =>
            {
                // Keys are not negotiated again (RFC 5246 7.2.2).
                let alert = [WARNING, AlertDescription::NoRenegotiation.into()];
                Ok(self.seal(kind::ALERT, &alert, &[])?)
            }
            _ => Err(Fault::unexpected("a message out of place")),
        }
    }

    /// The other side has new keys, and may want us to have as well (RFC 8446 4.6.3).
    fn key_update(&mut self, body: &[u8]) -> Result<(), Fault> {
        let wants_ours = match body {
            [0] => false,
            [1] => true,
            _ => return Err(Fault::malformed("a change of keys that says something else")),
        };
        self.receive = Direction::new(ProtocolVersion::TLSv1_3, self.keeper.next_of_theirs()?)?;
        // Ours come with the next content: whoever only asks for them costs nothing that would have to wait.
        self.owes_keys |= wants_ours;
        Ok(())
    }

    /// Tells the other side that new keys follow, and takes them.
    fn renew(&mut self) -> Result<(), Error> {
        self.owes_keys = false;
        self.seal(kind::HANDSHAKE, &[message::KEY_UPDATE, 0, 0, 1, 0], &[])?;
        self.renew_own()
    }

    fn renew_own(&mut self) -> Result<(), Error> {
        self.send = Direction::new(ProtocolVersion::TLSv1_3, self.keeper.next_of_ours()?)?;
        Ok(())
    }

    /// Seals what is in these pieces until there is a [`BLOCK`] of records; how much it was.
    ///
    /// # Errors
    /// Where the keys are used up and there are no others, or the session is over.
    pub(super) fn write(&mut self, bufs: &[IoSlice<'_>]) -> Result<usize, Error> {
        if self.failed {
            return Err(Error::General("the session has failed".into()));
        }
        let mut pieces = bufs.iter().map(|buf| &**buf).filter(|buf| !buf.is_empty()).peekable();
        let mut taken = 0;
        while let Some(mut piece) = pieces.next() {
            while !piece.is_empty() {
                if self.out.waiting().len() >= BLOCK {
                    return Ok(taken);
                }
                let length = piece.len().min(MOST);
                let (content, rest) = piece.split_at(length);
                piece = rest;
                let fits = |next: &&[u8]| rest.is_empty() && next.len() <= MOST_EXTRA.min(MOST - length);
                let extra = pieces.next_if(fits).unwrap_or_default();
                self.seal_content(content, extra)?;
                taken += length + extra.len();
            }
        }
        Ok(taken)
    }

    fn seal_content(&mut self, content: &[u8], extra: &[u8]) -> Result<(), Error> {
        if self.owes_keys || self.send.sequence() >= self.limit.saturating_sub(RESERVE) {
            if !self.is_tls13 {
                return Err(Error::EncryptError);
            }
            self.renew()?;
        }
        self.seal(kind::APPLICATION_DATA, content, extra)
    }

    /// Tells the other side that nothing follows, unless it knows that the session is over.
    pub(super) fn say_goodbye(&mut self) {
        if !self.failed {
            // Without keys nothing can be said.
            let _ = self.seal(kind::ALERT, &[WARNING, AlertDescription::CloseNotify.into()], &[]);
        }
    }

    pub(super) fn seal(&mut self, kind: u8, content: &[u8], extra: &[u8]) -> Result<(), Error> {
        let length = self.send.sealed_length(content.len() + extra.len());
        self.send.seal(kind, content, extra, self.out.append(length))
    }
}

#[cfg(test)]
impl Session {
    /// Has keys used up after so many records.
    pub(super) fn set_limit(&mut self, records: u64) {
        self.limit = records;
    }

    /// Takes new keys without a word about it.
    pub(super) fn renewed(&mut self) {
        self.renew_own().unwrap();
    }
}

/// Why a session is over.
enum Fault {
    /// The other side is to be told.
    Ours(AlertDescription, Error),
    /// It has told us.
    Theirs(Error),
}

impl Fault {
    fn unexpected(why: &str) -> Self {
        Self::Ours(AlertDescription::UnexpectedMessage, Error::General(why.into()))
    }

    fn malformed(why: &str) -> Self {
        Self::Ours(AlertDescription::DecodeError, Error::General(why.into()))
    }
}

impl From<AlertDescription> for Fault {
    fn from(alert: AlertDescription) -> Self {
        let error = match alert {
            AlertDescription::BadRecordMac => Error::DecryptError,
            AlertDescription::RecordOverflow => Error::PeerSentOversizedRecord,
            _ => Error::General("a record out of place".into()),
        };
        Self::Ours(alert, error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(AlertDescription::InternalError, error)
    }
}
