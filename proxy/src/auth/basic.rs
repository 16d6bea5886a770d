//! Names and passwords (RFC 7617) against hashes of bcrypt, as `htpasswd -B` writes them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest password that bcrypt looks at; a longer one is refused instead of being cut.
const MOST: usize = 72;

/// The names that may come, with the hashes of their passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<String, String>,
    /// What an unknown name is checked against, so that it takes as long as a known one.
    any: String,
}

/// A line that names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {what}")]
pub struct UsersError {
    line: usize,
    what: &'static str,
}

impl Users {
    /// Reads a file in the format of `htpasswd`: `name:hash`, empty lines and those with `#` in front aside.
    ///
    /// # Errors
    /// For a line without a hash of bcrypt, and where there is no user.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut hashes = HashMap::new();
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        for (line, text) in lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
            let Some((name, hash)) = text.split_once(':').filter(|(name, _)| !name.is_empty()) else {
                return Err(UsersError { line, what: "is not `name:hash`" });
            };
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(UsersError { line, what: "has no hash of bcrypt: write it with `htpasswd -B`" });
            }
            hashes.insert(name.to_owned(), hash.to_owned());
        }
        let Some(any) = hashes.values().next().cloned() else {
            return Err(UsersError { line: 1, what: "and the rest of the file name no user" });
        };
        Ok(Self { hashes, any })
    }

    /// Whether these are right. Slow, as is meant by bcrypt: tens of milliseconds.
    pub fn verify(&self, credentials: &Credentials) -> bool {
        let known = self.hashes.get(&credentials.name);
        let right = bcrypt::non_truncating_verify(&credentials.password, known.unwrap_or(&self.any));
        known.is_some() && right.unwrap_or(false)
    }
}

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Its name.
    pub name: String,
    password: Vec<u8>,
}

impl Credentials {
    /// Reads the value of Authorization; `None` where it is not Basic or cannot be read.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (scheme, encoded) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = decoded.split_at(colon);
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let password = password.get(1..)?.to_vec();
        let is_sound = password.len() <= MOST && !name.bytes().any(|byte| byte.is_ascii_control());
        is_sound.then_some(Self { name, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    #[test]
    fn right_and_wrong_passwords() {
        let hash = bcrypt::hash("secret:1", 4).unwrap();
        let users = Users::parse(&format!("# people\n\nann:{hash}\n")).unwrap();
        for (text, right) in
            [("ann:secret:1", true), ("ann:secret", false), ("bob:secret:1", false), (":secret:1", false)]
        {
            assert_eq!(users.verify(&Credentials::parse(&value(text)).unwrap()), right, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read() {
        for wrong in [&b"Basic"[..], b"Basic !", b"Bearer YTpi", b"", &value("no colon"), &value("a\nb:c")] {
            assert_eq!(Credentials::parse(wrong), None, "{}", wrong.escape_ascii());
        }
        assert_eq!(Credentials::parse(&value(&format!("a:{}", "x".repeat(73)))), None);
        for (text, error) in [
            ("", "line 1 and the rest of the file name no user"),
            ("ann", "line 1 is not `name:hash`"),
            ("#\nann:{SHA}x", "line 2 has no hash of bcrypt: write it with `htpasswd -B`"),
        ] {
            assert_eq!(Users::parse(text).unwrap_err().to_string(), error);
        }
    }
}
