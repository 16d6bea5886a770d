//! Sessions whose next connection may begin with requests (0-RTT, RFC 8446 2.3). They are kept in this process and each is
//! taken up once, so that what came early does not come a second time; a ticket that stands for itself could not promise that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// Sessions that are kept for a listener; older ones give way.
const MOST: usize = 16_384;
/// What QUIC demands where early data is taken at all (RFC 9001 4.6.1).
const ANY_SIZE: u32 = u32::MAX;

/// The sessions of every listener, by its name.
#[derive(Debug, Default)]
pub(crate) struct EarlySessions(Mutex<HashMap<String, Arc<dyn StoresServerSessions>>>);

impl EarlySessions {
    /// The same way to speak TLS, with early data.
    pub(super) fn admit(&self, listener: &str, config: &ServerConfig) -> Arc<ServerConfig> {
        let mut config = config.clone();
        // Tickets that stand for themselves would be taken any number of times.
        config.ticketer = Arc::new(NoTickets);
        config.session_storage = self.of(listener);
        config.max_early_data_size = ANY_SIZE;
        Arc::new(config)
    }

    fn of(&self, listener: &str) -> Arc<dyn StoresServerSessions> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || ServerSessionMemoryCache::new(MOST) as Arc<dyn StoresServerSessions>;
        Arc::clone(all.entry(listener.to_owned()).or_insert_with(new))
    }
}

/// Makes no tickets.
#[derive(Debug)]
struct NoTickets;

impl rustls::server::ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
