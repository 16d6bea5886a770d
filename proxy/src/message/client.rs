//! What RS are told about a client, written once per connection and not per request.

use std::net::IpAddr;

use super::Headers;

/// X-Forwarded-For, X-Forwarded-Proto and X-Real-IP of a client that nobody has said anything else about.
#[derive(Debug, Clone)]
pub struct ClientFields(Headers);

impl ClientFields {
    /// For a client with this address; one of IPv4 as such, also where a socket of IPv6 took the connection.
    pub fn of(address: IpAddr, https: bool) -> Self {
        let address = address.to_canonical().to_string();
        let mut fields = Headers::new();
        fields.append("X-Forwarded-For", &address);
        fields.append("X-Forwarded-Proto", if https { "https" } else { "http" });
        fields.append("X-Real-IP", &address);
        fields.shrink();
        Self(fields)
    }

    /// All of them.
    pub fn all(&self) -> &Headers {
        &self.0
    }

    /// The address.
    pub fn address(&self) -> &[u8] {
        self.0.get("x-real-ip").unwrap_or_default()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &[u8] {
        self.0.get("x-forwarded-proto").unwrap_or_default()
    }
}
