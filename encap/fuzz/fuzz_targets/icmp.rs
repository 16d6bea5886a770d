#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| encap_fuzz::icmp::check(bytes));
