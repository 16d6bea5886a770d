//! What is found out about a request on its way and is wanted later.

use crate::message::Headers;
use crate::rule::{Algorithm, CorsAnswer};

/// All of it. Most requests have nothing noted, and then it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// What CORS adds to the response.
    pub(super) cors: Option<CorsAnswer>,
    /// How the client would like its response compressed.
    pub(super) coding: Option<Algorithm>,
    /// Fields that say to the RS who the client is: name, and value where there is one. What the client itself says
    /// under these names is removed.
    pub(super) identity: Vec<(String, Option<Vec<u8>>)>,
    /// Fields of the response where the proxy refuses the request.
    pub(super) on_failure: Vec<(&'static str, String)>,
}

impl Noted {
    /// Tells the RS who the client is.
    pub(super) fn tell(&self, headers: &mut Headers) {
        for (name, value) in &self.identity {
            headers.remove(name);
            if let Some(value) = value {
                headers.append(name, value);
            }
        }
    }
}
