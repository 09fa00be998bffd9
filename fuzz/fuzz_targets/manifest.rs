#![no_main]

libfuzzer_sys::fuzz_target!(
    init: eqco_fuzz::seeds::write_if_asked("manifest"),
    |data: &[u8]| eqco_fuzz::targets::manifest::check(data)
);
