//! Who may come at all: a list of networks in order, as nginx and security groups have it.

use std::net::IpAddr;

use ipnet::IpNet;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whether these may come.
    pub allow: bool,
    /// Who is meant; empty is everybody.
    pub networks: Vec<IpNet>,
}

/// The entries in order; the first that has the client decides, and without one it may come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessList(pub Vec<Access>);

impl AccessList {
    /// Whether this client may come.
    pub fn allows(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let has = |entry: &&Access| {
            entry.networks.is_empty() || entry.networks.iter().any(|network| network.contains(&client))
        };
        self.0.iter().find(has).is_none_or(|entry| entry.allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_has_the_client_decides() {
        let entry = |allow, networks: &[&str]| Access {
            allow,
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        };
        let list = AccessList(vec![
            entry(false, &["10.0.0.9/32"]),
            entry(true, &["10.0.0.0/8", "::1/128"]),
            entry(false, &[]),
        ]);
        for (client, allowed) in [
            ("10.0.0.9", false),
            ("10.0.0.8", true),
            ("::ffff:10.0.0.8", true),
            ("::1", true),
            ("192.0.2.1", false),
        ] {
            assert_eq!(list.allows(client.parse().unwrap()), allowed, "{client}");
        }
        assert!(AccessList::default().allows("192.0.2.1".parse().unwrap()));
    }
}
