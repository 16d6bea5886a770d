//! What a listener grants its clients, as the codecs need it.

use std::sync::Arc;
use std::time::Duration;

use crate::{config, h1};

/// Time and size limits of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) keepalive_timeout: Duration,
    /// Requests after which a connection is closed.
    pub(crate) keepalive_requests: u32,
    pub(crate) body_size: u64,
    pub(crate) codec: h1::Limits,
    /// What tells clients of HTTP/1.1 and HTTP/2 where HTTP/3 is (RFC 7838).
    pub(crate) alt_svc: Option<Arc<[u8]>>,
}

impl From<&config::Listener> for Limits {
    fn from(listener: &config::Listener) -> Self {
        Self {
            header_timeout: listener.client_header_timeout,
            body_timeout: listener.client_body_timeout,
            send_timeout: listener.send_timeout,
            keepalive_timeout: listener.keepalive_timeout,
            keepalive_requests: listener.keepalive_requests.unwrap_or(u32::MAX),
            body_size: listener.client_max_body_size,
            codec: h1::Limits {
                head_bytes: listener.client_header_size,
                fields: listener.client_header_count,
                ..h1::Limits::default()
            },
            alt_svc: listener.http3.then(|| alt_svc(listener.http3_port.unwrap_or(listener.address.port()))),
        }
    }
}

/// The field value for HTTP/3 on this port of the same host, which is good for a day.
fn alt_svc(port: u16) -> Arc<[u8]> {
    format!("h3=\":{port}\"; ma=86400").into_bytes().into()
}
