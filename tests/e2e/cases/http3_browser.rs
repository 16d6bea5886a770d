//! A browser that is told to use HTTP/3.

use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::harness::{Case, Need, Origin, Program, until};

use super::site;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::needing("http3_browser::chromium_loads_a_page", &[Need::Chromium], page)]
}

/// The key that the browser is to take although nobody it knows has signed its certificate.
fn pin(program: &Program) -> String {
    let der = CertificateDer::from_pem_file(program.path().join("certs/dev.pem")).unwrap();
    let key = webpki::EndEntityCert::try_from(&der).unwrap().subject_public_key_info();
    base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, &key))
}

fn page() {
    let origin = Origin::named("<!doctype html><title>page</title><p>from the real server</p>");
    let program = site(&origin).start();
    let port = program.listener("https").port();
    let output = Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--timeout=15000"])
        .arg(format!("--user-data-dir={}", program.path().join("browser").display()))
        .args(["--enable-quic", "--host-resolver-rules=MAP localhost 127.0.0.1"])
        .arg(format!("--origin-to-force-quic-on=localhost:{port}"))
        .arg(format!("--ignore-certificate-errors-spki-list={}", pin(&program)))
        .arg("--dump-dom")
        .arg(format!("https://localhost:{port}/page"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("from the real server"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let line = until("the line of the page", || {
        program.log_lines().into_iter().find(|line| line["target"] == "/page")
    });
    assert_eq!((&line["protocol"], &line["status"]), (&"HTTP/3".into(), &200.into()), "{line}");
}
