//! `client_certificates:` of a listener's `tls:`: for which domains clients have to show a certificate, and of whom.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use yaml::{Position, Reader};

use super::file::{ClientCertificatesFile, ClientFieldsFile, ClientModeFile};
use crate::route::{DomainSpec, RouteError, RouteTable};

/// The policies of a listener, by domain.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// The domains; the index of a domain is that of its policy.
    pub domains: Arc<RouteTable>,
    /// At least one.
    pub policies: Vec<Arc<ClientPolicy>>,
}

/// What a client has to show, and who is told about it.
#[derive(Debug)]
pub struct ClientPolicy {
    /// Checks what clients show.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The same for policies that ask the same of a client, and only for those.
    pub id: PolicyId,
    /// What RS are told.
    pub fields: ClientFields,
}

/// Stands for the authorities, the revocation lists and the mode of a policy (SHA-256).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyId(pub [u8; 32]);

/// What RS are told about a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFields {
    /// X-SSL-Client-Verify and what else begins so.
    XSslClient,
    /// Client-Cert (RFC 9440).
    ClientCert,
    /// Nothing.
    Off,
}

impl ClientCertificates {
    /// The policy for a host in its normal form; for one without a name where it is empty.
    pub fn of(&self, host: &str) -> Option<&Arc<ClientPolicy>> {
        self.policies.get(self.domains.find_domain(host)?.domain)
    }
}

pub(super) fn read(
    files: &[ClientCertificatesFile],
    base: &Path,
    reader: &mut Reader<'_>,
) -> Option<ClientCertificates> {
    if files.is_empty() {
        return None;
    }
    let mut domains = Vec::new();
    let mut policies = Vec::new();
    for file in files {
        let names = reader.read_all(&file.domains);
        domains.push(DomainSpec { default: file.domains.is_empty(), names, rules: Vec::new() });
        policies.extend(read_policy(file, base, reader).map(Arc::new));
    }
    match RouteTable::build(&domains) {
        Ok(table) => Some(ClientCertificates { domains: Arc::new(table), policies }),
        Err(errors) => {
            for error in errors {
                explain(&error, files, reader);
            }
            None
        }
    }
}

fn read_policy(file: &ClientCertificatesFile, base: &Path, reader: &mut Reader<'_>) -> Option<ClientPolicy> {
    let mode = file.mode.unwrap_or(ClientModeFile::Required);
    let authorities = reader.read_file(&file.ca, base);
    let lists = file.crl.as_ref().map(|crl| reader.read_file(crl, base));
    let authorities = read_pem::<CertificateDer<'static>>(&authorities?);
    let usable = |root: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(root).is_ok();
    let Some(authorities) = authorities.filter(|all| all.iter().all(usable)) else {
        let help = "a PEM file with `-----BEGIN CERTIFICATE-----`";
        reader.problem(file.ca.at(), "this file holds no certificates of authorities", Some(help.into()));
        return None;
    };
    let lists = match (&file.crl, lists) {
        (Some(crl), Some(text)) => {
            let lists = read_pem::<CertificateRevocationListDer<'static>>(&text?);
            let usable = |list: &CertificateRevocationListDer<'_>| {
                webpki::BorrowedCertRevocationList::from_der(list).is_ok()
            };
            let Some(lists) = lists.filter(|all| all.iter().all(usable)) else {
                let help = "a PEM file with `-----BEGIN X509 CRL-----`";
                reader.problem(crl.at(), "this file holds no revocation lists", Some(help.into()));
                return None;
            };
            lists
        }
        _ => Vec::new(),
    };
    let id = identify(mode, &authorities, &lists);
    match verifier(mode, authorities, lists) {
        Ok(verifier) => {
            let fields = match file.headers.unwrap_or(ClientFieldsFile::XSslClient) {
                ClientFieldsFile::XSslClient => ClientFields::XSslClient,
                ClientFieldsFile::ClientCert => ClientFields::ClientCert,
                ClientFieldsFile::Off => ClientFields::Off,
            };
            Some(ClientPolicy { verifier, id, fields })
        }
        Err(error) => {
            reader.problem(file.ca.at(), format!("no certificate can be checked with these: {error}"), None);
            None
        }
    }
}

/// All sections of a kind; nothing where the text is damaged or has none.
fn read_pem<T: pem::PemObject>(text: &str) -> Option<Vec<T>> {
    let all = T::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

fn verifier(
    mode: ClientModeFile,
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(lists)
        .enforce_revocation_expiration();
    let builder = match mode {
        ClientModeFile::Required => builder,
        ClientModeFile::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| error.to_string())
}

fn identify(
    mode: ClientModeFile,
    authorities: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> PolicyId {
    let mut context = Context::new(&SHA256);
    context.update(&[u8::from(mode == ClientModeFile::Required)]);
    let mut part = |kind: SectionKind, bytes: &[u8]| {
        context.update(&[u8::from(kind == SectionKind::Certificate)]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    authorities.iter().for_each(|authority| part(SectionKind::Certificate, authority));
    lists.iter().for_each(|list| part(SectionKind::Crl, list));
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    PolicyId(id)
}

/// Notes what is wrong with the domains.
fn explain(error: &RouteError, files: &[ClientCertificatesFile], reader: &mut Reader<'_>) {
    let of = |domain: usize, name: usize| -> Position {
        let Some(file) = files.get(domain) else { return Position::default() };
        file.domains.get(name).map_or(file.ca.at(), yaml::Setting::at)
    };
    let line = |at: Position| Some(format!("the first stands in line {}; keep one of them", at.line));
    let (at, message, help) = match error {
        RouteError::BadName { domain, name, text, why } => {
            (of(*domain, *name), format!("the domain `{text}` cannot be used"), Some(why.clone()))
        }
        RouteError::DuplicateName { text, first, second } => (
            of(second.0, second.1),
            format!("the domain `{text}` stands here a second time"),
            line(of(first.0, first.1)),
        ),
        RouteError::TwoDefaults { first, second } => {
            (of(*second, 0), "a second policy for every other domain".into(), line(of(*first, 0)))
        }
        // There are no rules here.
        RouteError::NoName { .. }
        | RouteError::BadRule { .. }
        | RouteError::DuplicateRule { .. }
        | RouteError::RegexesTooLarge { .. } => (of(0, 0), error.to_string(), None),
    };
    reader.problem(at, message, help);
}
