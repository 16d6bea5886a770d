//! Questions for the addresses of a name, and their answers (RFC 1035, RFC 3596), as bytes.
//!
//! Reads no more of an answer than it needs. Whatever a server sends, time and memory are bounded: a name has at most 255
//! bytes, every pointer in it leads further to the front, and no more than [`MOST_ADDRESSES`] addresses are kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Most addresses of a name.
pub(super) const MOST_ADDRESSES: usize = 256;
/// Most aliases on the way to the addresses.
const MOST_ALIASES: usize = 16;
/// Most bytes of a name, with the lengths of its labels (RFC 1035 3.1).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;
const HEADER: usize = 12;
const INTERNET: u16 = 1;
const ALIAS: u16 = 5;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const fn code(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }

    fn address(self, data: &[u8]) -> Option<IpAddr> {
        Some(match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
        })
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// These addresses, maybe none, for so long.
    Addresses(Vec<IpAddr>, Duration),
    /// There is no such name.
    NoName,
    /// It cannot or will not say; the response code.
    Failed(u8),
    /// There is more than fits: ask over TCP.
    Truncated,
}

/// The question for the addresses of a name; `None` where it is no name.
pub(super) fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + name.len() + 6);
    out.extend(id.to_be_bytes());
    // Recursion desired; one question.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend(encode(name)?);
    out.extend(family.code().to_be_bytes());
    out.extend(INTERNET.to_be_bytes());
    Some(out)
}

/// A name as labels with their lengths.
fn encode(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=LONGEST_LABEL).contains(&usize::from(*length)))?;
        out.push(length);
        out.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    out.push(0);
    (out.len() <= LONGEST_NAME).then_some(out)
}

/// What `message` says to a question; `None` where it is no answer to that, and another one is to be waited for.
pub(super) fn reply(message: &[u8], question: &[u8], family: Family) -> Option<Reply> {
    let flags = number(message, 2)?;
    let is_response = flags & 0x8000 != 0;
    // Identifier, operation, and the question itself with its letters in either case.
    let asked = message.get(HEADER..question.len())?;
    if message.get(..2) != question.get(..2)
        || !is_response
        || flags & 0x7800 != 0
        || number(message, 4)? != 1
        || !asked.eq_ignore_ascii_case(question.get(HEADER..)?)
    {
        return None;
    }
    let truncated = flags & 0x0200 != 0;
    Some(match (flags & 0x000f) as u8 {
        _ if truncated => Reply::Truncated,
        0 => addresses(message, question.len(), family).unwrap_or(Reply::Failed(0)),
        3 => Reply::NoName,
        code => Reply::Failed(code),
    })
}

/// One record of an answer.
struct Record<'a> {
    owner: Vec<u8>,
    kind: u16,
    ttl: u32,
    data: &'a [u8],
    /// Where the data are in the message.
    at: usize,
}

/// Follows the aliases from the name in question to its addresses.
fn addresses(message: &[u8], start: usize, family: Family) -> Option<Reply> {
    let mut records = Vec::new();
    let mut position = start;
    for _ in 0..number(message, 6)? {
        let record = record(message, &mut position)?;
        if records.len() < MOST_ADDRESSES + MOST_ALIASES {
            records.push(record);
        }
    }
    let mut owner = name(message, &mut HEADER.clone())?;
    let mut ttl = u32::MAX;
    for _ in 0..=MOST_ALIASES {
        let of_owner = || records.iter().filter(|record| record.owner == owner);
        let mut found = Vec::new();
        for record in of_owner().filter(|record| record.kind == family.code()) {
            ttl = ttl.min(record.ttl);
            found.push(family.address(record.data)?);
        }
        found.truncate(MOST_ADDRESSES);
        let alias = of_owner().find(|record| record.kind == ALIAS);
        match alias {
            Some(alias) if found.is_empty() => {
                ttl = ttl.min(alias.ttl);
                owner = name(message, &mut alias.at.clone())?;
            }
            _ if found.is_empty() => return Some(Reply::Addresses(found, Duration::ZERO)),
            _ => return Some(Reply::Addresses(found, Duration::from_secs(ttl.into()))),
        }
    }
    None
}

fn record<'a>(message: &'a [u8], position: &mut usize) -> Option<Record<'a>> {
    let owner = name(message, position)?;
    let fixed = *position;
    let kind = number(message, fixed)?;
    let class = number(message, fixed + 2)?;
    let ttl = u32::from(number(message, fixed + 4)?) << 16 | u32::from(number(message, fixed + 6)?);
    let length = usize::from(number(message, fixed + 8)?);
    let at = fixed + 10;
    let data = message.get(at..at + length)?;
    *position = at + length;
    // Of another class it is nothing that was asked for; a time with its highest bit set is none (RFC 2181 8).
    let kind = if class == INTERNET { kind } else { 0 };
    Some(Record { owner, kind, ttl: if ttl >> 31 == 0 { ttl } else { 0 }, data, at })
}

/// The name at `position`, in lower case and without pointers; `position` is behind it then.
fn name(message: &[u8], position: &mut usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = *position;
    // Where the present piece began: a pointer leads before that.
    let mut piece = at;
    let mut followed = false;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => {
                out.push(0);
                if !followed {
                    *position = at + 1;
                }
                return (out.len() <= LONGEST_NAME).then_some(out);
            }
            1..=63 => {
                let end = at + 1 + usize::from(length);
                out.push(length);
                out.extend(message.get(at + 1..end)?.iter().map(u8::to_ascii_lowercase));
                at = end;
            }
            0xc0.. => {
                let target = usize::from(number(message, at)? & 0x3fff);
                if !followed {
                    *position = at + 2;
                }
                if target >= piece {
                    return None;
                }
                (followed, at, piece) = (true, target, target);
            }
            64..=0xbf => return None,
        }
        if out.len() > LONGEST_NAME {
            return None;
        }
    }
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer to a question, with these records: owner, kind, time, data.
    fn answer(question: &[u8], flags: u16, records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = question.to_vec();
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (owner, kind, ttl, data) in records {
            out.extend(*owner);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1]);
            out.extend(ttl.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(*data);
        }
        out
    }

    const OWN: &[u8] = &[0xc0, 12];

    fn asked() -> Vec<u8> {
        question(7, "Web.Internal", Family::V4).unwrap()
    }

    #[test]
    fn a_question_is_what_the_rfc_says() {
        let expected = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03web\x08internal\0\0\x01\0\x01";
        assert_eq!(asked(), expected);
        assert_eq!(question(7, "web.internal.", Family::V4).unwrap(), expected);
        assert!(question(7, &format!("{}.test", "a".repeat(64)), Family::V4).is_none());
        assert!(question(7, &"a.".repeat(128), Family::V6).is_none());
        assert!(question(7, "a..b", Family::V6).is_none() && question(7, "", Family::V6).is_none());
    }

    #[test]
    fn addresses_with_the_shortest_time() {
        let records: [(&[u8], u16, u32, &[u8]); 4] = [
            (OWN, 1, 60, &[10, 0, 0, 1]),
            (b"\x03WEB\x08internal\0", 1, 30, &[10, 0, 0, 2]),
            (b"\x05other\0", 1, 1, &[10, 9, 9, 9]),
            (OWN, 16, 1, b"\x03txt"),
        ];
        let got = reply(&answer(&asked(), 0x8180, &records), &asked(), Family::V4);
        let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from).to_vec();
        assert_eq!(got, Some(Reply::Addresses(addresses, Duration::from_secs(30))));
    }

    #[test]
    fn aliases_are_followed_and_loops_are_not() {
        let alias: (&[u8], u16, u32, &[u8]) = (OWN, 5, 20, b"\x03lb1\xc0\x10");
        let address: (&[u8], u16, u32, &[u8]) = (b"\x03lb1\xc0\x10", 1, 60, &[10, 0, 0, 1]);
        let got = reply(&answer(&asked(), 0x8180, &[address, alias]), &asked(), Family::V4);
        let addresses = vec![IpAddr::from([10, 0, 0, 1])];
        assert_eq!(got, Some(Reply::Addresses(addresses, Duration::from_secs(20))));
        // An alias that leads nowhere, and one to itself.
        let got = reply(&answer(&asked(), 0x8180, &[alias]), &asked(), Family::V4);
        assert_eq!(got, Some(Reply::Addresses(Vec::new(), Duration::ZERO)));
        let itself: (&[u8], u16, u32, &[u8]) = (OWN, 5, 20, OWN);
        assert_eq!(reply(&answer(&asked(), 0x8180, &[itself]), &asked(), Family::V4), Some(Reply::Failed(0)));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_none() {
        let good = answer(&asked(), 0x8180, &[]);
        assert!(reply(&good, &asked(), Family::V4).is_some());
        for (at, byte) in [(0, 9), (2, 0x01), (2, 0x91), (5, 2), (13, b'x'), (good.len() - 3, 28)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(reply(&other, &asked(), Family::V4), None, "byte {at}");
        }
        assert_eq!(reply(&good[..20], &asked(), Family::V4), None);
    }

    #[test]
    fn what_servers_say_otherwise() {
        let of = |flags| reply(&answer(&asked(), flags, &[]), &asked(), Family::V4).unwrap();
        assert_eq!(of(0x8180), Reply::Addresses(Vec::new(), Duration::ZERO));
        assert_eq!(of(0x8183), Reply::NoName);
        assert_eq!(of(0x8182), Reply::Failed(2));
        assert_eq!(of(0x8380), Reply::Truncated);
        // Wrong lengths inside.
        let short: (&[u8], u16, u32, &[u8]) = (OWN, 1, 60, &[10, 0, 0]);
        let got = reply(&answer(&asked(), 0x8180, &[short]), &asked(), Family::V4);
        assert_eq!(got, Some(Reply::Failed(0)));
    }

    proptest! {
        /// Neither panics nor runs long, whatever comes behind a right beginning.
        #[test]
        fn nothing_a_server_sends_does_harm(rest in prop::collection::vec(any::<u8>(), 0..600), count in any::<u16>()) {
            let mut message = answer(&asked(), 0x8180, &[]);
            message[6..8].copy_from_slice(&count.to_be_bytes());
            message.extend(rest);
            let _ = reply(&message, &asked(), Family::V4);
        }

        #[test]
        fn pointers_lead_to_the_front_only(bytes in prop::collection::vec(prop_oneof![Just(0xc0u8), 0u8..40], 0..64)) {
            for start in 0..bytes.len() {
                let _ = name(&bytes, &mut start.clone());
            }
        }
    }
}
