//! Netfilter tables of nf_tables that drop packets before the kernel routes them, or give them to another interface. A table
//! belongs to its socket: the kernel removes it when that is closed, however its owner ends (`NFT_TABLE_F_OWNER`, since
//! Linux 5.12).

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, Protocol, RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt,
};

use super::message::{self, Message};
use super::{NetlinkError, PATIENCE, Result};

/// linux/netlink.h.
const NETLINK_NETFILTER: u32 = 12;
// linux/netfilter/nfnetlink.h: the messages around a transaction, and the number of nf_tables.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
// linux/netfilter/nf_tables.h: messages, then attributes and numbers in the order of their use below.
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const TABLE_FLAG_OWNER: u32 = 2;
const BASE_NETWORK_HEADER: u32 = 1;
const META_INPUT_INTERFACE: u32 = 4;
const META_INPUT_GROUP: u32 = 21;
const FIB_TYPE_OF_ADDRESS: u32 = 3;
const FIB_OF_SOURCE: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// linux/netfilter.h.
const HOOK_PREROUTING: u32 = 0;
const HOOK_INGRESS: u32 = 0;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;
/// Before connection tracking and its defragmentation (-400), which need not see the packets either.
const PRIORITY: i32 = -450;
/// Of what arrives most, so that it passes no other table before it is dropped.
const FIRST_PRIORITY: i32 = PRIORITY - 1;
/// linux/netfilter.h: the families by their protocol.
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
/// All packets of one interface.
const FAMILY_NETDEV: u8 = 5;
const CHAIN: &str = "packets";

/// Makes a table `name` that drops packets of any of `protocols` to `local` that arrive on interface number `device`,
/// for as long as the socket it returns is open. A packet socket only gets copies: the packets themselves go on to the
/// kernel's IP layer, which looks up a route for each and finds that nobody wants it. Dropped they cost less, and a
/// module of the kernel that speaks GRE itself sees none of them. Nothing is lost by it that no counter shows: what the packet
/// socket had no room for it counts itself. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// When the kernel has no nf_tables, or refuses a part of it.
pub fn drop_before_routing(name: &str, device: u32, local: IpAddr, protocols: &[u8]) -> Result<OwnedFd> {
    let (family, protocol_at, address_at, address) = match local {
        IpAddr::V4(local) => (FAMILY_IPV4, 9, 16, local.octets().to_vec()),
        IpAddr::V6(local) => (FAMILY_IPV6, 6, 24, local.octets().to_vec()),
    };
    let rules = protocols.iter().map(|protocol| {
        rule(family, name, |list| {
            meta(list, META_INPUT_INTERFACE);
            equals(list, &device.to_ne_bytes());
            load(list, protocol_at, 1);
            equals(list, &[*protocol]);
            load(list, address_at, address.len() as u32);
            equals(list, &address);
            drop_it(list);
        })
    });
    make_table(family, name, &Hook::before_routing(FIRST_PRIORITY), rules)
}

/// Makes a table `name` that drops what arrives over IPv4 on a device of `group` and claims to come from an address of
/// this host, for as long as the socket it returns is open. The kernel itself finds that out by a walk through all
/// routing rules; the table looks only where the own addresses are. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// When the kernel has no nf_tables, or refuses a part of it.
pub fn drop_own_sources(name: &str, group: u32) -> Result<OwnedFd> {
    let rule = rule(FAMILY_IPV4, name, |list| {
        meta(list, META_INPUT_GROUP);
        equals(list, &group.to_ne_bytes());
        expression(list, "fib", |data| {
            data.attribute_number(1, REGISTER)
                .attribute_number(2, FIB_TYPE_OF_ADDRESS)
                .attribute_number(3, FIB_OF_SOURCE);
        });
        equals(list, &u32::from(libc::RTN_LOCAL).to_ne_bytes());
        drop_it(list);
    });
    make_table(FAMILY_IPV4, name, &Hook::before_routing(PRIORITY), [rule])
}

/// Makes a table `name` that gives every frame that arrives on the interface `from` to interface number `to`, which
/// sends it as it is, for as long as the socket it returns is open. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// When the kernel has no nf_tables for interfaces, or refuses a part of it.
pub fn hand_on(name: &str, from: &str, to: u32) -> Result<OwnedFd> {
    let rule = rule(FAMILY_NETDEV, name, |list| {
        expression(list, "immediate", |data| {
            data.attribute_number(1, REGISTER);
            data.nest(2 | NESTED, |value| {
                value.attribute(1, &to.to_ne_bytes());
            });
        });
        expression(list, "fwd", |data| {
            data.attribute_number(1, REGISTER);
        });
    });
    make_table(FAMILY_NETDEV, name, &Hook { number: HOOK_INGRESS, priority: 0, device: Some(from) }, [rule])
}

/// Where a chain meets packets.
struct Hook<'a> {
    number: u32,
    priority: i32,
    /// The interface, for a table of one.
    device: Option<&'a str>,
}

impl Hook<'static> {
    fn before_routing(priority: i32) -> Self {
        Self { number: HOOK_PREROUTING, priority, device: None }
    }
}

/// Makes a table with one chain.
fn make_table(
    family: u8,
    name: &str,
    hook: &Hook<'_>,
    rules: impl IntoIterator<Item = Message>,
) -> Result<OwnedFd> {
    let attempt = "make a netfilter table";
    let protocol = RawProtocol::new(NETLINK_NETFILTER).map(Protocol::from_raw);
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
        .map_err(|error| NetlinkError::new(attempt, error))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))
        .map_err(|error| NetlinkError::new(attempt, error))?;
    let mut messages = vec![boundary(BATCH_BEGIN), table(family, name), chain(family, name, hook)];
    messages.extend(rules);
    messages.push(boundary(BATCH_END));
    let mut bytes = Vec::new();
    for (sequence, message) in (1..).zip(&mut messages) {
        bytes.extend_from_slice(message.finish(sequence));
    }
    rustix::net::send(&socket, &bytes, SendFlags::empty())
        .map_err(|error| NetlinkError::new(attempt, error))?;
    // Every message between the boundaries is acknowledged; the first refusal undoes all.
    let mut waiting = messages.len() - 2;
    let mut buffer = [0; 4096];
    while waiting > 0 {
        let (len, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
            .map_err(|error| NetlinkError::new(attempt, error))?;
        let datagram = buffer.get(..len).ok_or_else(|| NetlinkError::malformed(attempt))?;
        for answer in message::answers(datagram) {
            super::finish(attempt, answer)?;
            waiting = waiting.saturating_sub(1);
        }
    }
    Ok(socket)
}

/// The header of nf_tables: family, version, resource number in network byte order.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [r0, r1] = resource.to_be_bytes();
    [family, 0, r0, r1]
}

fn boundary(kind: u16) -> Message {
    Message::new(kind, libc::NLM_F_REQUEST, &header(0, SUBSYSTEM))
}

fn make(kind: u16, family: u8) -> Message {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_ACK;
    Message::new(SUBSYSTEM << 8 | kind, flags, &header(family, 0))
}

fn table(family: u8, name: &str) -> Message {
    let mut message = make(NEW_TABLE, family);
    message.attribute_string(1, name).attribute_number(2, TABLE_FLAG_OWNER);
    message
}

fn chain(family: u8, table: &str, hook: &Hook<'_>) -> Message {
    let mut message = make(NEW_CHAIN, family);
    message.attribute_string(1, table).attribute_string(3, CHAIN);
    message.nest(4 | NESTED, |place| {
        place.attribute_number(1, hook.number).attribute(2, &hook.priority.to_be_bytes());
        if let Some(device) = hook.device {
            place.attribute_string(3, device);
        }
    });
    message.attribute_number(5, ACCEPT).attribute_string(7, "filter");
    message
}

/// A rule with the expressions that `fill` writes.
fn rule(family: u8, table: &str, fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = make(NEW_RULE, family);
    message.attribute_string(1, table).attribute_string(2, CHAIN);
    message.nest(4 | NESTED, fill);
    message
}

/// `NLA_F_NESTED`, which nf_tables insists on.
const NESTED: u16 = 1 << 15;

fn expression(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(1 | NESTED, |element| {
        element.attribute_string(1, name).nest(2 | NESTED, fill);
    });
}

/// Drops what has got through the comparisons.
fn drop_it(list: &mut Message) {
    expression(list, "immediate", |data| {
        data.attribute_number(1, REGISTER_VERDICT);
        data.nest(2 | NESTED, |value| {
            value.nest(2 | NESTED, |verdict| {
                verdict.attribute_number(1, DROP);
            });
        });
    });
}

/// Loads what the kernel knows of a packet.
fn meta(list: &mut Message, what: u32) {
    expression(list, "meta", |data| {
        data.attribute_number(1, REGISTER).attribute_number(2, what);
    });
}

/// Loads `len` bytes at `offset` of the IP header.
fn load(list: &mut Message, offset: u32, len: u32) {
    expression(list, "payload", |data| {
        data.attribute_number(1, REGISTER)
            .attribute_number(2, BASE_NETWORK_HEADER)
            .attribute_number(3, offset)
            .attribute_number(4, len);
    });
}

/// Goes on only where the register has this value.
fn equals(list: &mut Message, value: &[u8]) {
    expression(list, "cmp", |data| {
        // The operator "equal" is 0.
        data.attribute_number(1, REGISTER).attribute_number(2, 0);
        data.nest(3 | NESTED, |holder| {
            holder.attribute(1, value);
        });
    });
}

impl Message {
    /// Appends a 32-bit attribute in network byte order, as nf_tables has them.
    fn attribute_number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }
}
