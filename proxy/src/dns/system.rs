//! What the system knows about names: /etc/resolv.conf and /etc/hosts.

use std::net::{IpAddr, SocketAddr};

/// Most servers and search domains that count, as in the C library.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;

/// Whom to ask, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct System {
    pub(super) servers: Vec<SocketAddr>,
    /// Domains that names with few dots are tried in.
    search: Vec<String>,
    /// So many dots make a name be tried as it is first.
    dots: usize,
}

impl System {
    /// These servers and nothing else.
    pub(super) fn of(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec(), search: Vec::new(), dots: 1 }
    }

    /// What resolv.conf(5) says; what it does not know is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let mut system = Self::of(&[]);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    system.servers.extend(server.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => system.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let mut dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    system.dots = dots.next_back().unwrap_or(system.dots);
                }
                _ => {}
            }
        }
        if system.servers.is_empty() {
            system.servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
        }
        system.servers.truncate(MOST_SERVERS);
        system.search.truncate(MOST_DOMAINS);
        system
    }

    /// The names to try for a name, in order.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        let as_it_is = [name.to_owned()];
        if name.ends_with('.') {
            return as_it_is.into();
        }
        let domains = self.search.iter().map(|domain| format!("{name}.{domain}"));
        if name.matches('.').count() >= self.dots {
            as_it_is.into_iter().chain(domains).collect()
        } else {
            domains.chain(as_it_is).collect()
        }
    }
}

/// The addresses of a name in a hosts(5) file.
pub(super) fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# made by a test\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver junk\n\
                    search shop.svc.example svc.example\noptions edns0 ndots:5 timeout:1\nsortlist x\n";
        let system = System::parse(text);
        assert_eq!(system.servers, ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        assert_eq!(system.names("web"), ["web.shop.svc.example", "web.svc.example", "web"]);
        assert_eq!(system.names("web."), ["web."]);
        assert_eq!(system.names("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        let empty = System::parse("");
        assert_eq!(empty.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(empty.names("web"), ["web"]);
        assert_eq!(System::parse(&"nameserver 192.0.2.1\n".repeat(9)).servers.len(), MOST_SERVERS);
    }

    #[test]
    fn etc_hosts() {
        let text =
            "127.0.0.1 localhost # nobody\n::1 localhost ip6-localhost\n192.0.2.7\tweb.test Web\nbad web\n";
        assert_eq!(
            hosts(text, "LOCALHOST"),
            ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]
        );
        assert_eq!(hosts(text, "web."), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(hosts(text, "nobody").is_empty() && hosts(text, "192.0.2.7").is_empty());
    }
}
