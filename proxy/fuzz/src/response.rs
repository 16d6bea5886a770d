//! A response that is taken has the same body after it was passed on.

use http::Method;
use proxy::{
    h1::{Limits, parse_response, write_response},
    message::{ResponseHead, Version},
};

/// Panics where that does not hold.
pub fn check(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else { return };
    let method = if *choice == b'h' { Method::HEAD } else { Method::GET };
    let limits = Limits { fields: 64, ..Limits::default() };
    let mut head = ResponseHead::default();
    let Ok(Some(meta)) = parse_response(input, &limits, &method, &mut head) else { return };
    assert!(meta.consumed <= input.len());
    let mut text = Vec::new();
    write_response(&head, meta.framing, meta.keep_alive, Version::Http11, &mut text);
    let mut again = ResponseHead::default();
    let Ok(Some(read)) = parse_response(&text, &Limits::default(), &method, &mut again) else {
        assert!(text.len() > meta.consumed);
        return;
    };
    assert_eq!((read.consumed, read.framing), (text.len(), meta.framing));
    assert_eq!(again.status, head.status);
    assert!(meta.keep_alive || !read.keep_alive || head.status.is_informational());
}
