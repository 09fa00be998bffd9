#![no_main]

libfuzzer_sys::fuzz_target!(
    init: eqco_fuzz::seeds::write_if_asked("validation_labels"),
    |data: &[u8]| eqco_fuzz::targets::validation_labels::check(data)
);
