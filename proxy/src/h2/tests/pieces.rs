//! Bytes in pieces mean the same as bytes at once, and no bytes are too strange.

use proptest::prelude::*;

use super::*;

/// Frames that a client might send, right and wrong.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![3 => (0_u32..6).prop_map(|number| 2 * number + 1), 1 => 0_u32..12];
    let content = proptest::collection::vec(any::<u8>(), 0..40);
    let fields = prop_oneof![
        Just(block(GET)),
        Just(block(POST)),
        Just(block(&[POST, &[("content-length", "3")]].concat())),
        Just([&[0x40, 1, b'k', 1, b'v'][..], &block(GET)].concat()),
        Just([&block(GET)[..], &[0xbe]].concat()),
        Just(block(&[("x-sum", "1")])),
        content.clone(),
    ];
    prop_oneof![
        4 => (stream.clone(), fields, prop_oneof![3 => Just(END), 2 => Just(4_u8), 1 => Just(0), 1 => Just(1)])
            .prop_map(|(stream, fields, flags)| frame(kind::HEADERS, flags, stream, fields)),
        4 => (stream.clone(), content.clone(), 0_u8..2).prop_map(|(stream, content, end)| frame(0, end, stream, content)),
        2 => (stream.clone(), content.clone(), 0_u8..9).prop_map(|(stream, content, padding)| {
            let padded = [&[padding][..], &content, &vec![0; padding.into()]].concat();
            frame(kind::DATA, flag::PADDED, stream, padded)
        }),
        1 => (stream.clone(), any::<u32>()).prop_map(|(stream, increment)| update(stream, increment >> 8)),
        1 => stream.clone().prop_map(reset),
        1 => Just(frame(kind::PING, 0, 0, b"12345678")),
        1 => (0_u16..7, 0_u32..3).prop_map(|(name, value)| frame(kind::SETTINGS, 0, 0, setting(name, value))),
        1 => (stream.clone(), content.clone(), prop_oneof![Just(4_u8), Just(0)])
            .prop_map(|(stream, content, flags)| frame(kind::CONTINUATION, flags, stream, content)),
        1 => (0_u8..12, any::<u8>(), stream, content)
            .prop_map(|(kind, flags, stream, content)| frame(kind, flags, stream, content)),
    ]
}

/// Everything that happens and everything that is said, when the bytes come in pieces of these sizes.
fn played(bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Vec<Seen>, Option<Code>, Vec<u8>) {
    let (mut wire, mut seen, mut rest) = (Wire::silent(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = later;
        wire.input.extend_from_slice(piece);
        if let Err(error) = wire.take_into(&mut seen) {
            return (seen, Some(error.code), wire.out);
        }
    }
    (seen, None, wire.out)
}

proptest! {
    #[test]
    fn bytes_mean_the_same_in_any_pieces(
        frames in proptest::collection::vec(any_frame(), 0..12), sizes in proptest::collection::vec(1_usize..60, 1..20),
    ) {
        let bytes = [PREFACE, &frame(kind::SETTINGS, 0, 0, []), &frames.concat()].concat();
        let whole = played(&bytes, std::iter::once(bytes.len()));
        prop_assert_eq!(&played(&bytes, std::iter::repeat(1)), &whole);
        prop_assert_eq!(&played(&bytes, sizes.into_iter().cycle()), &whole);
        for cut in 0..bytes.len() {
            prop_assert_eq!(&played(&bytes, [cut, bytes.len()].into_iter()), &whole);
        }
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), valid in proptest::collection::vec(any_frame(), 0..4)) {
        let bytes = [PREFACE, &frame(kind::SETTINGS, 0, 0, []), &valid.concat(), &bytes].concat();
        let (seen, _, out) = played(&bytes, std::iter::once(bytes.len()));
        prop_assert!(seen.len() <= bytes.len() && out.len() <= 40 * bytes.len());
    }
}
