#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy_fuzz::h3::check(bytes));
