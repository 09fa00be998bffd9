//! What a GPU and its driver say of themselves.

use std::fs;

use candle_core::Device;

/// The name of a device; its place in candle where the driver tells none.
pub fn device_name(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device
        && let Ok(name) = gpu.cuda_stream().context().name()
    {
        return name;
    }
    format!("{:?}", device.location())
}

/// The version of NVIDIA's driver, or `unknown`.
pub fn driver_version() -> String {
    let text = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    version_in(&text).unwrap_or("unknown").to_owned()
}

/// The first word that looks like one: digits with points between.
fn version_in(text: &str) -> Option<&str> {
    let looks_like_one =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(looks_like_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_the_drivers_own_words() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC version: 13.3.0";
        assert_eq!(version_in(text), Some("580.95.05"));
        assert_eq!(version_in("no version"), None);
        assert_eq!(version_in(""), None);
        assert_eq!(device_name(&Device::Cpu), "Cpu");
    }
}
