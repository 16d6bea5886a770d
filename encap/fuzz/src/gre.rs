//! Any GRE header that is accepted is written back to the same meaning.

use encap::wire::gre::{Header, verify};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let _ = verify(bytes);
    let Ok((header, rest)) = Header::parse(bytes) else { return };
    assert_eq!(bytes.len(), header.len() + rest.len());
    let mut again = vec![0; header.len()];
    header.emit(&mut again).expect("it fits");
    assert_eq!(Header::parse(&again), Ok((header, &[][..])));
}
