//! The account with the authority: made once, kept, and the same for all nodes that share the storage.

use std::sync::Arc;

use instant_acme::{Account, ExternalAccountKey, NewAccount};

use super::client::Client;
use super::error::AcmeError;
use super::order::insist;
use super::storage::{KeptAccount, Storage};
use crate::config::Acme;

/// The account, opened when it is first needed.
pub(super) struct Accounts {
    config: Arc<Acme>,
    client: Client,
    storage: Storage,
    open: tokio::sync::Mutex<Option<Account>>,
}

impl Accounts {
    /// Nothing is opened yet.
    pub(super) fn new(config: &Arc<Acme>, client: Client, storage: &Storage) -> Self {
        Self { config: Arc::clone(config), client, storage: storage.clone(), open: Default::default() }
    }

    /// The account; one for all who ask at the same time.
    ///
    /// # Errors
    /// Where the authority is not reached or refuses, or the storage fails.
    pub(super) async fn open(&self) -> Result<Account, AcmeError> {
        let mut open = self.open.lock().await;
        if let Some(account) = &*open {
            return Ok(account.clone());
        }
        let account = match self.storage.load_account()? {
            Some(kept) => self.resume(kept).await?,
            None => self.create().await?,
        };
        *open = Some(account.clone());
        Ok(account)
    }

    /// Something has failed: the next one asks the authority anew where everything is, and makes another account where
    /// this one is not known any more.
    pub(super) async fn close(&self, error: &AcmeError) -> Result<(), AcmeError> {
        *self.open.lock().await = None;
        if error.is("accountDoesNotExist") { self.storage.forget_account() } else { Ok(()) }
    }

    async fn resume(&self, kept: KeptAccount) -> Result<Account, AcmeError> {
        let same = kept.email == self.config.email;
        let text = serde_json::to_value(&kept.credentials);
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let account = builder.from_credentials(kept.credentials).await?;
        if !same {
            let contact = self.contact();
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            insist!(account.update_contacts(&contact))?;
            let credentials = text.and_then(serde_json::from_value);
            let credentials = credentials.map_err(|error| AcmeError::Unusable(error.to_string()))?;
            self.storage.save_account(&KeptAccount { email: self.config.email.clone(), credentials })?;
        }
        Ok(account)
    }

    async fn create(&self) -> Result<Account, AcmeError> {
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let eab = self.config.eab.as_ref();
        let eab = eab.map(|eab| ExternalAccountKey::new(eab.key_id.clone(), &eab.hmac_key));
        let create = || {
            let builder = Account::builder_with_http(Box::new(self.client.clone()));
            builder.create(&new, self.config.directory.clone(), eab.as_ref())
        };
        let (account, credentials) = insist!(create())?;
        self.storage.save_account(&KeptAccount { email: self.config.email.clone(), credentials })?;
        Ok(account)
    }

    fn contact(&self) -> Option<String> {
        self.config.email.as_ref().map(|email| format!("mailto:{email}"))
    }
}
