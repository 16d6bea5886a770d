//! Where workers and the thread that gets certificates meet: what is shown to an authority that has a name proven.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::sync::{mpsc, oneshot};

use super::board::Board;
use super::lock::Lock;
use crate::tls::Slot;

/// Where an authority looks for the answer of http-01 (RFC 8555 8.3).
const PATH: &str = "/.well-known/acme-challenge/";
/// The protocol of tls-alpn-01 (RFC 8737 3).
pub(crate) const ALPN: &[u8] = b"acme-tls/1";
/// Questions that may wait for the storage; a further one is no question of an authority.
const QUESTIONS: usize = 64;
/// Names that may wait to be looked at.
const WISHES: usize = 64;
/// Longest wait for the storage.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody asks for a token that this node has not put out itself.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) token: String,
    pub(super) answer: oneshot::Sender<Option<String>>,
}

/// What is shown to authorities; one for the whole program.
#[derive(Debug)]
pub(crate) struct Showcase {
    /// Whether names are proven by http-01, and whether by tls-alpn-01.
    http: AtomicBool,
    alpn: AtomicBool,
    tokens: RwLock<HashMap<String, String>>,
    certificates: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    /// The certificates of names that somebody has asked for, in lower case; some are empty still.
    demanded: RwLock<HashMap<String, Arc<Slot>>>,
    questions: mpsc::Sender<Question>,
    wishes: mpsc::Sender<String>,
    /// What is given away at the end of the program.
    lock: Mutex<Option<Arc<Mutex<Lock>>>>,
    /// What operators see.
    pub(crate) board: Board,
    /// The other ends, until the thread takes them.
    waiting: Mutex<Option<Waiting>>,
}

/// What workers want to know and to have.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Tokens that this node does not know.
    pub(super) questions: mpsc::Receiver<Question>,
    /// Names that somebody has asked for.
    pub(super) wishes: mpsc::Receiver<String>,
}

impl Default for Showcase {
    fn default() -> Self {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let (wishes, wished) = mpsc::channel(WISHES);
        Self {
            http: AtomicBool::default(),
            alpn: AtomicBool::default(),
            tokens: RwLock::default(),
            certificates: RwLock::default(),
            demanded: RwLock::default(),
            questions,
            wishes,
            lock: Mutex::default(),
            board: Board::default(),
            waiting: Mutex::new(Some(Waiting { questions: asked, wishes: wished })),
        }
    }
}

impl Showcase {
    /// This is given away at the end of the program.
    pub(super) fn set_lock(&self, lock: Arc<Mutex<Lock>>) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
    }

    /// The program ends: another node may get certificates.
    pub(crate) fn leave(&self) {
        if let Some(lock) = &*self.lock.lock().unwrap_or_else(PoisonError::into_inner) {
            lock.lock().unwrap_or_else(PoisonError::into_inner).release();
        }
    }

    /// Says how names are proven from now on.
    pub(super) fn set(&self, http: bool, alpn: bool) {
        self.http.store(http, Ordering::Relaxed);
        self.alpn.store(alpn, Ordering::Relaxed);
    }

    /// What workers want; for one asker, once.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a request for this target may be the one of an authority.
    pub(crate) fn may_answer(&self, target: &str) -> bool {
        self.http.load(Ordering::Relaxed) && target.starts_with(PATH)
    }

    /// The answer to an authority that asks for this target; none where nobody has been told what to say.
    pub(crate) async fn answer(&self, target: &str) -> Option<String> {
        let token = target.strip_prefix(PATH).filter(|token| is_token(token))?;
        let known = self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        if known.is_some() {
            return known;
        }
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question { token: token.to_owned(), answer }).ok()?;
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()?
    }

    /// From now on this is the answer for a token.
    pub(super) fn put_token(&self, token: &str, answer: &str) {
        self.tokens
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(token.to_owned(), answer.to_owned());
    }

    /// A token is not asked for any more.
    pub(super) fn remove_token(&self, token: &str) {
        self.tokens.write().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    /// The certificate that proves a name, in lower case, for a client that offers these protocols.
    pub(crate) fn proof<'a>(
        &self,
        name: Option<&str>,
        mut protocols: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Arc<CertifiedKey>> {
        // The authority offers this and nothing else (RFC 8737 3).
        let asks = protocols.next() == Some(ALPN) && protocols.next().is_none();
        let name = name.filter(|_| asks)?.to_ascii_lowercase();
        self.certificates.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    /// The certificate for a name, in lower case, that may be got when somebody asks; whoever asks first does not get it,
    /// and is the reason why others do.
    pub(crate) fn demand(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let slot = self.demanded.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone);
        let Some(slot) = slot else {
            // Where many are waiting, this name is asked for again.
            let _ = self.wishes.try_send(name.to_owned());
            return None;
        };
        slot.get()
    }

    /// The certificates of names that somebody has asked for.
    pub(crate) fn demanded(&self) -> Vec<(String, Arc<Slot>)> {
        let demanded = self.demanded.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = demanded.iter().map(|(name, slot)| (name.clone(), Arc::clone(slot))).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// These are the certificates of names that somebody has asked for.
    pub(super) fn set_demanded(&self, demanded: HashMap<String, Arc<Slot>>) {
        *self.demanded.write().unwrap_or_else(PoisonError::into_inner) = demanded;
    }

    /// Whether names are proven by tls-alpn-01.
    pub(crate) fn is_alpn(&self) -> bool {
        self.alpn.load(Ordering::Relaxed)
    }

    /// From now on this proves a name.
    pub(super) fn put_proof(&self, name: &str, certificate: Arc<CertifiedKey>) {
        self.certificates
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), certificate);
    }

    /// A name is not proven any more.
    pub(super) fn remove_proof(&self, name: &str) {
        self.certificates.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Whether this may be a token: base64url (RFC 8555 8.1), and a name of a file that leads nowhere else.
pub(super) fn is_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        for good in ["a", "-_", "DGyRejmCefe7v4NfDGDKfA"] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a?b", "../lock", "a%2e", "a.b", "ä", &"a".repeat(129)] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
