//! A request that is taken comes back the same after it was passed on.

use proxy::{
    h1::{Limits, parse_request, write_request},
    message::RequestHead,
};

/// Panics where that does not hold.
pub fn check(input: &[u8]) {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let Ok(Some(meta)) = parse_request(input, &limits, &mut head) else { return };
    assert!(meta.consumed <= input.len());
    if head.authority.is_empty() {
        return;
    }
    for name in ["content-length", "transfer-encoding"] {
        head.headers.remove(name);
    }
    let mut text = Vec::new();
    write_request(&head, meta.framing, &mut text);
    let mut again = RequestHead::default();
    // The text may be longer than what was read, and so beyond the limits, but never mean something else.
    let Ok(Some(read)) = parse_request(&text, &limits, &mut again) else {
        assert!(text.len() > meta.consumed);
        return;
    };
    assert_eq!((read.consumed, read.framing), (text.len(), meta.framing));
    assert_eq!((again.method, again.target, again.authority), (head.method, head.target, head.authority));
    let written = head.headers.iter().count();
    assert!(again.headers.iter().take(written).eq(head.headers.iter()));
}
