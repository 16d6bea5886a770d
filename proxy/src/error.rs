//! Why a request failed: one variant says who is at fault, one status, one label.

use http::StatusCode;

use crate::h1::{BodyError, HeadError};

/// The registered methods that are forwarded (RFC 9110 9.3, RFC 5789). Others are as well; an RS knows better.
pub(crate) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

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
    /// It came before the TLS handshake was complete, and doing it twice could do harm (RFC 8470 5.2).
    #[error("too early: to be sent again when the handshake is complete")]
    TooEarly,
    /// TRACE: it would show the client what was added to its request (RFC 9110 9.3.8).
    #[error("TRACE is not allowed")]
    Trace,
    /// No rule for this domain and URL.
    #[error("no rule for this domain and URL")]
    NoRoute,
    /// The client is not allowed here.
    #[error("this address may not come here")]
    AccessDenied,
    /// The client has said nothing that lets it in.
    #[error("name and password, or a token, are missing or wrong")]
    Unauthorized,
    /// Too many requests in a time.
    #[error("too many requests")]
    RateLimited,
    /// Too many connections at a time; the connection is closed and no request was read.
    #[error("too many connections of this client")]
    TooManyConnections,
    /// Too many requests at a time.
    #[error("too many requests at a time")]
    TooManyInFlight,
    /// Every RS is down or drained.
    #[error("no real server is available")]
    NoServer,
    /// Every RS has as many requests as it may have.
    #[error("every real server is full")]
    NoRoom,
    /// The pool has as many requests as it may have.
    #[error("the pool is full")]
    PoolFull,
    /// Every RS is full, and so is the queue.
    #[error("every real server is full, and too many requests wait already")]
    QueueFull,
    /// Every RS was full for as long as the request could wait.
    #[error("no real server had room in time")]
    QueueTimeout,
    /// The RS refused the connection or cannot be reached.
    #[error("the real server refused the connection")]
    Connect,
    /// The RS did not answer the connection in time.
    #[error("the real server did not accept the connection in time")]
    ConnectTimeout,
    /// TLS with the RS did not come about.
    #[error("{0}")]
    UpstreamTls(TlsFault),
    /// The RS did nothing for the request and says so (RFC 9113 8.7).
    #[error("the real server refused the request")]
    UpstreamRefused,
    /// The RS gave the request up.
    #[error("the real server reset the request")]
    UpstreamReset,
    /// The RS breaks the rules of HTTP/2.
    #[error("the real server breaks the rules of HTTP/2")]
    UpstreamH2,
    /// The time that the client gave the request is over.
    #[error("the deadline of the request has passed")]
    Deadline,
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

/// Why TLS with an RS did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// Nobody who is trusted has signed its certificate, or the certificate cannot be used at all.
    #[error("the certificate of the real server is not signed by a trusted authority")]
    Authority,
    /// Its certificate has expired or is not valid yet.
    #[error("the certificate of the real server is not valid now")]
    Time,
    /// Its certificate is for another name.
    #[error("the certificate of the real server is for another name")]
    Name,
    /// Its key is none of those that are pinned.
    #[error("the real server has another key")]
    Pin,
    /// It does not speak the protocol (ALPN).
    #[error("the real server does not speak HTTP/2")]
    Protocol,
    /// Anything else.
    #[error("no TLS with the real server")]
    Handshake,
}

impl TlsFault {
    /// A stable reason for the access log and for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Authority => "upstream_tls_authority",
            Self::Time => "upstream_tls_expired",
            Self::Name => "upstream_tls_name",
            Self::Pin => "upstream_tls_pin",
            Self::Protocol => "upstream_tls_protocol",
            Self::Handshake => "upstream_tls_handshake",
        }
    }
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
            Self::TooEarly => StatusCode::TOO_EARLY,
            Self::Trace => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::AccessDenied => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::RateLimited | Self::TooManyInFlight | Self::TooManyConnections => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::NoServer | Self::NoRoom | Self::PoolFull | Self::QueueFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Connect
            | Self::UpstreamTls(_)
            | Self::UpstreamRefused
            | Self::UpstreamReset
            | Self::UpstreamH2
            | Self::Tunnel
            | Self::UpstreamClosed
            | Self::UpstreamHead(_)
            | Self::UpstreamUpgrade
            | Self::UpstreamInterim
            | Self::UpstreamBody(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout
            | Self::UpstreamTimeout
            | Self::UpstreamSendTimeout
            | Self::QueueTimeout
            | Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The field that goes with the status: the methods that are allowed with 405 (RFC 9110 15.5.6), and with 503 the
    /// seconds after which another attempt may succeed (RFC 9110 10.2.3), an interval of health checks by default.
    pub fn field(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Trace => Some(("Allow", METHODS)),
            Self::NoServer | Self::NoRoom | Self::PoolFull | Self::QueueFull => Some(("Retry-After", "5")),
            _ => None,
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
            Self::TooEarly => "too_early",
            Self::Trace => "trace_refused",
            Self::NoRoute => "no_route",
            Self::AccessDenied => "access_denied",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::NoServer => "no_server",
            Self::NoRoom => "no_room",
            Self::PoolFull => "pool_full",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamTls(fault) => fault.code(),
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamH2 => "upstream_h2_error",
            Self::Deadline => "deadline",
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
            | Self::Misdirected
            | Self::AccessDenied
            | Self::Unauthorized
            | Self::RateLimited
            | Self::TooManyConnections
            | Self::TooManyInFlight
            | Self::TooEarly
            | Self::Trace => Fault::Client,
            Self::NoRoute => Fault::Configuration,
            Self::NoServer
            | Self::NoRoom
            | Self::PoolFull
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::Connect
            | Self::ConnectTimeout
            | Self::UpstreamTls(_)
            | Self::UpstreamRefused
            | Self::UpstreamReset
            | Self::UpstreamH2
            | Self::Deadline
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
