//! The tile registers: whether there are any, their shapes, and what they do.

use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a register, and words of a row.
pub(crate) const TILE: usize = 16;
/// Bytes of a word.
pub(super) const WORD: usize = size_of::<f32>();

/// Whether this CPU multiplies tiles of bf16 and the system lets this process do so, which it asks for once.
pub(crate) fn are_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && has_permission())
}

fn has_instructions() -> bool {
    /// AMX-BF16 and AMX-TILE among the structured extended features.
    const BITS: u32 = 1 << 22 | 1 << 24;
    let most = std::arch::x86_64::__cpuid(0).eax;
    most >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx & BITS == BITS
}

/// Linux saves eight more KiB for a thread that uses tiles, and wants to be asked before.
#[cfg(target_os = "linux")]
fn has_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes what the kernel saves of this process, no memory.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn has_permission() -> bool {
    false
}

/// At the start of a cache line: a row of a tile is one.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Aligned<T>(pub(super) T);

/// What the instruction that configures tiles reads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The shapes of this thread's tile registers, given back when dropped: the system saves registers that are in use at
/// every switch between threads.
#[derive(Default)]
pub(super) struct Tiles {
    height: usize,
}

impl Tiles {
    /// For a square of so many rows, 1 to 32. Registers 0 to 3 are the sums, row by row; 4 and 5 are the left side, 6 and
    /// 7 the right.
    #[inline(always)]
    pub(super) fn shape(&mut self, height: usize) {
        if self.height == height {
            return;
        }
        self.height = height;
        let upper = height.min(TILE) as u8;
        // A register that is not used has some rows, too.
        let lower = height.saturating_sub(TILE).max(1) as u8;
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        shapes.row_bytes[..8].fill((TILE * WORD) as u16);
        shapes.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, 16, 16]);
        // SAFETY: tiles are available, and the shapes are those of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, preserves_flags)) }
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        if self.height > 0 {
            // SAFETY: tiles are available.
            unsafe { asm!("tilerelease", options(nostack, preserves_flags)) }
        }
    }
}

/// Adds the products of one tile of each row and column of a square.
///
/// A register is zeroed as soon as it has served, which costs nothing and lets the CPU forget its value: where two threads
/// share a core it has few places for such values, and a step takes 95 ns without this, 54 ns with it, against 23 ns of a
/// thread that has the core alone (measured on one machine).
///
/// # Safety
/// There must be a tile at `left` and `right`, and another one [`TILE`] rows below or words behind where the square has
/// two; strides are in bytes.
#[inline(always)]
pub(super) unsafe fn add<const ROWS: usize, const COLUMNS: usize>(
    left: *const f32,
    right: *const f32,
    [left_stride, right_stride]: [usize; 2],
) {
    // SAFETY: as the caller promises.
    unsafe {
        load::<4>(left, left_stride);
        load::<6>(right, right_stride);
        multiply_add::<0, 4, 6>();
        if COLUMNS == 2 {
            load::<7>(right.wrapping_add(TILE), right_stride);
            multiply_add::<1, 4, 7>();
        }
        zero::<4>();
        if ROWS == 2 {
            load::<5>(left.wrapping_byte_add(TILE * left_stride), left_stride);
            multiply_add::<2, 5, 6>();
            zero::<6>();
            if COLUMNS == 2 {
                multiply_add::<3, 5, 7>();
            }
            zero::<5>();
        } else {
            zero::<6>();
        }
        if COLUMNS == 2 {
            zero::<7>();
        }
    }
}

/// A square in memory, its rows `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

impl Place {
    #[inline(always)]
    fn of(self, row: usize, column: usize) -> *mut f32 {
        self.start
            .wrapping_byte_add(row * TILE * self.stride)
            .wrapping_add(column * TILE)
    }

    /// Fills the sums.
    ///
    /// # Safety
    /// A square must lie there.
    #[inline(always)]
    pub(super) unsafe fn load<const ROWS: usize, const COLUMNS: usize>(self) {
        // SAFETY: as the caller promises.
        unsafe {
            load::<0>(self.of(0, 0), self.stride);
            if COLUMNS == 2 {
                load::<1>(self.of(0, 1), self.stride);
            }
            if ROWS == 2 {
                load::<2>(self.of(1, 0), self.stride);
            }
            if ROWS == 2 && COLUMNS == 2 {
                load::<3>(self.of(1, 1), self.stride);
            }
        }
    }

    /// Stores the sums.
    ///
    /// # Safety
    /// There must be room for a square.
    #[inline(always)]
    pub(super) unsafe fn store<const ROWS: usize, const COLUMNS: usize>(self) {
        // SAFETY: as the caller promises.
        unsafe {
            save::<0>(self.of(0, 0), self.stride);
            if COLUMNS == 2 {
                save::<1>(self.of(0, 1), self.stride);
            }
            if ROWS == 2 {
                save::<2>(self.of(1, 0), self.stride);
            }
            if ROWS == 2 && COLUMNS == 2 {
                save::<3>(self.of(1, 1), self.stride);
            }
        }
    }
}

/// Zeroes the sums.
///
/// # Safety
/// Tiles must have shapes.
#[inline(always)]
pub(super) unsafe fn clear<const ROWS: usize, const COLUMNS: usize>() {
    // SAFETY: as the caller promises.
    unsafe {
        zero::<0>();
        if COLUMNS == 2 {
            zero::<1>();
        }
        if ROWS == 2 {
            zero::<2>();
        }
        if ROWS == 2 && COLUMNS == 2 {
            zero::<3>();
        }
    }
}

// One instruction each. The compiler knows nothing of tile registers: it neither saves nor uses them.

#[inline(always)]
unsafe fn zero<const TO: u8>() {
    // SAFETY: as the caller promises: tiles have shapes.
    unsafe { asm!("tilezero tmm{}", const TO, options(nomem, nostack, preserves_flags)) }
}

#[inline(always)]
unsafe fn load<const TO: u8>(from: *const f32, stride: usize) {
    // SAFETY: as the caller promises: a tile lies there.
    unsafe {
        asm!(
            "tileloadd tmm{}, [{} + {}]",
            const TO, in(reg) from, in(reg) stride,
            options(readonly, nostack, preserves_flags)
        )
    }
}

#[inline(always)]
unsafe fn save<const FROM: u8>(to: *mut f32, stride: usize) {
    // SAFETY: as the caller promises: there is room for a tile.
    unsafe {
        asm!(
            "tilestored [{} + {}], tmm{}",
            in(reg) to, in(reg) stride, const FROM,
            options(nostack, preserves_flags)
        )
    }
}

#[inline(always)]
unsafe fn multiply_add<const SUM: u8, const LEFT: u8, const RIGHT: u8>() {
    // SAFETY: as the caller promises: tiles have shapes.
    unsafe {
        asm!(
            "tdpbf16ps tmm{}, tmm{}, tmm{}",
            const SUM, const LEFT, const RIGHT,
            options(nomem, nostack, preserves_flags)
        )
    }
}
