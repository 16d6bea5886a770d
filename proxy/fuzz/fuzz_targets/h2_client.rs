#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy_fuzz::h2_client::check(bytes));
