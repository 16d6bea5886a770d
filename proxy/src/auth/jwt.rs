//! Tokens that say who a client is (RFC 7519), signed by somebody whose public keys stand in a file (RFC 7517).
//!
//! A key is used with the algorithm that it names itself, or with the only one its kind has: a token cannot choose
//! (RFC 8725 3.1). Algorithms without a signature are not known here.

use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::message::RequestHead;

/// Difference between two clocks that is forgiven.
const LEEWAY: u64 = 60;
/// Longest token that is looked at.
const MOST: usize = 16 << 10;

/// Which tokens let a client in.
#[derive(Clone)]
pub struct Jwt {
    keys: Vec<Key>,
    /// Where the token is.
    pub source: TokenSource,
    /// Value of the claim `iss`.
    pub issuer: Option<String>,
    /// One of these is among the values of the claim `aud`.
    pub audiences: Vec<String>,
    /// Fields of the request to the RS that say what a claim says: name of the field, name of the claim.
    pub claims: Vec<(String, String)>,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer ...` (RFC 6750 2.1).
    Bearer,
    /// A cookie of this name.
    Cookie(String),
}

/// Why a token does not count, or a file of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The file is no JSON Web Key Set.
    #[error("is no JSON Web Key Set: {0}")]
    Set(String),
    /// No key of the file can check a signature.
    #[error("has no key that can be used")]
    NoKey,
    /// There is no token.
    #[error("there is no token")]
    Missing,
    /// It cannot be read, or its signature is wrong.
    #[error("the token is not one of ours")]
    Signature,
    /// It is too old or too young.
    #[error("the token does not count at this time")]
    Time,
    /// It is meant for somebody else.
    #[error("the token is from somebody else or for somebody else")]
    Audience,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt")
            .field("keys", &self.keys.len())
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Jwt {
    /// Takes the keys out of the text of a JSON Web Key Set; those of kinds not known here are passed over.
    ///
    /// # Errors
    /// Where it is none, or no key is left.
    pub fn new(keys: &str) -> Result<Self, JwtError> {
        let set: JwkSet = serde_json::from_str(keys).map_err(|error| JwtError::Set(error.to_string()))?;
        let key = |jwk: &Jwk| {
            Some(Key {
                id: jwk.common.key_id.clone(),
                algorithm: algorithm(jwk)?,
                key: DecodingKey::from_jwk(jwk).ok()?,
            })
        };
        let keys: Vec<Key> = set.keys.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(JwtError::NoKey);
        }
        Ok(Self {
            keys,
            source: TokenSource::Bearer,
            issuer: None,
            audiences: Vec::new(),
            claims: Vec::new(),
        })
    }

    /// The claims of the token that comes with a request, `now` after the Unix epoch.
    ///
    /// # Errors
    /// Where there is no token that counts.
    pub fn verify(&self, head: &RequestHead, now: Duration) -> Result<Map<String, Value>, JwtError> {
        let token = self.token(head).ok_or(JwtError::Missing)?;
        if token.len() > MOST {
            return Err(JwtError::Signature);
        }
        let id = decode_header(token).map_err(|_| JwtError::Signature)?.kid;
        let candidates = self.keys.iter().filter(|key| id.is_none() || key.id.is_none() || key.id == id);
        let claims = candidates.filter_map(|key| key.claims(token)).next().ok_or(JwtError::Signature)?;
        let time = |name: &str| claims.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
        let (now, leeway) = (now.as_secs_f64(), LEEWAY as f64);
        // A time that is no number is not later than anything.
        let is_over = time("exp").is_some_and(|end| end.is_nan() || end + leeway <= now);
        let has_begun = time("nbf").is_none_or(|begin| begin - leeway <= now);
        if is_over || !has_begun {
            return Err(JwtError::Time);
        }
        let text = |value: &Value, wanted: &String| value.as_str() == Some(wanted);
        let is_from =
            self.issuer.as_ref().is_none_or(|issuer| claims.get("iss").is_some_and(|iss| text(iss, issuer)));
        let is_for = self.audiences.is_empty()
            || claims.get("aud").is_some_and(|audience| {
                let ours = |value: &Value| self.audiences.iter().any(|ours| text(value, ours));
                ours(audience) || audience.as_array().is_some_and(|all| all.iter().any(ours))
            });
        if is_from && is_for { Ok(claims) } else { Err(JwtError::Audience) }
    }

    fn token<'a>(&self, head: &'a RequestHead) -> Option<&'a [u8]> {
        match &self.source {
            TokenSource::Cookie(name) => crate::rule::cookie(head, name),
            TokenSource::Bearer => {
                let (scheme, token) = head.headers.get("authorization")?.split_at_checked(7)?;
                scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
            }
        }
    }
}

impl Key {
    fn claims(&self, token: &[u8]) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(self.algorithm);
        // Times and audience are looked at by the caller, who knows what time it is.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        decode::<Map<String, Value>>(token, &self.key, &validation).ok().map(|token| token.claims)
    }
}

/// The algorithm a key is for; `None` for keys that check no signature.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    if let Some(named) = jwk.common.key_algorithm {
        return named.to_string().parse().ok();
    }
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        AlgorithmParameters::OctetKey(_) => Some(Algorithm::HS256),
        AlgorithmParameters::OctetKeyPair(_) => Some(Algorithm::EdDSA),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Some(Algorithm::ES256),
            EllipticCurve::P384 => Some(Algorithm::ES384),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn jwt() -> Jwt {
        let secret = URL_SAFE_NO_PAD.encode("secret");
        Jwt::new(&format!(r#"{{"keys":[{{"kty":"oct","kid":"a","alg":"HS256","k":"{secret}"}}]}}"#)).unwrap()
    }

    fn asked(algorithm: Algorithm, secret: &str, claims: Value) -> RequestHead {
        let token = encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.as_bytes()));
        let mut head = RequestHead::default();
        head.headers.append("Authorization", format!("Bearer {}", token.unwrap()));
        head
    }

    #[test]
    fn a_token_counts_or_says_why_not() {
        let mut jwt = jwt();
        jwt.issuer = Some("us".into());
        jwt.audiences = vec!["here".into(), "there".into()];
        let good = |more: Value| {
            let mut claims = json!({ "iss": "us", "aud": "here", "sub": "ann" });
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims
        };
        use Algorithm::{HS256, HS384};
        for (head, expected) in [
            (asked(HS256, "secret", good(json!({}))), Ok(())),
            (asked(HS256, "secret", good(json!({ "aud": ["x", "there"] }))), Ok(())),
            (asked(HS256, "secret", good(json!({ "exp": 1_000_000 - 59, "nbf": 1_000_000 + 59 }))), Ok(())),
            (asked(HS256, "secret", good(json!({ "exp": 1_000_000 - 61 }))), Err(JwtError::Time)),
            (asked(HS256, "secret", good(json!({ "exp": "never" }))), Err(JwtError::Time)),
            (asked(HS256, "secret", good(json!({ "nbf": 1_000_000 + 61 }))), Err(JwtError::Time)),
            (asked(HS256, "secret", good(json!({ "iss": "them" }))), Err(JwtError::Audience)),
            (asked(HS256, "secret", good(json!({ "aud": "elsewhere" }))), Err(JwtError::Audience)),
            (asked(HS256, "other", good(json!({}))), Err(JwtError::Signature)),
            (asked(HS384, "secret", good(json!({}))), Err(JwtError::Signature)),
            (RequestHead::default(), Err(JwtError::Missing)),
        ] {
            assert_eq!(jwt.verify(&head, NOW).map(drop), expected);
        }
        // No signature at all.
        let none =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
        let mut head = RequestHead::default();
        head.headers.append("Authorization", format!("Bearer {none}"));
        assert_eq!(jwt.verify(&head, NOW).unwrap_err(), JwtError::Signature);
    }

    #[test]
    fn a_token_may_come_in_a_cookie() {
        let mut jwt = jwt();
        let head = asked(Algorithm::HS256, "secret", json!({ "sub": "ann" }));
        let token = head.headers.get("authorization").unwrap()[7..].to_vec();
        jwt.source = TokenSource::Cookie("session".into());
        assert_eq!(jwt.verify(&head, NOW).unwrap_err(), JwtError::Missing);
        let mut head = RequestHead::default();
        head.headers.append("Cookie", [b"a=b; session=", &token[..]].concat());
        assert_eq!(jwt.verify(&head, NOW).unwrap()["sub"], "ann");
    }

    #[test]
    fn keys_that_cannot_be_used() {
        assert!(matches!(Jwt::new("[]"), Err(JwtError::Set(_))));
        assert!(matches!(Jwt::new(r#"{"keys":[]}"#), Err(JwtError::NoKey)));
    }
}
