//! Asks servers for the addresses of a name: over UDP, and over TCP where an answer does not fit (RFC 7766).
//!
//! Each question goes out from a port of its own with a random identifier, and only an answer from the server that was
//! asked, to that question, counts (RFC 5452).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Family, Reply, question, reply};
use super::system::{System, hosts};

/// Longest wait for one server.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ROUNDS: usize = 2;
/// How long what a file says is believed.
const FILE_TTL: Duration = Duration::from_secs(30);
/// Largest answer over UDP without an extension, and some room.
const DATAGRAM: usize = 1500;

/// What was found out about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its addresses; `None` where no server could say.
    pub(super) v4: Option<Vec<IpAddr>>,
    pub(super) v6: Option<Vec<IpAddr>>,
    /// How long that holds.
    pub(super) ttl: Duration,
}

/// The addresses of a name: from these servers, or, if there are none, from what the system is configured for.
///
/// # Errors
/// Where nothing at all was found, with the reason.
pub(super) async fn lookup(servers: &[SocketAddr], name: &str) -> Result<Found, String> {
    let system = match servers {
        [] => {
            // Small local files that change: read anew each time, as the C library does.
            let known = hosts(&read("/etc/hosts"), name);
            if !known.is_empty() {
                let (v4, v6) = known.into_iter().partition(IpAddr::is_ipv4);
                return Ok(Found { v4: Some(v4), v6: Some(v6), ttl: FILE_TTL });
            }
            System::parse(&read("/etc/resolv.conf"))
        }
        servers => System::of(servers),
    };
    for name in system.names(name) {
        let (v4, v6) = tokio::join!(ask(&system, &name, Family::V4), ask(&system, &name, Family::V6));
        if let Some(found) = together(v4, v6)? {
            return Ok(found);
        }
    }
    Err("there is no address of that name".into())
}

/// What is known of one family: the addresses and how long that holds, or that there is no such name, or why nobody could
/// say.
type Answer = Result<Option<(Vec<IpAddr>, Duration)>, String>;

/// Both families together; nothing where there is no address of that name.
fn together(v4: Answer, v6: Answer) -> Result<Option<Found>, String> {
    let ttls = [&v4, &v6].into_iter().filter_map(|answer| match answer {
        Ok(Some((addresses, ttl))) if !addresses.is_empty() => Some(*ttl),
        _ => None,
    });
    let addresses = |answer: Answer| Some(answer.ok()?.map(|(addresses, _)| addresses).unwrap_or_default());
    match (ttls.min(), v4, v6) {
        (Some(ttl), v4, v6) => Ok(Some(Found { v4: addresses(v4), v6: addresses(v6), ttl })),
        // A name that does not exist has no address of either family.
        (None, Ok(None), _) | (None, _, Ok(None)) => Ok(None),
        (None, Err(failure), _) | (None, _, Err(failure)) => Err(failure),
        (None, Ok(Some(_)), Ok(Some(_))) => Ok(None),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

async fn ask(system: &System, name: &str, family: Family) -> Answer {
    let mut failure = String::new();
    for _ in 0..ROUNDS {
        for server in &system.servers {
            failure = match timeout(PATIENCE, ask_one(*server, name, family)).await {
                Ok(Ok(Reply::Addresses(addresses, ttl))) => return Ok(Some((addresses, ttl))),
                Ok(Ok(Reply::NoName)) => return Ok(None),
                Ok(Ok(Reply::Truncated)) => format!("{server} answers in pieces"),
                Ok(Ok(Reply::Failed(code))) => format!("{server} answers with code {code}"),
                Ok(Err(error)) => format!("{server}: {error}"),
                Err(_) => format!("{server} does not answer"),
            };
        }
    }
    Err(failure)
}

async fn ask_one(server: SocketAddr, name: &str, family: Family) -> io::Result<Reply> {
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    let question = question(u16::from_be_bytes(id), name, family)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name is too long"))?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = [0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match reply(buffer.get(..length).unwrap_or_default(), &question, family) {
            None => {}
            Some(Reply::Truncated) => return ask_at_length(server, &question, family).await,
            Some(reply) => return Ok(reply),
        }
    }
}

/// The same over TCP.
async fn ask_at_length(server: SocketAddr, question: &[u8], family: Family) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    // A question has less than 300 bytes.
    let length = question.len() as u16;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    reply(&message, question, family).ok_or_else(|| io::Error::other("the answer is to another question"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_put_together() {
        let second = Duration::from_secs;
        let some = |text: &str, ttl| Ok(Some((vec![text.parse().unwrap()], second(ttl))));
        let none = || Ok(Some((Vec::new(), second(0))));
        let failed = || Err("silent".to_owned());
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        let found = |v4: Option<&[&str]>, v6: Option<&[&str]>, ttl| {
            let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            Ok(Some(Found { v4: v4.map(all), v6: v6.map(all), ttl: second(ttl) }))
        };
        let table: [(Answer, Answer, Result<Option<Found>, String>); 9] = [
            (some(v4, 9), some(v6, 5), found(Some(&[v4]), Some(&[v6]), 5)),
            (some(v4, 9), none(), found(Some(&[v4]), Some(&[]), 9)),
            (none(), some(v6, 5), found(Some(&[]), Some(&[v6]), 5)),
            (some(v4, 9), failed(), found(Some(&[v4]), None, 9)),
            (some(v4, 9), Ok(None), found(Some(&[v4]), Some(&[]), 9)),
            (none(), none(), Ok(None)),
            (Ok(None), failed(), Ok(None)),
            (failed(), none(), Err("silent".to_owned())),
            (failed(), failed(), Err("silent".to_owned())),
        ];
        for (v4, v6, expected) in table {
            assert_eq!(together(v4.clone(), v6.clone()), expected, "{v4:?} {v6:?}");
        }
    }
}
