//! What a network driver says of its interface (`SIOCETHTOOL`, linux/ethtool.h).

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_COUNTS: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
/// The names of the features are this set of strings.
const FEATURE_NAMES: u32 = 4;
const NAME_BYTES: usize = 32;
/// Words of `ethtool_drvinfo`.
const DRIVER_WORDS: usize = 49;
/// Words that tell of 32 features: available, requested, active, never changed.
const BLOCK_WORDS: usize = 4;
const ACTIVE: usize = 2;
/// The kernel has some 70 features.
const MOST_FEATURES: usize = 1024;

/// The name of the driver of an interface, as `ethtool -i` shows it.
///
/// # Errors
/// `ENODEV` without such an interface, `EOPNOTSUPP` when its driver does not tell.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut words = [0; DRIVER_WORDS];
    words[0] = GET_DRIVER;
    ask(interface, &mut words)?;
    let bytes: Vec<_> = words.iter().skip(1).flat_map(|word| word.to_ne_bytes()).take(NAME_BYTES).collect();
    Ok(name(&bytes).into_owned())
}

/// Whether a feature of an interface is on, by the name that `ethtool -k` shows. One that the kernel does not know is off.
///
/// # Errors
/// As [`driver`].
pub fn is_on(interface: &str, feature: &str) -> io::Result<bool> {
    let mut counts = [GET_COUNTS, 0, 1 << FEATURE_NAMES, 0, 0];
    ask(interface, &mut counts)?;
    let count = counts[4] as usize;
    if count > MOST_FEATURES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut names = vec![0; 3 + count * NAME_BYTES / 4];
    names.splice(..2, [GET_STRINGS, FEATURE_NAMES]);
    ask(interface, &mut names)?;
    let bytes: Vec<_> = names.iter().skip(3).flat_map(|word| word.to_ne_bytes()).collect();
    let Some(number) = bytes.chunks_exact(NAME_BYTES).position(|bytes| name(bytes) == feature) else {
        return Ok(false);
    };
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + blocks * BLOCK_WORDS];
    features.splice(..2, [GET_FEATURES, blocks as u32]);
    ask(interface, &mut features)?;
    let active = features.get(2 + number / 32 * BLOCK_WORDS + ACTIVE).copied().unwrap_or(0);
    Ok(active & 1 << (number % 32) != 0)
}

/// Sends a command, its number in the first word; the answer takes its place.
fn ask(interface: &str, words: &mut [u32]) -> io::Result<()> {
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an ifreq is plain numbers and bytes, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the kernel reads the ifreq and writes an answer to `words`, which both outlive the call. It writes no more
    // than the command says: 49 words for the driver, one number for one set of strings, as many strings and as many
    // blocks of features as it has said before; their number is fixed when the kernel is built.
    let returned = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn name(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface() {
        assert!(is_on("lo", "loopback").unwrap() && !is_on("lo", "rx-fcs").unwrap());
        assert!(!is_on("lo", "no-such-feature").unwrap());
        for interface in ["no-such-link", "a name that is too long"] {
            assert_eq!(is_on(interface, "loopback").unwrap_err().raw_os_error(), Some(libc::ENODEV));
            assert_eq!(driver(interface).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        }
        // It has none.
        assert_eq!(driver("lo").unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
