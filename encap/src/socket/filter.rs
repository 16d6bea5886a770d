//! The kernel's part in receiving: which packets are taken at all, and which socket gets them (classic BPF).
//!
//! The filter finds things at fixed places of the frame, which costs the least; what shares packets out is run before the
//! link header is there, and counts from the network header. Jumps only skip the next one or few instructions, so that
//! there are no labels to keep in order.

use std::net::IpAddr;

use super::carrier::{Carrier, GRE_IN_UDP_PORT};
use super::option::instruction;

/// Offset of the network header (`SKF_NET_OFF` in linux/filter.h).
const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
/// Where the kind of a packet is found (`SKF_AD_OFF + SKF_AD_PKTTYPE`).
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
/// Behind X bytes.
const LOAD_HALF_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_WORD_BEHIND: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_IF_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;

const IPV6_HEADER_LEN: u32 = 40;
const UDP_HEADER_LEN: u32 = 8;
const DESTINATION_OPTIONS: u32 = 60;
/// The destination options that Linux puts in front of what it tunnels: an encapsulation limit (RFC 2473 section
/// 4.1.1) and padding.
const LIMIT_OPTION_LEN: u32 = 8;

type Program = Vec<libc::sock_filter>;

/// Takes what these carriers bring to `local`, addressed to this host on the link, whose header has so many bytes. An IPv6 packet in fragments or with
/// more extension headers than an encapsulation limit is not taken.
pub(super) fn take(local: IpAddr, carriers: &[Carrier], link_header: usize) -> Program {
    let mut program = Program::new();
    // At most 14.
    let ip_at = link_header as u32;
    program.push(instruction(LOAD_WORD, PACKET_TYPE, 0, 0));
    drop_unless(&mut program, u32::from(libc::PACKET_HOST));
    let octets = match local {
        IpAddr::V4(local) => local.octets().to_vec(),
        IpAddr::V6(local) => local.octets().to_vec(),
    };
    let destination_at = if local.is_ipv4() { 16 } else { 24 };
    for (at, word) in (destination_at..).step_by(4).zip(octets.as_chunks::<4>().0) {
        program.push(instruction(LOAD_WORD, ip_at + at, 0, 0));
        drop_unless(&mut program, u32::from_be_bytes(*word));
    }
    load_protocol(&mut program, local, ip_at);
    for carrier in carriers.iter().filter(|carrier| **carrier != Carrier::GreInUdp) {
        program.push(instruction(JUMP_IF_EQUAL, carrier.protocol().into(), 0, 1));
        program.push(instruction(RETURN, u32::MAX, 0, 0));
    }
    if carriers.contains(&Carrier::GreInUdp) {
        drop_unless(&mut program, Carrier::GreInUdp.protocol().into());
        program.push(instruction(LOAD_HALF_BEHIND, ip_at + 2, 0, 0));
        drop_unless(&mut program, GRE_IN_UDP_PORT.into());
        program.push(instruction(RETURN, u32::MAX, 0, 0));
    }
    program.push(instruction(RETURN, 0, 0, 0));
    program
}

/// Returns the GRE key (RFC 2890, section 2), which stands behind the checksum when there is one; 0 without. GRE may
/// stand in UDP.
pub(super) fn steer(local: IpAddr) -> Program {
    use libc::{BPF_ADD, BPF_ALU, BPF_K, BPF_MISC, BPF_TAX, BPF_TXA};
    let mut program = Program::new();
    load_protocol(&mut program, local, NETWORK_HEADER);
    let behind_udp = [
        instruction(BPF_MISC | BPF_TXA, 0, 0, 0),
        instruction(BPF_ALU | BPF_ADD | BPF_K, UDP_HEADER_LEN, 0, 0),
        instruction(BPF_MISC | BPF_TAX, 0, 0, 0),
    ];
    program.push(instruction(JUMP_IF_EQUAL, Carrier::Gre.protocol().into(), 2 + behind_udp.len() as u8, 0));
    program.push(instruction(JUMP_IF_EQUAL, Carrier::GreInUdp.protocol().into(), 1, 0));
    program.push(instruction(RETURN, 0, 0, 0));
    program.extend(behind_udp);
    program.extend([
        instruction(LOAD_HALF_BEHIND, network(0), 0, 0),
        instruction(JUMP_IF_BIT, 0x2000, 1, 0),
        instruction(RETURN, 0, 0, 0),
        instruction(JUMP_IF_BIT, 0x8000, 0, 2),
        instruction(LOAD_WORD_BEHIND, network(8), 0, 0),
        instruction(RETURN_A, 0, 0, 0),
        instruction(LOAD_WORD_BEHIND, network(4), 0, 0),
        instruction(RETURN_A, 0, 0, 0),
    ]);
    program
}

/// A = protocol behind the outer IP headers, X = their length.
fn load_protocol(program: &mut Program, local: IpAddr, ip_at: u32) {
    let network = |offset| ip_at.wrapping_add(offset);
    use libc::{BPF_B, BPF_IMM, BPF_LDX, BPF_MSH};
    if local.is_ipv4() {
        program.push(instruction(BPF_LDX | BPF_B | BPF_MSH, ip_at, 0, 0));
        program.push(instruction(LOAD_BYTE, network(9), 0, 0));
        return;
    }
    let options = [
        // Its length in units of 8 bytes, less the first.
        instruction(LOAD_BYTE, network(IPV6_HEADER_LEN + 1), 0, 0),
        instruction(JUMP_IF_EQUAL, 0, 1, 0),
        instruction(RETURN, 0, 0, 0),
        instruction(BPF_LDX | BPF_IMM, IPV6_HEADER_LEN + LIMIT_OPTION_LEN, 0, 0),
        instruction(LOAD_BYTE, network(IPV6_HEADER_LEN), 0, 0),
    ];
    program.push(instruction(BPF_LDX | BPF_IMM, IPV6_HEADER_LEN, 0, 0));
    program.push(instruction(LOAD_BYTE, network(6), 0, 0));
    program.push(instruction(JUMP_IF_EQUAL, DESTINATION_OPTIONS, 0, options.len() as u8));
    program.extend(options);
}

/// Goes on only with this value in A.
fn drop_unless(program: &mut Program, value: u32) {
    program.push(instruction(JUMP_IF_EQUAL, value, 1, 0));
    program.push(instruction(RETURN, 0, 0, 0));
}

/// The place so many bytes behind the start of the network header.
fn network(offset: u32) -> u32 {
    NETWORK_HEADER.wrapping_add(offset)
}
