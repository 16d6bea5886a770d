//! Certificates from an authority that speaks ACME (RFC 8555): got, kept in files, renewed in time.
//!
//! One thread of the program does all of it, and nobody waits for it: no request, no handshake, not the start. What
//! is kept is put in its [`Slot`](crate::tls::Slot) before the first client is served; what is not there yet comes when
//! it comes, and clients see another certificate or none until then.
//!
//! [`schedule`] (pure) says when, [`order`] gets one certificate, [`proof`] shows that its names are ours, [`storage`] keeps
//! it, and of several nodes on one storage [`lock`] lets one write. Workers see nothing of this but the [`Showcase`].

mod account;
mod board;
mod client;
mod demand;
mod error;
mod files;
mod hook;
mod lock;
mod manager;
mod office;
mod order;
mod proof;
mod schedule;
mod showcase;
mod storage;
mod task;

use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) use self::manager::{keep, load};
pub(crate) use self::showcase::{ALPN, Showcase};
use crate::config::{Acme, Challenge, Config};

/// What the thread works by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    config: Arc<Acme>,
    /// Who knows the name of the authority.
    resolver: Vec<SocketAddr>,
}

impl Settings {
    /// Whether names are proven by tls-alpn-01.
    pub(crate) fn proves_by_tls(&self) -> bool {
        self.config.challenge == Challenge::TlsAlpn01
    }

    /// Those of a configuration; none where nobody wants a certificate.
    pub(crate) fn of(config: &Config) -> Option<Arc<Self>> {
        let managed = config.listeners.iter().filter_map(|listener| Some(&listener.tls.as_ref()?.managed));
        let is_wanted = managed.into_iter().any(|managed| *managed != crate::config::Managed::default());
        let acme = config.acme.as_ref().filter(|_| is_wanted)?;
        Some(Arc::new(Self { config: Arc::new(acme.clone()), resolver: config.resolver.clone() }))
    }
}
