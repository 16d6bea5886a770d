//! A certificate authority that speaks ACME: pebble, with a DNS server for which every name is 127.0.0.1.
//!
//! Its ports are free ones that it is told beforehand, and so are those on which it looks for proofs: the sockets of the
//! program's listeners `http` and `https`, which are handed in.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use serde_json::json;

use super::certificates::{Authority, Issued, roots_of};
use super::client::{Client, Tls};
use super::http1::Request;
use super::program::{Program, Setup};
use super::scratch::Scratch;
use super::wait::{until, within};

/// What an authority is to be like.
pub(crate) struct Wish {
    /// How long certificates are good, seconds.
    pub(crate) validity: u32,
    /// Of a hundred good nonces, how many are refused.
    pub(crate) bad_nonces: u8,
    /// Accounts need a key that was agreed on before: its identifier and value.
    pub(crate) eab: Option<(&'static str, &'static str)>,
    /// Where it looks for proofs on port 80; the listener `http` where there is none.
    pub(crate) http: Option<u16>,
}

impl Default for Wish {
    fn default() -> Self {
        Self { validity: 90 * 24 * 3600, bad_nonces: 0, eab: None, http: None }
    }
}

/// A running authority.
pub(crate) struct Pebble {
    running: Option<Program>,
    _names: Program,
    scratch: Arc<Scratch>,
    wish: Wish,
    address: SocketAddr,
    management: SocketAddr,
    /// Where records are set.
    records: SocketAddr,
    authority: Authority,
    /// The program's listeners.
    http: TcpListener,
    https: TcpListener,
}

impl Pebble {
    /// Starts one.
    pub(crate) fn start(wish: Wish) -> Self {
        let authority = Authority::new();
        let scratch = Arc::new(Scratch::new());
        let [http, https] = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let own: Issued = authority.issue(&["127.0.0.1", "localhost"]);
        std::fs::write(scratch.path().join("own.pem"), &own.certificate).unwrap();
        std::fs::write(scratch.path().join("own.key"), &own.key).unwrap();
        let (names, records) = start_names(&scratch);
        let [address, management] = free_ports();
        let mut pebble = Self {
            running: None,
            _names: names,
            scratch,
            wish,
            address,
            management,
            records,
            authority,
            http,
            https,
        };
        for _ in 0..10 {
            if pebble.listens() {
                return pebble;
            }
            // Somebody else has taken a port meanwhile.
            [pebble.address, pebble.management] = free_ports();
        }
        panic!("pebble ends at once");
    }

    /// Ends it; everything that it knows is lost.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// Starts it again at the same address.
    pub(crate) fn run(&mut self) {
        assert!(self.listens(), "pebble has ended");
    }

    /// Starts it; false where it has ended at once.
    fn listens(&mut self) -> bool {
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let mut config = json!({
            "listenAddress": self.address.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": "own.pem",
            "privateKey": "own.key",
            "httpPort": self.wish.http.unwrap_or_else(|| port(&self.http)),
            "tlsPort": port(&self.https),
            "certificateValidityPeriod": self.wish.validity,
            "externalAccountBindingRequired": self.wish.eab.is_some(),
        });
        if let Some((id, key)) = self.wish.eab {
            config["externalAccountMACKeys"] = json!({ id: key });
        }
        let text = json!({ "pebble": config }).to_string();
        std::fs::write(self.scratch.path().join("pebble.json"), text).unwrap();
        let mut command = Command::new("pebble");
        command
            .args(["-strict", "-config", "pebble.json", "-dnsserver", &self.names_address()])
            .current_dir(self.scratch.path())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", self.wish.bad_nonces.to_string());
        let running = Program::spawn(command, None);
        let managed = || running.stdout().contains("Management interface listening");
        // Its own certificate: the port may be somebody else's by now.
        let tls = Tls::trusting(self.authority.roots());
        let open = || {
            managed()
                && std::net::TcpStream::connect(self.address).is_ok()
                && Client::try_tls(self.address, &tls).is_ok()
        };
        let listens = until("pebble", || {
            let open = open();
            (open || running.has_ended()).then_some(open)
        });
        self.running = listens.then_some(running);
        listens
    }

    fn names_address(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("names")).unwrap()
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where TXT records are set, by requests of pebble-challtestsrv.
    pub(crate) fn records(&self) -> SocketAddr {
        self.records
    }

    /// Who has signed the certificate of its own server.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// How many certificates it has issued since it was started.
    pub(crate) fn issued(&self) -> usize {
        self.running
            .as_ref()
            .map_or(0, |running| running.stdout().matches("Issued certificate serial").count())
    }

    /// A configuration of a program that is given the sockets for proofs: `<directory>` and `ca.pem` are this authority.
    pub(crate) fn setup(&self, yaml: &str) -> Setup {
        self.introduce(Setup::new(yaml)).socket("http", self.http()).socket("https", self.https())
    }

    /// A configuration that knows the authority: `<directory>` and `ca.pem`.
    pub(crate) fn introduce(&self, setup: Setup) -> Setup {
        setup.put("directory", self.directory()).file("ca.pem", &self.authority.pem)
    }

    /// URL of the directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The socket on which it looks for proofs of http-01.
    pub(crate) fn http(&self) -> TcpListener {
        self.http.try_clone().unwrap()
    }

    /// The socket on which it looks for proofs of tls-alpn-01.
    pub(crate) fn https(&self) -> TcpListener {
        self.https.try_clone().unwrap()
    }

    /// What a client trusts that trusts its certificates alone.
    pub(crate) fn roots(&self) -> RootCertStore {
        let tls = Tls::trusting(self.authority.roots());
        let path = Request::get("localhost", "/roots/0").close();
        let pem = Client::connect_tls(self.management, &tls).ask(&path);
        assert_eq!(pem.status, 200);
        roots_of(&pem.text())
    }
}

fn start_names(scratch: &Scratch) -> (Program, SocketAddr) {
    loop {
        let [dns, management] = free_ports();
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-dns01", &dns.to_string(), "-management", &management.to_string()]);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        let names = Program::spawn(command, None);
        let listens = within(Duration::from_secs(10), || {
            let open =
                std::net::TcpStream::connect(management).is_ok() && std::net::TcpStream::connect(dns).is_ok();
            (open || names.has_ended()).then_some(open)
        });
        if listens == Some(true) {
            std::fs::write(scratch.path().join("names"), dns.to_string()).unwrap();
            return (names, management);
        }
    }
}

/// Ports that nobody has at this moment.
fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let bound = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    bound.map(|listener| listener.local_addr().unwrap())
}
