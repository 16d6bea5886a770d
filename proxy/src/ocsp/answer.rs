//! The answer: read, checked against the question, and its signature verified (RFC 6960 3.2 and 4.2.1).

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::der::{
    self, BIT_STRING, ENUMERATED, GENERALIZED_TIME, OCTET_STRING, OID, Reader, SEQUENCE, Value, context,
};
use super::question::{Party, Question};
use super::signature::{is_signed, verifies};
use crate::tls::{date, seconds};

/// 1.3.6.1.5.5.7.48.1.1, a basic response.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
/// The statuses of a certificate: good, revoked, unknown.
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
const UNKNOWN: u8 = 0x82;
/// Certificates of responders that are looked at in one answer: each costs two signatures.
const MOST_RESPONDERS: usize = 4;
/// How far ahead of ours the clock of a responder may be, in seconds.
const AHEAD: i64 = 300;
/// How long an answer counts that does not say itself until when, in seconds.
const UNSAID: i64 = 12 * 3600;

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It was not revoked.
    Good,
    /// It was, at this second since 1970.
    Revoked(i64),
    /// The responder does not know it.
    Unknown,
}

/// An answer that counts. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What it says.
    pub(crate) status: Status,
    /// Since when that is known to be so.
    pub(crate) this_update: i64,
    /// When there will be a newer answer; this one counts up to then.
    pub(crate) next_update: i64,
}

/// Why an answer does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// It is no OCSP response of the usual kind.
    #[error("the answer is no OCSP response")]
    Malformed,
    /// The responder says that it cannot answer.
    #[error("the responder {0}")]
    Refused(&'static str),
    /// It is about other certificates.
    #[error("the answer is about another certificate")]
    Other,
    /// Nobody who may say so has signed it.
    #[error("the answer is not signed by the issuer or who it has named for that")]
    Signature,
    /// It is too old.
    #[error("the answer was good until {0}")]
    Outdated(String),
    /// It is of the future.
    #[error("the answer is of {0}: one of the clocks is wrong")]
    Early(String),
}

impl Question {
    /// What a response says about the certificate at `now`, seconds since 1970.
    ///
    /// # Errors
    /// [`AnswerError`], where it does not count.
    pub(crate) fn read(&self, response: &[u8], now: i64) -> Result<Answer, AnswerError> {
        let basic = basic(response)?;
        let mut parts = Reader::new(basic);
        let signed = Signed::read(&mut parts).ok_or(AnswerError::Malformed)?;
        let answer = self.find(&signed).ok_or(AnswerError::Malformed)?.ok_or(AnswerError::Other)?;
        if !self.may_sign(&signed, now) {
            return Err(AnswerError::Signature);
        }
        if answer.this_update > now.saturating_add(AHEAD) {
            return Err(AnswerError::Early(date(answer.this_update)));
        }
        if answer.next_update < now || answer.next_update < answer.this_update {
            return Err(AnswerError::Outdated(date(answer.next_update)));
        }
        Ok(answer)
    }

    /// The answer about this certificate among others; the outer `None` where they are no answers.
    fn find(&self, signed: &Signed<'_>) -> Option<Option<Answer>> {
        let mut answers = signed.answers;
        while !answers.is_empty() {
            let mut single = answers.enter(SEQUENCE)?;
            let id = single.enter(SEQUENCE)?;
            let status = single.next()?;
            let this_update = time(single.take(GENERALIZED_TIME)?)?;
            let next_update = match single.enter(context(0)) {
                Some(mut next) => time(next.take(GENERALIZED_TIME)?)?,
                None => this_update.saturating_add(UNSAID),
            };
            if !self.is_named_by(id) {
                continue;
            }
            let status = match status.tag {
                GOOD => Status::Good,
                REVOKED => Status::Revoked(time(Reader::new(status.content).take(GENERALIZED_TIME)?)?),
                UNKNOWN => Status::Unknown,
                _ => return None,
            };
            return Some(Some(Answer { status, this_update, next_update }));
        }
        Some(None)
    }

    /// Whether the issuer has signed, or somebody with a certificate for that from the issuer (RFC 6960 4.2.2.2).
    fn may_sign(&self, signed: &Signed<'_>, now: i64) -> bool {
        if signed.is_by(&self.issuer) {
            return true;
        }
        let mut certificates = signed.certificates;
        let each = std::iter::from_fn(|| certificates.take(SEQUENCE));
        each.take(MOST_RESPONDERS).any(|certificate| {
            let Ok((_, parsed)) = X509Certificate::from_der(certificate.whole) else { return false };
            let Some(party) = Party::of(&parsed) else { return false };
            let usage = parsed.extended_key_usage().ok().flatten();
            let validity = parsed.validity();
            parsed.issuer().as_raw() == self.issuer.name
                && usage.is_some_and(|usage| usage.value.ocsp_signing)
                && (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
                && is_signed(certificate.whole, &self.issuer.key)
                && signed.is_by(&party)
        })
    }
}

/// The parts of a basic response.
struct Signed<'a> {
    /// What is signed.
    data: &'a [u8],
    responder: Value<'a>,
    answers: Reader<'a>,
    /// Inside of the AlgorithmIdentifier.
    algorithm: &'a [u8],
    signature: &'a [u8],
    certificates: Reader<'a>,
}

impl<'a> Signed<'a> {
    fn read(parts: &mut Reader<'a>) -> Option<Self> {
        let mut parts = parts.enter(SEQUENCE)?;
        let data = parts.take(SEQUENCE)?;
        let algorithm = parts.take(SEQUENCE)?.content;
        let signature = der::bits(parts.take(BIT_STRING)?)?;
        let certificates = match parts.enter(context(0)) {
            Some(mut wrapped) => wrapped.enter(SEQUENCE)?,
            None => Reader::new(&[]),
        };
        let mut inside = Reader::new(data.content);
        // The version: 1 where it is absent, and there is no other.
        inside.take(context(0));
        let responder = inside.next()?;
        inside.take(GENERALIZED_TIME)?;
        let answers = inside.enter(SEQUENCE)?;
        Some(Self { data: data.whole, responder, answers, algorithm, signature, certificates })
    }

    /// Whether it names this party, and the party has signed it.
    fn is_by(&self, party: &Party) -> bool {
        let named = match self.responder.tag {
            0xa1 => self.responder.content == party.name,
            0xa2 => {
                let hash = Reader::new(self.responder.content).take(OCTET_STRING);
                hash.is_some_and(|hash| hash.content == party.key_hash)
            }
            _ => false,
        };
        named && verifies(&party.key, self.algorithm, self.data, self.signature)
    }
}

/// The basic response inside a response.
fn basic(response: &[u8]) -> Result<&[u8], AnswerError> {
    let mut outer = Reader::new(response).enter(SEQUENCE).ok_or(AnswerError::Malformed)?;
    let status = outer.take(ENUMERATED).ok_or(AnswerError::Malformed)?;
    match status.content {
        [0] => {}
        [1] => return Err(AnswerError::Refused("finds the request malformed")),
        [2] => return Err(AnswerError::Refused("has an internal error")),
        [3] => return Err(AnswerError::Refused("asks to try later")),
        [5] => return Err(AnswerError::Refused("wants signed requests")),
        [6] => return Err(AnswerError::Refused("may not speak about this certificate")),
        _ => return Err(AnswerError::Malformed),
    }
    let inside = || {
        let mut bytes = outer.enter(context(0))?.enter(SEQUENCE)?;
        let kind = bytes.take(OID)?.content;
        let basic = bytes.take(OCTET_STRING)?.content;
        (kind == BASIC).then_some(basic)
    };
    let mut inside = inside;
    inside().ok_or(AnswerError::Malformed)
}

/// A GeneralizedTime in the one form that is allowed here (RFC 5280 4.1.2.5.2).
fn time(value: Value<'_>) -> Option<i64> {
    seconds(std::str::from_utf8(value.content).ok()?)
}
