#![no_main]

libfuzzer_sys::fuzz_target!(
    init: eqco_fuzz::seeds::write_if_asked("config"),
    |data: &[u8]| eqco_fuzz::targets::config::check(data)
);
