//! A group of UDP sockets on one port, among which the kernel chooses by a number in the datagram (SO_REUSEPORT with a
//! classic BPF program). Needs no privilege.

use std::io;
use std::os::fd::AsFd;

use libc::{BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MOD, BPF_RET};

use crate::socket::{instruction, set_program};

/// Return what is in A.
const RETURN_A: u32 = BPF_RET | libc::BPF_A;

/// Where the number is found in a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Steering {
    /// Offset of its two bytes where the highest bit of the first byte is set.
    pub long: u32,
    /// Offset where it is not.
    pub short: u32,
}

/// Makes the kernel give a datagram to the socket whose place in the group, in the order in which they were bound, is the
/// number modulo `count`. A datagram that is too short for that goes to the first. Any socket of the group will do.
///
/// # Errors
/// Where the socket is in no group, or the kernel is older than 4.5.
pub fn steer(socket: impl AsFd, count: u32, steering: Steering) -> io::Result<()> {
    // Offsets are those of the payload.
    let mut program = [
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0),
        instruction(BPF_JMP | BPF_JSET | BPF_K, 0x80, 0, 2),
        instruction(BPF_LD | BPF_H | BPF_ABS, steering.long, 0, 0),
        instruction(BPF_JMP | libc::BPF_JA, 1, 0, 0),
        instruction(BPF_LD | BPF_H | BPF_ABS, steering.short, 0, 0),
        instruction(BPF_ALU | BPF_MOD | BPF_K, count.max(1), 0, 0),
        instruction(RETURN_A, 0, 0, 0),
    ];
    set_program(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &mut program)
}
