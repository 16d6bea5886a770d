//! A certificate authority for one case.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A certificate with its key.
pub(crate) struct Issued {
    /// The certificate, PEM.
    pub(crate) certificate: String,
    /// The private key, PEM.
    pub(crate) key: String,
    /// The certificate as it goes over the wire.
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "e2e CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A certificate for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// What a client that trusts it alone trusts.
    pub(crate) fn roots(&self) -> RootCertStore {
        roots([self.der.clone()])
    }
}

/// What a client that trusts the certificates in this PEM text alone trusts.
pub(crate) fn roots_of(pem: &str) -> RootCertStore {
    roots(CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap))
}

fn roots(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).unwrap();
    }
    store
}
