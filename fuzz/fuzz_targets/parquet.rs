#![no_main]

libfuzzer_sys::fuzz_target!(
    init: eqco_fuzz::seeds::write_if_asked("parquet"),
    |data: &[u8]| eqco_fuzz::targets::parquet::check(data)
);
