//! What a pool's RS speak: `protocol:` and `tls:` of the `pools:` section.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use schemars::{Schema, json_schema};
use yaml::{Position, Reader, Setting, Value};

use super::certificate::certified_key;
use super::file::{PoolFile, ProtocolFile, UpstreamTlsFile};
use super::{Named, Server};

/// Where systems keep the authorities that they trust: Debian and distroless images, Fedora, Alpine.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What is spoken to an RS, in clear or inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113), without asking first.
    Http2,
    /// gRPC: HTTP/2, and `grpc-timeout` is a deadline.
    Grpc,
}

/// How TLS is spoken to the RS of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The authorities that may sign the certificate of an RS; it is not verified where there are none.
    pub roots: Option<Arc<[CertificateDer<'static>]>>,
    /// What is asked for and what the certificate is for; the address of the RS where absent.
    pub server_name: Option<ServerName<'static>>,
    /// Shown to an RS that asks for it.
    pub certificate: Option<ClientCertificate>,
    /// SHA-256 of the SubjectPublicKeyInfo that an RS may have; any where empty.
    pub pins: Vec<[u8; 32]>,
    /// The oldest version of TLS.
    pub min_version: TlsVersion,
}

/// A certificate to show to an RS, with its key. Equal certificates have equal keys.
#[derive(Debug, Clone)]
pub struct ClientCertificate(pub Arc<CertifiedKey>);

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for ClientCertificate {}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Value for TlsVersion {
    const NAME: &'static str = "tls_version";
    const WHAT: &'static str = "1.2 or 1.3";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "1.2" => Some(Self::Tls12),
            "1.3" => Some(Self::Tls13),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "enum": [1.2, 1.3, "1.2", "1.3"] })
    }
}

pub(super) fn read(
    pool: &PoolFile,
    servers: (&[Server], &[Named]),
    base: &Path,
    reader: &mut Reader<'_>,
) -> (Protocol, Option<UpstreamTls>) {
    let (protocol, secure) = match pool.protocol.unwrap_or(ProtocolFile::Http) {
        ProtocolFile::Http => (Protocol::Http1, false),
        ProtocolFile::Https => (Protocol::Http1, true),
        ProtocolFile::H2c => (Protocol::Http2, false),
        ProtocolFile::H2 => (Protocol::Http2, true),
        ProtocolFile::Grpc => (Protocol::Grpc, false),
        ProtocolFile::Grpcs => (Protocol::Grpc, true),
    };
    let at = pool.name.at();
    if !secure {
        if pool.tls.is_some() {
            let help = Some("write `protocol: https`, `h2` or `grpcs`, or leave `tls` out".into());
            reader.problem(at, "`tls` says how a protocol is spoken that is without TLS", help);
        }
        return (protocol, None);
    }
    let usual = UpstreamTlsFile::default();
    (protocol, read_tls(pool.tls.as_ref().unwrap_or(&usual), common_name(servers), at, base, reader))
}

/// The name of all RS, where they have one in common.
fn common_name((servers, named): (&[Server], &[Named])) -> Option<ServerName<'static>> {
    let (first, rest) = named.split_first()?;
    let is_common = servers.is_empty() && rest.iter().all(|other| other.name == first.name);
    is_common.then(|| ServerName::try_from(first.name.clone()).ok()).flatten()
}

fn read_tls(
    file: &UpstreamTlsFile,
    common_name: Option<ServerName<'static>>,
    pool: Position,
    base: &Path,
    reader: &mut Reader<'_>,
) -> Option<UpstreamTls> {
    let verify = reader.read_or(file.verify.as_ref(), true);
    let server_name = match &file.server_name {
        Some(name) => read_name(name, reader),
        None => common_name,
    };
    if verify && file.ca.is_none() && file.server_name.is_none() && server_name.is_none() {
        let help =
            "add `tls: {server_name: NAME}`, `tls: {ca: FILE}`, or trust anybody with `tls: {verify: false}`";
        reader.problem(
            pool,
            "no certificate could be verified: the system's authorities sign names, and there is none to ask for",
            Some(help.into()),
        );
        return None;
    }
    if let (false, Some(ca)) = (verify, &file.ca) {
        reader.problem(ca.at(), "with `verify: false` nobody looks at a `ca`", None);
    }
    Some(UpstreamTls {
        roots: if verify { Some(read_roots(file.ca.as_ref(), pool, base, reader)?) } else { None },
        server_name,
        certificate: read_certificate(file, pool, base, reader),
        pins: file.pin_sha256.iter().filter_map(|pin| read_pin(pin, reader)).collect(),
        min_version: reader.read_or(file.min_version.as_ref(), TlsVersion::Tls12),
    })
}

fn read_name(name: &Setting<String>, reader: &mut Reader<'_>) -> Option<ServerName<'static>> {
    let text = reader.read(name)?;
    let parsed = ServerName::try_from(text.clone()).ok();
    if parsed.is_none() {
        reader.problem(name.at(), format!("`{}` is no name of a server", text.escape_default()), None);
    }
    parsed
}

/// The authorities in a file, or those of the system; a problem at `section`, where there are none.
pub(super) fn read_roots(
    ca: Option<&Setting<std::path::PathBuf>>,
    section: Position,
    base: &Path,
    reader: &mut Reader<'_>,
) -> Option<Arc<[CertificateDer<'static>]>> {
    let (at, text) = match ca {
        Some(ca) => (ca.at(), reader.read_file(ca, base)?),
        None => match SYSTEM_ROOTS.iter().find_map(|path| reader.try_file(path)) {
            Some(text) => (section, text),
            None => {
                let help = format!("install ca-certificates, or write `ca`; looked for {SYSTEM_ROOTS:?}");
                reader.problem(section, "this system has no list of authorities to trust", Some(help));
                return None;
            }
        },
    };
    let roots = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    // A system may have some that are unusable; of one's own, each counts.
    let usable = |root: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(root).is_ok();
    match roots {
        Ok(roots) if ca.is_none() => Some(roots.into_iter().filter(usable).collect()),
        Ok(roots) if !roots.is_empty() && roots.iter().all(usable) => Some(roots.into()),
        Ok(_) | Err(_) => {
            let help = Some("a PEM file with `-----BEGIN CERTIFICATE-----`".into());
            reader.problem(at, "this file holds no certificates of authorities", help);
            None
        }
    }
}

fn read_certificate(
    file: &UpstreamTlsFile,
    pool: Position,
    base: &Path,
    reader: &mut Reader<'_>,
) -> Option<ClientCertificate> {
    let (certificate, key) = match (&file.certificate, &file.key) {
        (None, None) => return None,
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) | (None, Some(_)) => {
            reader.problem(pool, "`certificate` and `key` of `tls` belong together", None);
            return None;
        }
    };
    let chain = reader.read_file(certificate, base);
    let key_text = reader.read_file(key, base);
    match certified_key(&chain?, &key_text?) {
        Ok(key) => Some(ClientCertificate(key)),
        Err(error) => {
            reader.problem(certificate.at(), format!("certificate and key: {error}"), None);
            None
        }
    }
}

fn read_pin(pin: &Setting<String>, reader: &mut Reader<'_>) -> Option<[u8; 32]> {
    let text = reader.read(pin)?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(&text);
    let digest = bytes.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if digest.is_none() {
        let help = "openssl x509 -in FILE -noout -pubkey | openssl pkey -pubin -outform der | \
                    openssl dgst -sha256 -binary | base64";
        reader.problem(
            pin.at(),
            format!("`{}` is no SHA-256 in base64", text.escape_default()),
            Some(help.into()),
        );
    }
    digest
}
