//! Answers that count and answers that do not, made here byte by byte.

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SigningKey as _,
};
use rustls::pki_types::CertificateDer;

use super::answer::AnswerError;
use super::der::{self, Reader, context};
use super::question::{QuestionError, sha1};
use super::{Answer, Question, Status};

const NOW: i64 = 1_800_000_000;
/// NOW an hour before, and an hour later.
const BEFORE: &str = "20270115070000Z";
const AFTER: &str = "20270115090000Z";
/// 1.2.840.10045.4.3.2: ECDSA with SHA-256.
const ECDSA: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// Who signs, with a certificate.
struct Signer {
    key: KeyPair,
    params: CertificateParams,
    der: CertificateDer<'static>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str) -> Signer {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    Signer { key, params, der }
}

impl Signer {
    fn issue(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        Self { key, params, der }
    }

    fn responder(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params("responder");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        change(&mut params);
        self.issue(params)
    }

    fn party(&self) -> super::question::Party {
        use x509_parser::prelude::FromDer as _;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&self.der).unwrap();
        super::question::Party::of(&parsed).unwrap()
    }
}

/// What stands in a response.
struct Said<'a> {
    status: &'a [u8],
    this: &'a str,
    next: Option<&'a str>,
    by_key: bool,
}

const GOOD: Said<'_> = Said { status: &[0x80, 0], this: BEFORE, next: Some(AFTER), by_key: true };

fn time(text: &str) -> Vec<u8> {
    der::write(der::GENERALIZED_TIME, &[text.as_bytes()])
}

/// A response to this question, signed by `signer`, with these certificates.
fn response(question: &Question, said: &Said<'_>, signer: &Signer, certificates: &[&Signer]) -> Vec<u8> {
    let request = question.request();
    let mut id = Reader::new(&request);
    for _ in 0..4 {
        id = id.enter(der::SEQUENCE).unwrap();
    }
    let id = id.next().unwrap().whole;
    let next = said.next.map_or(Vec::new(), |next| der::write(context(0), &[&time(next)]));
    let single = der::write(der::SEQUENCE, &[id, said.status, &time(said.this), &next]);
    let party = signer.party();
    let responder = match said.by_key {
        true => der::write(context(2), &[&der::write(der::OCTET_STRING, &[&party.key_hash])]),
        false => der::write(context(1), &[&party.name]),
    };
    let singles = der::write(der::SEQUENCE, &[&single]);
    let data = der::write(der::SEQUENCE, &[&responder, &time(BEFORE), &singles]);
    let signature = der::write(der::BIT_STRING, &[&[0], &signer.key.sign(&data).unwrap()]);
    let all: Vec<u8> = certificates.iter().flat_map(|signer| signer.der.to_vec()).collect();
    let all = match certificates {
        [] => Vec::new(),
        _ => der::write(context(0), &[&der::write(der::SEQUENCE, &[&all])]),
    };
    let basic = der::write(der::SEQUENCE, &[&data, &der::write(der::SEQUENCE, &[ECDSA]), &signature, &all]);
    let kind = [0x06, 9, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
    let bytes = der::write(der::SEQUENCE, &[&kind, &der::write(der::OCTET_STRING, &[&basic])]);
    der::write(der::SEQUENCE, &[&[10, 1, 0], &der::write(context(0), &[&bytes])])
}

fn question(leaf: &Signer, ca: &Signer) -> Question {
    Question::about(&[leaf.der.clone(), ca.der.clone()]).unwrap()
}

#[test]
fn answers_that_count() {
    let ca = authority("ca");
    let leaf = ca.issue(params("a.test"));
    let question = question(&leaf, &ca);
    let delegated = ca.responder(|_| ());
    let (this_update, next_update) = (NOW - 3600, NOW + 3600);
    let good = Ok(Answer { status: Status::Good, this_update, next_update });
    for by_key in [true, false] {
        let said = Said { by_key, ..GOOD };
        assert_eq!(question.read(&response(&question, &said, &ca, &[]), NOW), good);
        assert_eq!(question.read(&response(&question, &said, &delegated, &[&delegated]), NOW), good);
        // Others stand beside it.
        let answer = response(&question, &said, &delegated, &[&leaf, &delegated]);
        assert_eq!(question.read(&answer, NOW), good);
    }
    let unsaid = response(&question, &Said { next: None, ..GOOD }, &ca, &[]);
    assert_eq!(question.read(&unsaid, NOW).unwrap().next_update, this_update + 12 * 3600);
    let unknown = response(&question, &Said { status: &[0x82, 0], ..GOOD }, &ca, &[]);
    assert_eq!(question.read(&unknown, NOW).unwrap().status, Status::Unknown);
    let revoked = der::write(0xa1, &[&time(BEFORE), &der::write(context(0), &[&[10, 1, 1]])]);
    let revoked = response(&question, &Said { status: &revoked, ..GOOD }, &ca, &[]);
    assert_eq!(question.read(&revoked, NOW).unwrap().status, Status::Revoked(NOW - 3600));
}

#[test]
fn answers_that_do_not_count() {
    let (ca, other) = (authority("ca"), authority("ca"));
    let leaf = ca.issue(params("a.test"));
    let question_asked = question(&leaf, &ca);
    let read = |response: &[u8]| question_asked.read(response, NOW);
    let signed = |signer: &Signer, certificates: &[&Signer]| {
        read(&response(&question_asked, &GOOD, signer, certificates))
    };
    // Another authority of the same name, and what it has named.
    assert_eq!(signed(&other, &[]), Err(AnswerError::Signature));
    assert_eq!(signed(&other, &[&other]), Err(AnswerError::Signature));
    let foreign = other.responder(|_| ());
    assert_eq!(signed(&foreign, &[&foreign]), Err(AnswerError::Signature));
    // A certificate of the issuer that is not for this, has ended, or is not there.
    for responder in [
        ca.issue(params("a.test")),
        ca.responder(|params| params.not_after = rcgen::date_time_ymd(2026, 1, 1)),
        ca.responder(|params| params.not_before = rcgen::date_time_ymd(2028, 1, 1)),
    ] {
        assert_eq!(signed(&responder, &[&responder]), Err(AnswerError::Signature));
    }
    let delegated = ca.responder(|_| ());
    assert_eq!(signed(&delegated, &[]), Err(AnswerError::Signature));
    // Too many to look at.
    assert_eq!(signed(&delegated, &[&leaf, &leaf, &leaf, &leaf, &delegated]), Err(AnswerError::Signature));
    // About another certificate.
    let neighbour = question(&ca.issue(params("b.test")), &ca);
    assert_eq!(read(&response(&neighbour, &GOOD, &ca, &[])), Err(AnswerError::Other));
    // Of other days.
    let at = |this, next| read(&response(&question_asked, &Said { this, next, ..GOOD }, &ca, &[]));
    let outdated = AnswerError::Outdated("2027-01-15T07:59:59Z".into());
    assert_eq!(at(BEFORE, Some("20270115075959Z")), Err(outdated));
    let early = AnswerError::Early("2027-01-15T08:05:01Z".into());
    assert_eq!(at("20270115080501Z", Some(AFTER)), Err(early));
    assert!(at("20270115080500Z", Some(AFTER)).is_ok());
    assert_eq!(at("20270115", Some(AFTER)), Err(AnswerError::Malformed));
    // No answer at all.
    for (status, text) in [(1, "malformed"), (2, "internal"), (3, "later"), (5, "signed"), (6, "may not")] {
        let Err(AnswerError::Refused(said)) = read(&[0x30, 3, 10, 1, status]) else { panic!("{status}") };
        assert!(said.contains(text));
    }
    for garbage in [&b""[..], b"<html>", &[0x30, 3, 10, 1, 0], &[0x30, 3, 10, 1, 4]] {
        assert_eq!(read(garbage), Err(AnswerError::Malformed));
    }
}

#[test]
fn who_has_no_issuer_cannot_ask() {
    let (ca, other) = (authority("ca"), authority("ca"));
    let leaf = ca.issue(params("a.test"));
    let about = |chain: &[&Signer]| {
        Question::about(&chain.iter().map(|signer| signer.der.clone()).collect::<Vec<_>>()).map(|_| ())
    };
    assert_eq!(about(&[&leaf]), Err(QuestionError::NoIssuer));
    // The same name, but another key.
    assert_eq!(about(&[&leaf, &other]), Err(QuestionError::NoIssuer));
    assert_eq!(about(&[&leaf, &other, &ca]), Ok(()));
    assert_eq!(Question::about(&[]).map(|_| ()), Err(QuestionError::Certificate));
    assert_eq!(Question::about(&[vec![1, 2].into()]).map(|_| ()), Err(QuestionError::Certificate));
    assert_eq!(sha1(b"abc")[..4], [0xa9, 0x99, 0x3e, 0x36]);
}

proptest! {
    #[test]
    fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let ca = authority("ca");
        let question = question(&ca.issue(params("a.test")), &ca);
        prop_assert!(question.read(&bytes, NOW).is_err());
    }
}

/// Whichever byte of a response is changed: it is refused, or says the same.
#[test]
fn a_changed_byte_changes_nothing_that_is_believed() {
    let ca = authority("ca");
    let question = question(&ca.issue(params("a.test")), &ca);
    let delegated = ca.responder(|_| ());
    let whole = response(&question, &GOOD, &delegated, &[&delegated]);
    let said = question.read(&whole, NOW).unwrap();
    for place in 0..whole.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[place] ^= change;
            if let Ok(answer) = question.read(&changed, NOW) {
                assert_eq!(answer, said, "byte {place}");
            }
        }
        assert!(question.read(&whole[..place], NOW).is_err(), "cut at {place}");
    }
}
