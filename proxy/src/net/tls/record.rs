//! Records of TLS once the handshake is complete: one direction of a connection, with the keys that rustls has made.
//!
//! rustls moves content through buffers of its own: it is copied once to be sealed, and up to three times when it was opened.
//! Here it is sealed and opened from where it lies to where it is wanted.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ProtocolVersion};

/// Bytes before the fragment of a record (RFC 8446 5.1).
pub(super) const HEAD: usize = 5;
/// Most bytes of content in a record (RFC 8446 5.1).
pub(super) const MOST: usize = 1 << 14;
/// Most bytes of a fragment. TLS 1.2 allows more (RFC 5246 6.2.3), of which no cipher makes use.
const MOST_FRAGMENT: usize = MOST + 256;
/// Bytes of every tag (RFC 5116 5.1 and 5.2, RFC 8439 2.8).
const TAG: usize = 16;
/// Bytes of the nonce that TLS 1.2 writes before what AES-GCM has sealed (RFC 5288 3).
const EXPLICIT: usize = 8;
/// Most bytes from other pieces at the end of a record, besides its type.
pub(super) const MOST_EXTRA: usize = 16;

/// Content types (RFC 8446 B.1).
pub(super) mod kind {
    pub(in super::super) const ALERT: u8 = 21;
    pub(in super::super) const HANDSHAKE: u8 = 22;
    pub(in super::super) const APPLICATION_DATA: u8 = 23;
}

/// How a record is put together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// TLS 1.3: the type is sealed with the content (RFC 8446 5.2).
    Tls13,
    /// TLS 1.2 with ChaCha20-Poly1305 (RFC 7905 2).
    Tls12,
    /// TLS 1.2 with AES-GCM, which writes half of its nonce (RFC 5288 3).
    Tls12Explicit,
}

/// What seals or opens one direction.
pub(super) struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    form: Form,
    /// The number of the next record.
    sequence: u64,
}

/// A record that was opened.
pub(super) struct Opened {
    pub(super) kind: u8,
    /// Bytes of content.
    pub(super) length: usize,
}

/// What may follow a head.
pub(super) struct Head {
    kind: u8,
    /// Bytes of the fragment.
    pub(super) fragment: usize,
    bytes: [u8; HEAD],
}

impl Head {
    /// Whether there are records of this type (RFC 8446 B.1).
    pub(super) fn is_known(&self) -> bool {
        (20..=23).contains(&self.kind)
    }

    /// The head at the front of these bytes; nothing where more of it is to come.
    ///
    /// # Errors
    /// Where a record is longer than any may be.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, AlertDescription> {
        let Some(&bytes) = input.first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, _, _, high, low] = bytes;
        let fragment = usize::from(u16::from_be_bytes([high, low]));
        match fragment <= MOST_FRAGMENT {
            true => Ok(Some(Self { kind, fragment, bytes })),
            false => Err(AlertDescription::RecordOverflow),
        }
    }
}

impl Direction {
    /// The next record has this number.
    ///
    /// # Errors
    /// Where the version or the cipher is none that we speak.
    pub(super) fn new(
        version: ProtocolVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, rustls::Error> {
        let (algorithm, key, iv, gcm) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, true),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, true),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv, false),
            _ => return Err(rustls::Error::General("a cipher that is not known".into())),
        };
        let form = match (version, gcm) {
            (ProtocolVersion::TLSv1_3, _) => Form::Tls13,
            (ProtocolVersion::TLSv1_2, true) => Form::Tls12Explicit,
            (ProtocolVersion::TLSv1_2, false) => Form::Tls12,
            _ => return Err(rustls::Error::General("a version of TLS that is not known".into())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| rustls::Error::EncryptError)?;
        let iv = iv.as_ref().try_into().map_err(|_| rustls::Error::EncryptError)?;
        Ok(Self { key: LessSafeKey::new(key), iv, form, sequence })
    }

    /// Records so far with this key.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes that a record has for this much content.
    pub(super) fn sealed_length(&self, content: usize) -> usize {
        HEAD + content + self.around()
    }

    /// Bytes of the fragment besides the content.
    fn around(&self) -> usize {
        match self.form {
            Form::Tls13 => 1 + TAG,
            Form::Tls12 => TAG,
            Form::Tls12Explicit => EXPLICIT + TAG,
        }
    }

    /// Room that is needed to open a record with this head.
    pub(super) fn room(&self, head: &Head) -> usize {
        let beside = if self.form == Form::Tls12Explicit { EXPLICIT + TAG } else { TAG };
        head.fragment.saturating_sub(beside)
    }

    /// Seals content and a few bytes behind it, at most [`MOST`] and [`MOST_EXTRA`], into a record of [`Self::sealed_length`].
    ///
    /// # Errors
    /// Where a length is not what it has to be.
    pub(super) fn seal(
        &mut self,
        kind: u8,
        content: &[u8],
        extra: &[u8],
        record: &mut [u8],
    ) -> Result<(), rustls::Error> {
        self.try_seal(kind, content, extra, record).ok_or(rustls::Error::EncryptError)
    }

    fn try_seal(&mut self, kind: u8, content: &[u8], extra: &[u8], record: &mut [u8]) -> Option<()> {
        let length = content.len() + extra.len();
        let (head, fragment) = record.split_at_mut_checked(HEAD)?;
        let outer = if self.form == Form::Tls13 { kind::APPLICATION_DATA } else { kind };
        let fragment_length = u16::try_from(fragment.len()).ok()?;
        let [high, low] = fragment_length.to_be_bytes();
        head.copy_from_slice(&[outer, 3, 3, high, low]);
        let nonce = self.nonce();
        let fragment = match self.form {
            Form::Tls12Explicit => {
                let (explicit, fragment) = fragment.split_at_mut_checked(EXPLICIT)?;
                explicit.copy_from_slice(nonce.last_chunk::<EXPLICIT>()?);
                fragment
            }
            Form::Tls13 | Form::Tls12 => fragment,
        };
        let (sealed, behind) = fragment.split_at_mut_checked(content.len())?;
        let mut inner = [0; MOST_EXTRA + 1];
        inner.get_mut(..extra.len())?.copy_from_slice(extra);
        *inner.get_mut(extra.len())? = kind;
        let inner = inner.get(..extra.len() + usize::from(self.form == Form::Tls13))?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let result = match self.form {
            Form::Tls13 => {
                self.key.seal_out_of_place_scatter(nonce, Aad::from(&*head), content, sealed, inner, behind)
            }
            Form::Tls12 | Form::Tls12Explicit => {
                let aad = Aad::from(self.associated(kind, length)?);
                self.key.seal_out_of_place_scatter(nonce, aad, content, sealed, inner, behind)
            }
        };
        result.ok()?;
        self.sequence += 1;
        Some(())
    }

    /// Opens the fragment of a record into `room`, which has [`Self::room`] bytes.
    ///
    /// # Errors
    /// Where it is none that the other side has sealed as the next one.
    pub(super) fn open(
        &mut self,
        head: &Head,
        fragment: &[u8],
        room: &mut [u8],
    ) -> Result<Opened, AlertDescription> {
        if self.form == Form::Tls13 && head.kind != kind::APPLICATION_DATA {
            return Err(AlertDescription::UnexpectedMessage);
        }
        self.try_open(head, fragment, room).ok_or(AlertDescription::BadRecordMac)?;
        self.sequence += 1;
        let opened = match self.form {
            Form::Tls13 => {
                // The type is what comes before any padding (RFC 8446 5.4).
                let end = room.iter().rposition(|&byte| byte != 0);
                let end = end.ok_or(AlertDescription::UnexpectedMessage)?;
                Opened { kind: room.get(end).copied().unwrap_or_default(), length: end }
            }
            Form::Tls12 | Form::Tls12Explicit => Opened { kind: head.kind, length: room.len() },
        };
        match opened.length <= MOST {
            true => Ok(opened),
            false => Err(AlertDescription::RecordOverflow),
        }
    }

    fn try_open(&self, head: &Head, fragment: &[u8], room: &mut [u8]) -> Option<()> {
        let (sealed, tag) = fragment.split_at_checked(fragment.len().checked_sub(TAG)?)?;
        let (nonce, sealed) = match self.form {
            Form::Tls13 | Form::Tls12 => (self.nonce(), sealed),
            Form::Tls12Explicit => {
                let (explicit, sealed) = sealed.split_at_checked(EXPLICIT)?;
                let mut nonce = self.iv;
                nonce.last_chunk_mut::<EXPLICIT>()?.copy_from_slice(explicit);
                (nonce, sealed)
            }
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = match self.form {
            Form::Tls13 => self.key.open_separate_gather(nonce, Aad::from(&head.bytes), sealed, tag, room),
            Form::Tls12 | Form::Tls12Explicit => {
                let aad = Aad::from(self.associated(head.kind, sealed.len())?);
                self.key.open_separate_gather(nonce, aad, sealed, tag, room)
            }
        };
        opened.ok()
    }

    /// The nonce of the next record (RFC 8446 5.3, RFC 7905 2); TLS 1.2 leaves AES-GCM its choice (RFC 5288 3).
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().rev().zip(self.sequence.to_le_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// What TLS 1.2 authenticates with the content (RFC 5246 6.2.3.3).
    fn associated(&self, kind: u8, length: usize) -> Option<[u8; 13]> {
        let mut data = [0; 13];
        let (number, rest) = data.split_at_mut(8);
        number.copy_from_slice(&self.sequence.to_be_bytes());
        let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
        rest.copy_from_slice(&[kind, 3, 3, high, low]);
        Some(data)
    }
}
