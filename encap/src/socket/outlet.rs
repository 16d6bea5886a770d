//! Sends packets that stand for several by an outlet, a device by which the kernel takes what it is to cut inside of GRE or
//! of GRE-in-UDP.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::nexthop::LINK_HEADER_LEN;
use crate::batch::{Gso, InnerCarrier, InnerGso, MAX_PARTS, Packet, Takers};
use crate::wire::{ipv4, ipv6, tcp, udp, virtio};

/// A device of [`crate::device::create_outlet`] that is up and whose frames go to the underlay interface.
#[derive(Debug)]
pub struct Outlet {
    device: OwnedFd,
    takers: Takers,
}

impl Outlet {
    /// Sends by this device, behind which packets may go to these.
    pub fn new(device: OwnedFd, takers: Takers) -> Self {
        Self { device, takers }
    }

    /// To whom packets may go.
    pub(super) fn takers(&self) -> Takers {
        self.takers
    }

    /// Sends a packet whose link header stands in front of it already.
    ///
    /// # Errors
    /// `EINVAL` when the kernel will not cut it, `EIO` while the device is down, `EBADFD` when it is gone, and `EAGAIN` or
    /// `ENOMEM` for want of memory.
    pub(super) fn send(&self, packet: Packet<'_>, gso: Gso, inner: InnerGso) -> io::Result<()> {
        let header = header(packet.destination.is_ipv6(), gso, inner).bytes();
        let mut parts = [IoSlice::new(&[]); 1 + MAX_PARTS];
        let [first, rest @ ..] = &mut parts;
        *first = IoSlice::new(&header);
        let mut count = 1;
        for (place, part) in rest.iter_mut().zip(packet.parts_with_room(LINK_HEADER_LEN)) {
            *place = IoSlice::new(part);
            count += 1;
        }
        rustix::io::writev(&self.device, parts.get(..count).unwrap_or_default())?;
        Ok(())
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Offsets are from the link header on.
fn header(is_v6: bool, gso: Gso, inner: InnerGso) -> virtio::TunnelHeader {
    let link = LINK_HEADER_LEN as u16;
    let is_udp = inner.gso_type == virtio::GSO_UDP_L4;
    let outer_ip = if is_v6 { ipv6::LEN } else { ipv4::LEN };
    virtio::TunnelHeader {
        header: virtio::Header {
            flags: virtio::NEEDS_CSUM,
            gso_type: inner.gso_type,
            hdr_len: link + gso.headers,
            gso_size: gso.size,
            csum_start: link + inner.transport_at,
            csum_offset: if is_udp { udp::CHECKSUM_AT } else { tcp::CHECKSUM_AT } as u16,
        },
        is_v6,
        udp_checksum: inner.carrier == InnerCarrier::GreInUdp { has_checksum: true },
        transport_at: link + outer_ip as u16,
        inner_at: link + inner.ip_at,
    }
}
