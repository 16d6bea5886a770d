//! One order from its beginning to the certificate (RFC 8555 7.4).

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};

use super::error::AcmeError;
use super::proof::Proofs;
use crate::config::KeyType;

/// How long the authority may take to look at proofs, and to sign.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// How often a request is repeated because the authority does not like its nonce (RFC 8555 6.5). Each is three requests.
pub(super) const NONCES: usize = 10;

/// What is ordered.
pub(super) struct Wanted {
    pub(super) names: Vec<String>,
    pub(super) key_type: KeyType,
    pub(super) profile: Option<String>,
    /// The certificate that this one takes the place of (RFC 9773 5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

/// What has come of it, PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Does again what the authority has refused for its nonce alone.
macro_rules! insist {
    ($attempt:expr) => {{
        let mut left = crate::acme::order::NONCES;
        loop {
            left -= 1;
            match $attempt.await {
                Err(instant_acme::Error::Api(problem))
                    if left > 0 && crate::acme::error::has_type(&problem, "badNonce") => {}
                result => break result.map_err(crate::acme::error::AcmeError::from),
            }
        }
    }};
}
pub(super) use insist;

/// Gets a certificate. What is shown for that is added to `proofs`, which the caller takes away whatever has come of it.
///
/// # Errors
/// Where anything fails.
pub(super) async fn issue(
    account: &Account,
    wanted: &Wanted,
    proofs: &mut Proofs,
) -> Result<Issued, AcmeError> {
    let identifiers: Vec<_> = wanted.names.iter().map(|name| Identifier::Dns(name.clone())).collect();
    let mut order = place(account, &identifiers, wanted).await?;
    let proven = match order.state().status {
        OrderStatus::Pending => prove(&mut order, proofs).await,
        _ => Ok(()),
    };
    // One that looks at once may refuse the proof in its answer to our being ready.
    let status = match proven {
        Ok(()) => insist!(order.poll_ready(&polling())),
        Err(error) => Err(error),
    };
    match status {
        Ok(OrderStatus::Ready) => {}
        Ok(_) | Err(AcmeError::Refused(_)) => {
            let why = refusals(&mut order).await;
            return Err(match (why, status) {
                (Some(why), _) => AcmeError::Proof(why),
                (None, Err(error)) => error,
                (None, Ok(status)) => AcmeError::Proof(format!("the order is {status:?}")),
            });
        }
        Err(error) => return Err(error),
    }
    let (key, request) = request(wanted)?;
    insist!(order.finalize_csr(&request))?;
    let chain = insist!(order.poll_certificate(&polling()))?;
    Ok(Issued { chain, key })
}

async fn place(account: &Account, identifiers: &[Identifier], wanted: &Wanted) -> Result<Order, AcmeError> {
    let plain = || {
        let order = NewOrder::new(identifiers);
        match &wanted.profile {
            Some(profile) => order.profile(profile),
            None => order,
        }
    };
    if let Some(replaces) = &wanted.replaces {
        let order = plain().replaces(replaces.clone());
        match insist!(account.new_order(&order)) {
            Ok(order) => return Ok(order),
            // It knows nothing of the old certificate, or has replaced it already: then this is an order like any other.
            Err(AcmeError::Refused(_) | AcmeError::Unusable(_)) => {}
            Err(error) => return Err(error),
        }
    }
    insist!(account.new_order(&plain()))
}

/// Proves every name that is not proven yet, all at the same time.
async fn prove(order: &mut Order, proofs: &mut Proofs) -> Result<(), AcmeError> {
    let (kind, shown) = proofs.kind();
    // What is known of authorizations stays in the order, so the second round asks for nothing again.
    for round in [Round::Show, Round::Ready] {
        let mut done = 0;
        let mut nonces = NONCES;
        'again: loop {
            let mut authorizations = order.authorizations();
            let mut number = 0;
            while let Some(next) = authorizations.next().await {
                number += 1;
                let mut authorization = match next {
                    Ok(authorization) => authorization,
                    Err(instant_acme::Error::Api(problem))
                        if nonces > 0 && super::error::has_type(&problem, "badNonce") =>
                    {
                        nonces -= 1;
                        continue 'again;
                    }
                    Err(error) => return Err(error.into()),
                };
                if number <= done {
                    continue;
                }
                done = number;
                if authorization.status == AuthorizationStatus::Valid {
                    continue;
                }
                let Identifier::Dns(domain) = authorization.identifier().identifier.clone() else {
                    return Err(AcmeError::Unusable("an authorization for what is no name".into()));
                };
                let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                    return Err(AcmeError::NoChallenge { challenge: shown, name: domain });
                };
                match round {
                    Round::Show => {
                        let (token, answer) = (challenge.token.clone(), challenge.key_authorization());
                        proofs.show(&domain, &token, &answer).await?;
                    }
                    Round::Ready => insist!(challenge.set_ready())?,
                }
            }
            break;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    Show,
    Ready,
}

/// What the authority has found wrong with each name.
async fn refusals(order: &mut Order) -> Option<String> {
    let mut all = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let mut left = NONCES;
        while left > 0 && authorization.refresh().await.is_err() {
            left -= 1;
        }
        let name = authorization.identifier().to_string();
        for problem in authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            let detail = problem.detail.as_deref().unwrap_or("no reason given");
            all.push(format!("{name}: {detail}"));
        }
    }
    (!all.is_empty()).then(|| all.join("; "))
}

fn polling() -> RetryPolicy {
    RetryPolicy::new().initial_delay(Duration::from_millis(300)).backoff(1.6).timeout(PATIENCE)
}

/// A new key, PEM, and the request for its certificate, DER.
fn request(wanted: &Wanted) -> Result<(String, Vec<u8>), AcmeError> {
    let made = || -> Result<_, rcgen::Error> {
        let key = match wanted.key_type {
            KeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            KeyType::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let mut params = CertificateParams::new(wanted.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        Ok((key.serialize_pem(), request.der().to_vec()))
    };
    made().map_err(|error| AcmeError::Unusable(error.to_string()))
}
