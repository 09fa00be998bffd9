#![no_main]

libfuzzer_sys::fuzz_target!(
    init: eqco_fuzz::seeds::write_if_asked("image_file"),
    |data: &[u8]| eqco_fuzz::targets::image_file::check(data)
);
