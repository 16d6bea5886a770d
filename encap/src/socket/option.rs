//! Socket options and filters that have no safe wrapper elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One instruction of a classic BPF program.
pub(crate) fn instruction(code: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: if_true, jf: if_false, k }
}

/// Sets an option to a number.
pub(super) fn set_number(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(socket, level, name, &value.to_ne_bytes())
}

/// Sets an option to bytes.
pub(super) fn set_bytes(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes from `value`, which outlives the call.
    check(unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), len) })
}

/// Sets an option to a BPF program: `SO_ATTACH_FILTER`, `SO_ATTACH_REUSEPORT_CBPF` or `PACKET_FANOUT_DATA`.
pub(crate) fn set_program(
    socket: impl AsFd,
    level: i32,
    name: i32,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads the struct and the instructions it points to; both outlive the call.
    check(unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const program).cast(), len)
    })
}

/// Reads an option that is a plain array of N 32-bit numbers.
pub(super) fn numbers<const N: usize>(socket: impl AsFd, level: i32, name: i32) -> io::Result<[u32; N]> {
    let mut value = [0u32; N];
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`; both outlive the call.
    check(unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    })?;
    Ok(value)
}

/// Binds the socket to an interface: it sends and receives only there.
pub(super) fn bind_to_device(socket: impl AsFd, device: &str) -> io::Result<()> {
    set_bytes(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes())
}

/// Makes the socket take nothing.
pub(super) fn drop_everything(socket: impl AsFd) -> io::Result<()> {
    let mut program = [instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)];
    set_program(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &mut program)
}

/// Asks for a buffer of `bytes`: beyond the system's limit where permitted, else up to it.
pub(super) fn grow_buffer(socket: impl AsFd, forced: i32, plain: i32, bytes: i32) -> io::Result<()> {
    let socket = socket.as_fd();
    set_number(socket, libc::SOL_SOCKET, forced, bytes)
        .or_else(|_| set_number(socket, libc::SOL_SOCKET, plain, bytes))
}

/// Turns the return value of a system call into a result.
pub(super) fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
