#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fcgi_fuzz::check("conn-responder", input));
