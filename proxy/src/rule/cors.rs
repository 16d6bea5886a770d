//! Cross-origin requests (Fetch standard, "CORS protocol"): which pages of other origins may read the answers.

use http::Method;
use regex::Regex;

use crate::message::{Headers, RequestHead};

/// What other origins may do.
#[derive(Debug, Clone)]
pub struct Cors {
    /// Origins that may; none here is any (`*`).
    pub origins: Option<Vec<Origin>>,
    /// Value of Access-Control-Allow-Methods.
    pub methods: String,
    /// Value of Access-Control-Allow-Headers; none allows whatever is asked for.
    pub headers: Option<String>,
    /// Value of Access-Control-Expose-Headers.
    pub expose: Option<String>,
    /// Whether cookies and the like come along.
    pub credentials: bool,
    /// How long the answer to a preflight request holds, in seconds.
    pub max_age: u64,
}

/// An origin as the configuration names it.
#[derive(Debug, Clone)]
pub enum Origin {
    /// `https://app.example.com`
    Is(String),
    /// `~^https://[a-z]+\.example\.com$`
    Matches(Regex),
}

/// What CORS adds to the response of one request.
#[derive(Debug, Clone, Default)]
pub struct CorsAnswer {
    origin: Option<String>,
    varies: bool,
}

impl Cors {
    /// What holds for this request.
    pub fn judge(&self, head: &RequestHead) -> CorsAnswer {
        let asked = head.headers.get("origin").and_then(|origin| std::str::from_utf8(origin).ok());
        let varies = self.origins.is_some() || self.credentials;
        let Some(asked) = asked else { return CorsAnswer { origin: None, varies } };
        let allowed = match &self.origins {
            None => true,
            Some(origins) => origins.iter().any(|origin| match origin {
                Origin::Is(origin) => origin.eq_ignore_ascii_case(asked),
                Origin::Matches(regex) => regex.is_match(asked),
            }),
        };
        // With credentials `*` counts for nothing: the origin has to be named.
        let named = if varies { asked } else { "*" };
        CorsAnswer { origin: allowed.then(|| named.to_owned()), varies }
    }

    /// Whether the request is the browser's question before the real one.
    pub fn is_preflight(head: &RequestHead) -> bool {
        head.method == Method::OPTIONS
            && head.headers.contains("origin")
            && head.headers.contains("access-control-request-method")
    }

    /// The fields of the answer to a preflight request.
    pub fn preflight(&self, head: &RequestHead, answer: &CorsAnswer, headers: &mut Headers) {
        self.apply(answer, headers);
        if answer.origin.is_none() {
            return;
        }
        headers.append("Access-Control-Allow-Methods", &self.methods);
        match &self.headers {
            Some(names) => headers.append("Access-Control-Allow-Headers", names),
            None => {
                headers.append("Vary", "Access-Control-Request-Headers");
                if let Some(asked) = head.headers.get("access-control-request-headers") {
                    headers.append("Access-Control-Allow-Headers", asked);
                }
            }
        }
        headers.append("Access-Control-Max-Age", self.max_age.to_string());
    }

    /// Puts the fields of any answer; what the RS says about it counts for nothing.
    pub fn apply(&self, answer: &CorsAnswer, headers: &mut Headers) {
        const PREFIX: &[u8] = b"access-control-";
        headers.retain(|_, name, _| {
            !name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        });
        if answer.varies {
            headers.append("Vary", "Origin");
        }
        let Some(origin) = &answer.origin else { return };
        headers.append("Access-Control-Allow-Origin", origin);
        if self.credentials {
            headers.append("Access-Control-Allow-Credentials", "true");
        }
        if let Some(expose) = &self.expose {
            headers.append("Access-Control-Expose-Headers", expose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::conditions::tests::head;

    fn cors(origins: Option<&[&str]>, credentials: bool) -> Cors {
        let origin = |text: &&str| match text.strip_prefix('~') {
            Some(regex) => Origin::Matches(Regex::new(regex).unwrap()),
            None => Origin::Is((*text).to_owned()),
        };
        Cors {
            origins: origins.map(|origins| origins.iter().map(origin).collect()),
            methods: "GET, PUT".into(),
            headers: None,
            expose: None,
            credentials,
            max_age: 600,
        }
    }

    fn allowed(cors: &Cors, origin: &str) -> (Option<String>, bool) {
        let mut headers = Headers::new();
        headers.append("access-CONTROL-Allow-Origin", "https://of-the-rs");
        cors.apply(&cors.judge(&head("GET", "/", &format!("Origin: {origin}"))), &mut headers);
        let origin = headers.get("access-control-allow-origin");
        (origin.map(|origin| String::from_utf8(origin.to_vec()).unwrap()), headers.contains("vary"))
    }

    #[test]
    fn origins_are_allowed_by_name_or_all() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(allowed(&cors(None, false), "https://a"), (some("*"), false));
        assert_eq!(allowed(&cors(None, true), "https://a"), (some("https://a"), true));
        let listed = cors(Some(&["https://a.test", r"~^https://[a-z]+\.b\.test$"]), false);
        assert_eq!(allowed(&listed, "https://a.test"), (some("https://a.test"), true));
        assert_eq!(allowed(&listed, "https://x.b.test"), (some("https://x.b.test"), true));
        assert_eq!(allowed(&listed, "https://x.b.test.evil"), (None, true));
        assert_eq!(allowed(&listed, "null"), (None, true));
    }

    #[test]
    fn a_preflight_request_is_answered() {
        let cors = cors(None, false);
        let asked = head(
            "OPTIONS",
            "/",
            "Origin: https://a\nAccess-Control-Request-Method: PUT\nAccess-Control-Request-Headers: x-a",
        );
        assert!(
            Cors::is_preflight(&asked) && !Cors::is_preflight(&head("OPTIONS", "/", "Origin: https://a"))
        );
        let mut headers = Headers::new();
        cors.preflight(&asked, &cors.judge(&asked), &mut headers);
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(headers.get(name), Some(value.as_bytes()), "{name}");
        }
    }
}
