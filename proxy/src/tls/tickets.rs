//! Session tickets (RFC 5077, RFC 8446 4.6.1): what a client keeps so that its next handshake is a short one. Nothing is
//! kept here.
//!
//! Keys follow from secrets and the wall clock: nodes that share the secrets change keys at the same time and take each
//! other's tickets, without a word between them. Time is cut into periods; a ticket is good until the one after its own
//! ends. Clocks may differ by up to a period.
//!
//! A ticket is name (16 bytes) | salt (16) | sealed session and tag. The name is that of the key of a period; what seals is made of
//! this key and the salt, and seals nothing else, so that no number of tickets is too many for it.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::server::ProducesTickets;

use crate::net::clock;

const NAME: usize = 16;
const SALT: usize = 16;
const KEY: usize = 32;
const TAG: usize = 16;
/// The largest session that becomes a ticket, bytes: one with the certificates of a client may be large, and a ticket
/// has to fit into 65535.
const LARGEST: usize = 48 << 10;

/// Makes the tickets of one kind of handshake on one listener.
pub(super) struct Tickets {
    secrets: Vec<Secret>,
    /// Length of a period, seconds.
    period: u64,
    /// Tickets of another one are not taken.
    context: Box<[u8]>,
    /// Of the period that was asked for last.
    keys: RwLock<Arc<Keys>>,
}

/// What keys follow from.
#[derive(Clone)]
pub(crate) struct Secret(Prk);

impl Secret {
    /// From something that nobody can guess.
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(Salt::new(HKDF_SHA256, b"ingre session tickets").extract(secret))
    }
}

impl Tickets {
    /// The first secret seals; all of them open. A period has this many seconds, 1 at least.
    pub(super) fn new(secrets: Vec<Secret>, period: u64, context: Box<[u8]>) -> Self {
        let period = period.max(1);
        let keys = RwLock::new(Arc::new(Keys::new(&secrets, 0, &context)));
        Self { secrets, period, context, keys }
    }

    /// The keys at this time, seconds since 1970.
    fn keys(&self, now: u64) -> Arc<Keys> {
        let number = now / self.period;
        {
            let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            if known.number == number {
                return Arc::clone(&known);
            }
        }
        let keys = Arc::new(Keys::new(&self.secrets, number, &self.context));
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        keys
    }

    fn seal(&self, now: u64, salt: [u8; SALT], session: &[u8]) -> Option<Vec<u8>> {
        if session.len() > LARGEST {
            return None;
        }
        let keys = self.keys(now);
        let key = keys.all.first()?;
        let (sealing, nonce) = key.sealing(&salt)?;
        let mut sealed = Vec::with_capacity(session.len() + TAG);
        sealed.extend_from_slice(session);
        sealing.seal_in_place_append_tag(nonce, Aad::from(key.name), &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(NAME + SALT + sealed.len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&salt);
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn open(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT>()?;
        let keys = self.keys(now);
        let key = keys.all.iter().find(|key| key.name == *name)?;
        let (sealing, nonce) = key.sealing(salt)?;
        let mut sealed = sealed.to_vec();
        let length = sealing.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("secrets", &self.secrets.len()).field("period", &self.period).finish()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.period).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).ok()?;
        self.seal(clock::calendar(), salt, plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(clock::calendar(), cipher)
    }
}

/// The keys that count in a period: of this one, the last and the next, of every secret.
struct Keys {
    number: u64,
    /// The one that seals comes first.
    all: Vec<Key>,
}

impl Keys {
    fn new(secrets: &[Secret], number: u64, context: &[u8]) -> Self {
        let mut all = Vec::with_capacity(3 * secrets.len());
        for number in [Some(number), number.checked_sub(1), number.checked_add(1)].into_iter().flatten() {
            all.extend(secrets.iter().filter_map(|secret| Key::new(secret, number, context)));
        }
        Self { number, all }
    }
}

/// The key of a period.
struct Key {
    name: [u8; NAME],
    key: Prk,
}

impl Key {
    /// Nothing where the crypto library refuses; it does not.
    fn new(secret: &Secret, number: u64, context: &[u8]) -> Option<Self> {
        let mut name = [0; NAME];
        let mut key = [0; KEY];
        let number = number.to_be_bytes();
        expand(&secret.0, &[b"name", &number, context], &mut name)?;
        expand(&secret.0, &[b"key", &number, context], &mut key)?;
        Some(Self { name, key: Prk::new_less_safe(HKDF_SHA256, &key) })
    }

    /// What seals one ticket.
    fn sealing(&self, salt: &[u8; SALT]) -> Option<(LessSafeKey, Nonce)> {
        let mut bytes = [0; KEY + NONCE_LEN];
        expand(&self.key, &[salt], &mut bytes)?;
        let (key, nonce) = bytes.split_first_chunk::<KEY>()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some((key, Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

/// HKDF-Expand (RFC 5869 2.3).
fn expand(from: &Prk, info: &[&[u8]], into: &mut [u8]) -> Option<()> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    from.expand(info, Length(into.len())).ok()?.fill(into).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: u64 = 43_200;
    const NOW: u64 = 40_000 * PERIOD;

    fn tickets(secrets: &[&str], context: &str) -> Tickets {
        let secrets = secrets.iter().map(|secret| Secret::new(secret.as_bytes())).collect();
        Tickets::new(secrets, PERIOD, context.as_bytes().into())
    }

    #[test]
    fn a_ticket_is_good_until_the_period_after_its_own_ends() {
        let (one, other) = (tickets(&["a"], "x"), tickets(&["a"], "x"));
        for made in [NOW, NOW + PERIOD - 1] {
            let ticket = one.seal(made, [1; SALT], b"session").unwrap();
            for (then, good) in [
                (NOW - PERIOD - 1, false),
                // A clock that is slow.
                (NOW - PERIOD, true),
                (NOW, true),
                (NOW + 2 * PERIOD - 1, true),
                (NOW + 2 * PERIOD, false),
                (u64::MAX, false),
                (0, false),
            ] {
                // Any node with the secret takes it.
                for node in [&one, &other] {
                    assert_eq!(
                        node.open(then, &ticket).is_some_and(|it| it == b"session"),
                        good,
                        "{made} {then}"
                    );
                }
            }
        }
    }

    #[test]
    fn secrets_are_replaced_one_node_after_the_other() {
        let (old, both, new) = (tickets(&["a"], "x"), tickets(&["a", "b"], "x"), tickets(&["b", "a"], "x"));
        let open = |node: &Tickets, ticket: &[u8]| node.open(NOW, ticket).is_some();
        let of = |node: &Tickets| node.seal(NOW, [2; SALT], b"session").unwrap();
        assert!(open(&both, &of(&old)) && open(&both, &of(&new)) && open(&new, &of(&old)));
        assert!(open(&old, &of(&both)) && !open(&old, &of(&new)));
        assert!(!open(&tickets(&["b"], "x"), &of(&both)) && !open(&tickets(&["a"], "y"), &of(&old)));
    }

    #[test]
    fn what_is_too_large_gets_no_ticket() {
        let tickets = tickets(&["a"], "x");
        assert!(tickets.seal(NOW, [0; SALT], &vec![0; LARGEST]).is_some_and(|ticket| ticket.len() < 1 << 16));
        assert_eq!(tickets.seal(NOW, [0; SALT], &vec![0; LARGEST + 1]), None);
        let tickets = Tickets::new(Vec::new(), 0, Box::default());
        assert_eq!(tickets.seal(NOW, [0; SALT], b"session"), None);
    }

    proptest! {
        #[test]
        fn nothing_but_a_whole_ticket_is_opened(
            session in prop::collection::vec(any::<u8>(), 0..200),
            salt in any::<[u8; SALT]>(),
            noise in prop::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
            flip in any::<(prop::sample::Index, u8)>(),
            then in any::<u64>(),
        ) {
            let tickets = tickets(&["a", "b"], "x");
            prop_assert_eq!(tickets.open(then, &noise), None);
            let ticket = tickets.seal(then, salt, &session).unwrap();
            prop_assert_eq!(tickets.open(then, &ticket), Some(session));
            prop_assert_eq!(tickets.open(then, &ticket[..cut.index(ticket.len())]), None);
            let mut bent = ticket.clone();
            bent[flip.0.index(ticket.len())] ^= flip.1;
            prop_assert_eq!(tickets.open(then, &bent).is_some(), flip.1 == 0);
            let named = [&ticket[..NAME], &noise].concat();
            prop_assert_eq!(tickets.open(then, &named), None);
        }
    }
}
