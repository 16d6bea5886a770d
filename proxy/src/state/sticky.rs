//! The cookie that keeps a client at its RS.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config;
use crate::message::Headers;
use crate::pool::{Seal, cookie};

/// How one pool keeps its clients.
pub(crate) struct Sticky {
    cookie: String,
    max_age: Duration,
    seal: Seal,
}

impl Sticky {
    /// For a pool. `random` seals where the configuration names no secret.
    ///
    /// # Errors
    /// Where the crypto library refuses; does not happen with the one that is built in.
    pub(super) fn new(config: &config::Sticky, pool: &str, random: &[u8]) -> Result<Self, String> {
        let secret = config.secret.as_ref().map_or(random, |secret| secret.as_bytes());
        let seal = Seal::new(secret, pool).ok_or("cookies cannot be sealed")?;
        Ok(Self { cookie: config.cookie.clone(), max_age: config.max_age, seal })
    }

    /// The RS that a request names with its cookie, `now` in seconds since 1970.
    pub(crate) fn bound(&self, request: &Headers, now: u64) -> Option<SocketAddr> {
        self.seal.open(cookie(request.get_all("cookie"), &self.cookie)?, now)
    }

    /// Binds the client to an RS from `now` on, in seconds since 1970.
    pub(crate) fn bind(&self, response: &mut Headers, server: SocketAddr, https: bool, now: u64) {
        let age = self.max_age.as_secs();
        let Some(value) = self.seal.seal(server, now.saturating_add(age)) else { return };
        let secure = if https { "; Secure" } else { "" };
        let cookie = &self.cookie;
        let text = format!("{cookie}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
        response.append("Set-Cookie", text);
    }
}
