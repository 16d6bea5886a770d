//! What every response is given on its way out, whatever the protocol.

use http::{Method, StatusCode};

use super::date;
use super::handler::Response;
use crate::message::{Headers, Known};

/// The fields that a response of HTTP/2 or HTTP/3 lacks, and whether it is only a head.
pub(super) fn extra(response: &Response, method: &Method, alt_svc: Option<&[u8]>) -> (Headers, bool) {
    let status = response.head.status;
    let bodiless = *method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || status.is_informational();
    let mut extra = Headers::new();
    if response.head.headers.known(Known::Date).next().is_none() {
        extra.append("date", date::now());
    }
    if let Some(length) = response.body.length().filter(|_| !bodiless)
        && response.head.headers.known(Known::ContentLength).next().is_none()
    {
        extra.append("content-length", length.to_string());
    }
    if let Some(alt_svc) = alt_svc.filter(|_| !response.head.headers.contains("alt-svc")) {
        extra.append("alt-svc", alt_svc);
    }
    (extra, bodiless || response.body.is_empty())
}
