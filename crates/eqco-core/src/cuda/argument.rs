//! Values that are handed to kernels.

/// One argument of a kernel: its first bytes, as many as the parameter has, are the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument(pub(super) u64);

/// An address on the device.
impl From<u64> for Argument {
    fn from(address: u64) -> Self {
        Self(address)
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Self(u64::from(value))
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self(u64::from(value.to_bits()))
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

/// As a 32-bit unsigned number; what does not fit becomes the largest one.
impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Self::from(super::count(value))
    }
}

/// As a 32-bit number, 0 or 1.
impl From<bool> for Argument {
    fn from(value: bool) -> Self {
        Self(u64::from(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_the_value() {
        let first = |argument: Argument| {
            u32::from_le_bytes(argument.0.to_le_bytes()[..4].try_into().unwrap())
        };
        assert_eq!(f32::from_bits(first(Argument::from(-1.5f32))), -1.5);
        assert_eq!(f64::from_bits(Argument::from(-1.5f64).0), -1.5);
        assert_eq!(first(Argument::from(7usize)), 7);
        assert_eq!(first(Argument::from(usize::MAX)), u32::MAX);
        assert_eq!(first(Argument::from(true)), 1);
        assert_eq!(Argument::from(1u64 << 40).0, 1 << 40);
    }
}
