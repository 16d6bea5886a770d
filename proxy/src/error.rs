//! Why a request failed: one variant says who is at fault, one status, one label.

use http::StatusCode;

use crate::h1::{BodyError, HeadError};

/// Everything that can go wrong with a request. Shown to the client as a status, to the operator as
/// [`Error::code`] in the access log and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request head breaks the rules.
    #[error("malformed request")]
    Head(HeadError),
    /// The request body breaks the rules of its framing.
    #[error("malformed request body")]
    Body(BodyError),
    /// A path that cannot be normalised.
    #[error("malformed path")]
    Path,
    /// The request has no usable host.
    #[error("malformed host")]
    Host,
    /// The body is larger than the listener allows.
    #[error("request body too large")]
    BodyTooLarge,
    /// The client took too long.
    #[error("the client was too slow")]
    ClientTimeout,
    /// The client left.
    #[error("the client closed the connection")]
    ClientGone,
    /// The connection was made for another name (RFC 9110 7.4).
    #[error("this connection is for another host")]
    Misdirected,
    /// No rule for this domain and URL.
    #[error("no rule for this domain and URL")]
    NoRoute,
    /// Every RS is down or drained.
    #[error("no real server is available")]
    NoServer,
    /// The RS refused the connection or cannot be reached.
    #[error("the real server refused the connection")]
    Connect,
    /// The RS did not answer the connection in time.
    #[error("the real server did not accept the connection in time")]
    ConnectTimeout,
    /// No socket for the tunnel.
    #[error("the tunnel gives no socket")]
    Tunnel,
    /// The RS closed the connection before its response was complete.
    #[error("the real server closed the connection")]
    UpstreamClosed,
    /// The RS's response breaks the rules.
    #[error("malformed response of the real server")]
    UpstreamHead(HeadError),
    /// The RS left HTTP without having been asked to.
    #[error("the real server switched protocols unasked")]
    UpstreamUpgrade,
    /// The RS sends interim responses without end.
    #[error("the real server sent too many interim responses")]
    UpstreamInterim,
    /// The RS's response body breaks the rules of its framing.
    #[error("malformed response body of the real server")]
    UpstreamBody(BodyError),
    /// The RS sent nothing for too long.
    #[error("the real server was too slow to answer")]
    UpstreamTimeout,
    /// The RS took nothing for too long.
    #[error("the real server was too slow to take the request")]
    UpstreamSendTimeout,
    /// A defect of this program.
    #[error("internal error")]
    Internal,
}

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client.
    Client,
    /// Whoever wrote the configuration.
    Configuration,
    /// The RS or the way to it.
    Upstream,
    /// This program.
    Proxy,
}

impl Error {
    /// The status the client gets, where a response has not begun.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Head(error) => error.status(),
            Self::Body(_) | Self::Path | Self::Host => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientTimeout | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoServer => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect
            | Self::Tunnel
            | Self::UpstreamClosed
            | Self::UpstreamHead(_)
            | Self::UpstreamUpgrade
            | Self::UpstreamInterim
            | Self::UpstreamBody(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::UpstreamTimeout | Self::UpstreamSendTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable reason for the access log and for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Head(error) | Self::UpstreamHead(error) => error.code(),
            Self::Body(error) | Self::UpstreamBody(error) => error.code(),
            Self::Path => "bad_path",
            Self::Host => "bad_host",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientTimeout => "client_timeout",
            Self::ClientGone => "client_gone",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no_route",
            Self::NoServer => "no_server",
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tunnel => "tunnel_failed",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamUpgrade => "unasked_upgrade",
            Self::UpstreamInterim => "too_many_interim",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamSendTimeout => "upstream_send_timeout",
            Self::Internal => "internal",
        }
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Head(_)
            | Self::Body(_)
            | Self::Path
            | Self::Host
            | Self::BodyTooLarge
            | Self::ClientTimeout
            | Self::ClientGone
            | Self::Misdirected => Fault::Client,
            Self::NoRoute => Fault::Configuration,
            Self::NoServer
            | Self::Connect
            | Self::ConnectTimeout
            | Self::Tunnel
            | Self::UpstreamClosed
            | Self::UpstreamHead(_)
            | Self::UpstreamUpgrade
            | Self::UpstreamInterim
            | Self::UpstreamBody(_)
            | Self::UpstreamTimeout
            | Self::UpstreamSendTimeout => Fault::Upstream,
            Self::Internal => Fault::Proxy,
        }
    }
}
