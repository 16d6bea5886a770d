//! Fields that were decoded come back the same after they were encoded, block after block on one connection.

use proxy::h2::hpack::{Decoder, Encoder};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Panics where that does not hold.
pub fn check(input: &[u8]) {
    let (mut client, mut encoder, mut again) = (Decoder::new(4096), Encoder::new(), Decoder::new(4096));
    // The first byte of each block is its length, and bounds what an index makes of it.
    let mut rest = input;
    while let Some((&length, behind)) = rest.split_first() {
        let (block, next) = behind.split_at(behind.len().min(length.into()));
        rest = next;
        let Ok(fields) = decode(&mut client, block) else { return };
        encoder.limit(usize::from(length) * 32);
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in &fields {
            encoder.encode(name, value, &mut out);
        }
        let mut expected = fields;
        expected.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
        assert_eq!(decode(&mut again, &out).as_ref(), Ok(&expected));
    }
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, proxy::h2::hpack::HpackError> {
    let mut fields = Vec::new();
    decoder.decode(block, |name, value| fields.push((name.to_vec(), value.to_vec()))).map(|()| fields)
}
