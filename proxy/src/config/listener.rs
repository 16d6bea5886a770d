//! The `listeners:` section.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use yaml::{ByteSize, Reader};

use super::certificate::{CertificateError, certified_key};
use super::file::{CertificateFile, HttpsRedirectFile, ListenerFile, TlsFile};
use super::{Certificate, Development, Listener, Source, Tls, admission, client_certificate, tls_settings};
use crate::rule::{Redirect, Template};

const UNREADABLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) fn read(files: &[ListenerFile], base: &Path, reader: &mut Reader<'_>) -> Vec<Listener> {
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    let mut listeners = Vec::new();
    for file in files {
        let name = reader.read_or(Some(&file.name), String::new());
        super::read::unique(reader, &mut names, "listener", &name, file.name.at());
        let tunnel = file.tunnel.as_ref().and_then(|tunnel| reader.read(tunnel));
        // Whatever stands for an address that cannot be read: nothing starts, and later ones keep their places.
        let address = reader.read(&file.address).unwrap_or(UNREADABLE);
        if address.port() != 0
            && let Some(other) = addresses.insert((address, tunnel.clone()), name.clone())
        {
            let help = Some("give each listener an address or a port of its own".into());
            reader.problem(file.address.at(), format!("{address} is the address of `{other}` already"), help);
        }
        let http2 = reader.read_or(file.http2.as_ref(), true);
        let tls = file.tls.as_ref().map(|tls| read_tls(tls, http2, base, file, reader));
        let http3 = read_http3(file, reader);
        let http3_port = file
            .http3_port
            .as_ref()
            .map(|port| reader.read_within(Some(port), 1..=u16::MAX, u16::to_string, 443));
        let https_redirect =
            file.https_redirect.as_ref().and_then(|redirect| read_https_redirect(redirect, file, reader));
        let per_client = admission::read_per_client(file, &name, reader);
        let access = file.access.as_deref().unwrap_or_default();
        let access = admission::read_access(access, file.address.at(), reader);
        listeners.push(limits(
            file,
            reader,
            Listener {
                name,
                address,
                tunnel,
                tls,
                http3,
                http3_port,
                https_redirect,
                max_connections: 0,
                per_client,
                access,
                client_header_timeout: Duration::ZERO,
                client_body_timeout: Duration::ZERO,
                send_timeout: Duration::ZERO,
                keepalive_timeout: Duration::ZERO,
                keepalive_requests: None,
                client_header_size: 0,
                client_header_count: 0,
                client_max_body_size: 0,
            },
        ));
    }
    listeners
}

fn limits(file: &ListenerFile, reader: &mut Reader<'_>, listener: Listener) -> Listener {
    let second = Duration::from_secs;
    let size = |size: &ByteSize| format!("{} bytes", size.0);
    let time = super::read::show_duration;
    let header_size = reader.read_within(
        file.client_header_size.as_ref(),
        ByteSize(1 << 10)..=ByteSize(256 << 10),
        size,
        ByteSize(64 << 10),
    );
    let body_size = reader.read_or(file.client_max_body_size.as_ref(), ByteSize(60 << 20));
    Listener {
        max_connections: reader.read_within(
            file.max_connections.as_ref(),
            1..=10_000_000,
            usize::to_string,
            65_536,
        ),
        client_header_timeout: reader.read_within(
            file.client_header_timeout.as_ref(),
            second(1)..=second(120),
            time,
            second(60),
        ),
        client_body_timeout: reader.read_within(
            file.client_body_timeout.as_ref(),
            second(1)..=second(120),
            time,
            second(60),
        ),
        send_timeout: reader.read_within(
            file.send_timeout.as_ref(),
            second(1)..=second(3600),
            time,
            second(60),
        ),
        keepalive_timeout: reader.read_within(
            file.keepalive_timeout.as_ref(),
            second(0)..=second(3600),
            time,
            second(75),
        ),
        keepalive_requests: file
            .keepalive_requests
            .as_ref()
            .map(|most| reader.read_within(Some(most), 1..=1_000_000_000, u32::to_string, 1)),
        client_header_size: usize::try_from(header_size.0).unwrap_or(usize::MAX),
        client_header_count: reader.read_within(
            file.client_header_count.as_ref(),
            8..=128,
            usize::to_string,
            100,
        ),
        client_max_body_size: if body_size.0 == 0 { u64::MAX } else { body_size.0 },
        ..listener
    }
}

/// Whether HTTP/3 is spoken, which takes TLS and a UDP socket of this process.
fn read_http3(file: &ListenerFile, reader: &mut Reader<'_>) -> bool {
    let possible = file.tls.is_some() && file.tunnel.is_none();
    let http3 = reader.read_or(file.http3.as_ref(), possible);
    if let Some(at) = file.http3.as_ref().filter(|_| http3).map(yaml::Setting::at) {
        if file.tls.is_none() {
            let help = "give the listener `tls`, or leave `http3` out";
            reader.problem(at, "`http3` needs TLS", Some(help.into()));
        } else if file.tunnel.is_some() {
            let help = "leave it out: clients in the tunnel use HTTP/2";
            reader.problem(at, "`http3` is not possible inside a tunnel", Some(help.into()));
        }
    }
    if let Some(at) = file.http3_port.as_ref().filter(|_| !http3).map(yaml::Setting::at) {
        let help = "leave it out: nobody is told about HTTP/3";
        reader.problem(at, "`http3_port` on a listener without HTTP/3", Some(help.into()));
    }
    if let Some(at) = file.http3_early_data.as_ref().filter(|_| !http3).map(yaml::Setting::at) {
        let help = "leave it out: only HTTP/3 has early data here";
        reader.problem(at, "`http3_early_data` on a listener without HTTP/3", Some(help.into()));
    }
    http3
}

fn read_https_redirect(
    file: &HttpsRedirectFile,
    listener: &ListenerFile,
    reader: &mut Reader<'_>,
) -> Option<Redirect> {
    let at = file.status.as_ref().map_or(listener.address.at(), yaml::Setting::at);
    if listener.tls.is_some() {
        let help = "leave it out here, and put it on a listener without `tls`";
        reader.problem(at, "`https_redirect` on an HTTPS listener leads back to itself", Some(help.into()));
    }
    let status = reader.read_or(file.status.as_ref(), 301);
    if !matches!(status, 301 | 302 | 307 | 308) {
        reader.problem(at, format!("{status} is no redirect"), Some("301, 302, 307 or 308".into()));
    }
    let port = match reader.read_within(file.port.as_ref(), 1..=u16::MAX, u16::to_string, 443) {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let to = Template::parse(&format!("https://$host{port}$request_uri"), 0).ok()?;
    Some(Redirect { status: StatusCode::from_u16(status).ok()?, to, regex: None })
}

fn read_tls(
    file: &TlsFile,
    http2: bool,
    base: &Path,
    listener: &ListenerFile,
    reader: &mut Reader<'_>,
) -> Tls {
    let certificates =
        file.certificates.iter().filter_map(|file| read_certificate(file, base, reader)).collect();
    let development = file.development.as_ref().map(|development| {
        let names = reader.read_all(&development.names);
        Development {
            directory: base.join(reader.read_or(development.directory.as_ref(), PathBuf::from("certs"))),
            names: if names.is_empty() {
                ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into()
            } else {
                names
            },
        }
    });
    let managed = file.acme.as_ref().map(|acme| super::acme::read_managed(acme, reader));
    if file.certificates.is_empty() && development.is_none() && managed.is_none() {
        let help = "list one under `certificates:`, names under `acme: {domains: []}`, or write `development: {}` for \
                    one made here";
        reader.problem(listener.address.at(), "`tls` names no certificate", Some(help.into()));
    }
    let ocsp_stapling = reader.read_or(file.ocsp_stapling.as_ref(), true);
    let client_certificates = client_certificate::read(&file.client_certificates, base, reader);
    Tls {
        certificates,
        development,
        managed: managed.unwrap_or_default(),
        client_certificates,
        min_version: tls_settings::read_min_version(file, reader),
        session_tickets: tls_settings::read_tickets(file.session_tickets.as_ref(), base, reader),
        http2,
        early_data: reader.read_or(listener.http3_early_data.as_ref(), false),
        ocsp_stapling,
    }
}

fn read_certificate(file: &CertificateFile, base: &Path, reader: &mut Reader<'_>) -> Option<Certificate> {
    let chain = reader.read_file(&file.certificate, base);
    let key = reader.read_file(&file.key, base);
    let (chain, key) = (chain?, key?);
    match certified_key(&chain, &key) {
        Ok(read) => {
            let [certificate, key] =
                [&file.certificate, &file.key].map(|file| Some(base.join(reader.read(file)?)));
            Some(Certificate { source: Source::Files { certificate: certificate?, key: key? }, key: read })
        }
        Err(error) => {
            let (at, what) = match error {
                CertificateError::NoKey => (file.key.at(), "this file"),
                CertificateError::Mismatch(_) => (file.key.at(), "certificate and key"),
                CertificateError::NoCertificate | CertificateError::Pem(_) => {
                    (file.certificate.at(), "this file")
                }
            };
            reader.problem(at, format!("{what} {error}"), None);
            None
        }
    }
}
