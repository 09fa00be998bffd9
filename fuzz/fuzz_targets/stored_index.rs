#![no_main]

libfuzzer_sys::fuzz_target!(
    init: eqco_fuzz::seeds::write_if_asked("stored_index"),
    |data: &[u8]| eqco_fuzz::targets::stored_index::check(data)
);
