//! DSCP and ECN of outer and inner headers (RFC 2983, RFC 6040 as updated by RFC 9601).

use crate::config::{Ecn, Tunnel};
use crate::wire::ip::ECN;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// How the TOS byte of outer headers is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marking {
    dscp: Option<u8>,
    ecn: Ecn,
}

impl Marking {
    pub(super) fn new(tunnel: &Tunnel) -> Self {
        Self { dscp: tunnel.dscp, ecn: tunnel.ecn }
    }

    /// The TOS byte of the outer header: DSCP of the inner header (uniform) or a fixed one (pipe, RFC 2983 section 3),
    /// ECN copied or none (RFC 6040 section 4.1, normal and compatibility mode).
    pub(super) fn outer(self, inner_tos: u8) -> u8 {
        let dscp = self.dscp.map_or(inner_tos & !ECN, |dscp| dscp << 2);
        let ecn = match self.ecn {
            Ecn::Normal => inner_tos & ECN,
            Ecn::Compatible => NOT_ECT,
        };
        dscp | ecn
    }
}

/// The ECN bits of the inner packet after decapsulation, or `None` when it must be dropped (RFC 6040 section 4.2).
pub(super) fn inward(outer_tos: u8, inner_tos: u8) -> Option<u8> {
    match (outer_tos & ECN, inner_tos & ECN) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(CE),
        (ECT_1, ECT_0) => Some(ECT_1),
        (_, inner) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tunnel;

    #[test]
    fn inward_as_rfc_6040_figure_4() {
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, results) in table {
            for (outer, result) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(results) {
                assert_eq!(
                    inward(outer | 0xb8, inner | 0x28),
                    result,
                    "outer {outer:02b}, inner {inner:02b}"
                );
            }
        }
    }

    #[test]
    fn outer_in_every_mode() {
        let outer = |dscp, ecn, tos| Marking::new(&Tunnel { dscp, ecn, ..tunnel() }).outer(tos);
        assert_eq!(outer(None, Ecn::Compatible, 0xb8 | CE), 0xb8, "uniform, compatibility mode");
        assert_eq!(outer(None, Ecn::Normal, 0xb8 | ECT_0), 0xb8 | ECT_0, "uniform, normal mode");
        assert_eq!(outer(Some(10), Ecn::Normal, 0xb8 | CE), 10 << 2 | CE, "pipe, normal mode");
        assert_eq!(outer(Some(0), Ecn::Compatible, 0xff), 0, "pipe, compatibility mode");
    }
}
