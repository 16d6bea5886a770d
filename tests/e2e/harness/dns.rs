//! A DNS server that says what a case tells it, over UDP and TCP.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server says about a name.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// That it has another name.
    Alias(&'static str, u32),
    /// A code: 2 has failed, 3 knows no such name.
    Code(u8),
    /// Nothing.
    Nothing,
}

/// The server; gone when dropped.
pub(crate) struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    names: Mutex<HashMap<String, Say>>,
    /// Over UDP, answers are cut off, and each comes behind forged ones.
    hostile: AtomicBool,
    over_tcp: AtomicUsize,
    asked: AtomicUsize,
    gone: AtomicBool,
}

impl Dns {
    /// A server on a port of its own that knows no name.
    pub(crate) fn new() -> Self {
        // One port for both, so TCP is bound first, and again until UDP is free as well.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        std::thread::spawn(move || theirs.serve_udp(&udp));
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || theirs.serve_tcp(&tcp));
        Self { address, shared }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it says about a name from now on.
    pub(crate) fn say(&self, name: &str, say: Say) {
        self.shared.names.lock().unwrap().insert(name.to_owned(), say);
    }

    /// That a name has these addresses, for a second.
    pub(crate) fn addresses(&self, name: &str, addresses: &[&str]) {
        self.say(name, Say::Addresses(addresses.iter().map(|ip| ip.parse().unwrap()).collect(), 1));
    }

    /// From now on answers over UDP are cut off and come behind forged ones.
    pub(crate) fn be_hostile(&self) {
        self.shared.hostile.store(true, Ordering::SeqCst);
    }

    /// Questions so far, and those over TCP.
    pub(crate) fn asked(&self) -> (usize, usize) {
        (self.shared.asked.load(Ordering::SeqCst), self.shared.over_tcp.load(Ordering::SeqCst))
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = std::net::TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve_udp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 512];
        while !self.gone.load(Ordering::SeqCst) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let Some(mut answer) = self.answer(&buffer[..length]) else { continue };
            if self.hostile.load(Ordering::SeqCst) {
                let mut forged = answer.clone();
                forged[0] ^= 1;
                socket.send_to(&forged, from).unwrap();
                socket.send_to(&[0xff; 40], from).unwrap();
                answer[2] |= 2;
                answer.truncate(length);
            }
            socket.send_to(&answer, from).unwrap();
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.gone.load(Ordering::SeqCst) {
                return;
            }
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut question).unwrap();
            self.over_tcp.fetch_add(1, Ordering::SeqCst);
            if let Some(answer) = self.answer(&question) {
                stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut out = question.to_vec();
        let name = name_of(&question[12..]);
        let wants_v6 = question[question.len() - 3] == 28;
        // An alias and what it stands for are in one answer.
        let mut owner = vec![0xc0, 12];
        let mut asked = name;
        let mut count = 0;
        let code = loop {
            match self.names.lock().unwrap().get(&asked).cloned().unwrap_or(Say::Code(3)) {
                Say::Nothing => return None,
                Say::Code(code) => break code,
                Say::Alias(other, ttl) => {
                    let target: Vec<u8> = labels(other);
                    record(&mut out, &owner, 5, ttl, &target);
                    count += 1;
                    (owner, asked) = (target, other.to_owned());
                }
                Say::Addresses(addresses, ttl) => {
                    for address in addresses.iter().filter(|ip| ip.is_ipv6() == wants_v6) {
                        match address {
                            IpAddr::V4(ip) => record(&mut out, &owner, 1, ttl, &ip.octets()),
                            IpAddr::V6(ip) => record(&mut out, &owner, 28, ttl, &ip.octets()),
                        }
                        count += 1;
                    }
                    break 0;
                }
            }
        };
        out[2..4].copy_from_slice(&[0x81, 0x80 | code]);
        out[6..8].copy_from_slice(&u16::to_be_bytes(count));
        Some(out)
    }
}

fn name_of(mut bytes: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some((&length, rest)) = bytes.split_first().filter(|(length, _)| **length > 0) {
        let (label, behind) = rest.split_at(length.into());
        parts.push(String::from_utf8_lossy(label).into_owned());
        bytes = behind;
    }
    parts.join(".")
}

fn labels(name: &str) -> Vec<u8> {
    let parts = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    parts.chain([0]).collect()
}

fn record(out: &mut Vec<u8>, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) {
    out.extend(owner);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}
