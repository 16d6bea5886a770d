//! What a rule does to a response, whoever made it.

use super::compress::Compressors;
use super::noted::Noted;
use super::plan::redirect;
use crate::access_log::Record;
use crate::config::More;
use crate::listener::Response;
use crate::route::{normalise_host, normalise_path};
use crate::rule::{Answered, Facts, Shown};

/// Applies what the rule says about responses.
pub(super) fn finish(
    mut response: Response,
    more: &More,
    noted: &Noted,
    record: &Record,
    compressors: &Compressors,
) -> Response {
    // A connection that has left HTTP is not the rule's any more.
    if response.switched.is_some() {
        return response;
    }
    let status = response.head.status;
    let is_ours = record.reason.is_some();
    let may_replace = is_ours || (more.error_pages.intercept && record.upstream_status.is_some());
    let page = may_replace.then(|| more.error_pages.find(status)).flatten();
    let edits = &more.response_headers;
    if page.is_some() || !edits.is_empty() {
        let Some(head) = record.head.as_deref() else { return response };
        let asked = record.asked.as_deref().unwrap_or(&head.target);
        let host = normalise_host(record.asked_host.as_deref().unwrap_or(&head.authority));
        let path = normalise_path(asked.split('?').next().unwrap_or_default());
        let facts = Facts {
            head,
            asked,
            host: host.as_deref().unwrap_or_default(),
            path: path.as_ref().map_or("/", |path| path.as_str()),
            client: record.client,
            peer: record.peer,
            https: record.https,
            sni: record.sni.as_deref(),
            certificate: record.certificate(),
            user: record.user.as_deref(),
            answered: Some(Answered { status: status.as_u16(), server: record.server_address() }),
        };
        match page {
            Some(Shown::Body { fixed, keep_status }) => {
                let status = if *keep_status { status } else { fixed.status };
                response = Response::text(status, &fixed.content_type, fixed.body(&facts));
            }
            Some(Shown::Redirect(to)) => response = redirect(to.status, &to.location(&facts)),
            None => {}
        }
        edits.apply(&mut response.head.headers, &edits.values(&facts));
    }
    if let (Some(cors), Some(answer)) = (&more.cors, &noted.cors) {
        cors.apply(answer, &mut response.head.headers);
    }
    if let (Some(compress), Some(head)) = (&more.compress, record.head.as_deref()) {
        compressors.apply(compress, noted.coding, &head.method, &mut response);
    }
    response
}
