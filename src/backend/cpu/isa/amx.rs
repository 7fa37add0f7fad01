//! Kernels for CPUs with AMX: eight tile registers and a unit that multiplies them.
//!
//! Stable Rust has neither the intrinsics nor the detection, so both are assembly. A block is one `asm!`
//! from the first load to the last store: no tile is live outside. The shapes of the registers last for
//! one product and are released at its end, so that nobody else ever sees the unit in use.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::super::dispatch::Isa;
use super::super::table::Table;
use super::bf16::PairKernels;
use super::blocks::{self, Shape, TILE, Unit};
use super::{Call, avx512, avx512_bf16};

/// Whether CPU, operating system and kernel let this process use the unit. The kernel is asked for
/// permission, once; it may refuse.
pub(super) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| !cfg!(miri) && has_instructions() && state_is_saved() && permitted())
}

/// CPUID: AMX-TILE and AMX-BF16, and the XSAVE that the operating system needs for it.
#[allow(unused_unsafe)] // Newer compilers call these functions safe.
fn has_instructions() -> bool {
    // SAFETY: every x86-64 CPU has CPUID, and leaves are read only up to the highest.
    unsafe {
        if __cpuid(0).eax < 0x1d {
            return false;
        }
        let (features, extended) = (__cpuid(1), __cpuid_count(7, 0));
        let bit = |register: u32, bit: u32| register >> bit & 1 == 1;
        bit(features.ecx, 27) && bit(extended.edx, 24) && bit(extended.edx, 22)
    }
}

/// XCR0: the operating system saves the state of AVX-512 and of tiles.
fn state_is_saved() -> bool {
    let low: u32;
    // SAFETY: OSXSAVE was found, without which there is no `xgetbv`.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    low & 0x600e6 == 0x600e6
}

/// Asks Linux for the state of tile data, `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    let refused: i64;
    // SAFETY: this call touches no memory of ours; `syscall` overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") ARCH_PRCTL => refused,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    refused == 0
}

/// Only Linux is known to hand the unit out.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The unit of this CPU, released when dropped.
struct Amx;

impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: an `Amx` exists only where the unit is usable.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// What a block reads besides its registers, at fixed distances.
#[repr(C)]
struct Constants {
    /// 0: base of A, 8: base of B.
    bases: [*const f32; 2],
    /// 16: steps of 16 words in a tap.
    steps: usize,
    /// 24: bytes from the first tile of A to the second.
    a_down: usize,
    /// 32: bytes from a tile of B to that of the next step.
    b_down: usize,
    /// 40: bytes from the upper sums to the lower ones.
    c_down: usize,
}

/// A block: what is done for the sums first, in a step, and last. `{c2}` is the lower half of the sums.
macro_rules! block {
    ($call:expr, $first:expr, $step:expr, $last:expr) => {{
        let call: &Call<'_> = $call;
        let constants = Constants {
            bases: [call.a, call.b],
            steps: call.k / TILE,
            a_down: 4 * TILE * call.a_row,
            b_down: 4 * TILE * call.b_row,
            c_down: 4 * TILE * call.c_row,
        };
        asm!(
            "mov {a2}, {c}",
            "add {a2}, [{m} + 40]",
            $first,
            "2:",
            "mov {a}, [{tap}]",
            "mov {b}, [{tap} + 8]",
            "shl {a}, 2",
            "shl {b}, 2",
            "add {a}, [{m}]",
            "add {b}, [{m} + 8]",
            "mov {a2}, {a}",
            "add {a2}, [{m} + 24]",
            "mov {n}, [{m} + 16]",
            "3:",
            $step,
            "add {a}, 64",
            "add {a2}, 64",
            "add {b}, [{m} + 32]",
            "dec {n}",
            "jnz 3b",
            "add {tap}, 16",
            "dec {taps}",
            "jnz 2b",
            "mov {a2}, {c}",
            "add {a2}, [{m} + 40]",
            $last,
            m = in(reg) &constants,
            tap = inout(reg) call.taps.as_ptr() => _,
            taps = inout(reg) call.taps.len() => _,
            a = out(reg) _,
            a2 = out(reg) _,
            b = out(reg) _,
            n = out(reg) _,
            a_row = in(reg) 4 * call.a_row,
            b_row = in(reg) 4 * call.b_row,
            c = in(reg) call.c,
            c_row = in(reg) 4 * call.c_row,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }};
}

/// The instructions that a block of so many tiles begins with: zero, or the sums so far; and its last
/// ones. `{a2}` holds the address of the lower sums at both.
macro_rules! sums {
    (zero 1 1) => { "tilezero tmm0" };
    (zero 1 2) => { concat!(sums!(zero 1 1), "\ntilezero tmm1") };
    (zero 2 1) => { concat!(sums!(zero 1 1), "\ntilezero tmm2") };
    (zero 2 2) => { concat!(sums!(zero 1 2), "\ntilezero tmm2\ntilezero tmm3") };
    (load 1 1) => { "tileloadd tmm0, [{c} + {c_row}*1]" };
    (load 1 2) => { concat!(sums!(load 1 1), "\ntileloadd tmm1, [{c} + {c_row}*1 + 64]") };
    (load 2 1) => { concat!(sums!(load 1 1), "\ntileloadd tmm2, [{a2} + {c_row}*1]") };
    (load 2 2) => { concat!(sums!(load 1 2), "\ntileloadd tmm2, [{a2} + {c_row}*1]",
        "\ntileloadd tmm3, [{a2} + {c_row}*1 + 64]") };
    (store 1 1) => { "tilestored [{c} + {c_row}*1], tmm0" };
    (store 1 2) => { concat!(sums!(store 1 1), "\ntilestored [{c} + {c_row}*1 + 64], tmm1") };
    (store 2 1) => { concat!(sums!(store 1 1), "\ntilestored [{a2} + {c_row}*1], tmm2") };
    (store 2 2) => { concat!(sums!(store 1 2), "\ntilestored [{a2} + {c_row}*1], tmm2",
        "\ntilestored [{a2} + {c_row}*1 + 64], tmm3") };
    (step 1 1) => { "tileloadd tmm4, [{a} + {a_row}*1]
        tileloadd tmm6, [{b} + {b_row}*1]
        tdpbf16ps tmm0, tmm4, tmm6" };
    (step 1 2) => { concat!(sums!(step 1 1), "\ntileloadd tmm7, [{b} + {b_row}*1 + 64]
        tdpbf16ps tmm1, tmm4, tmm7") };
    (step 2 1) => { concat!(sums!(step 1 1), "\ntileloadd tmm5, [{a2} + {a_row}*1]
        tdpbf16ps tmm2, tmm5, tmm6") };
    (step 2 2) => { concat!(sums!(step 1 2), "\ntileloadd tmm5, [{a2} + {a_row}*1]
        tdpbf16ps tmm2, tmm5, tmm6
        tdpbf16ps tmm3, tmm5, tmm7") };
}

/// The block of so many tiles of A and of B.
macro_rules! block_of {
    ($call:expr, $rows:tt $cols:tt) => {
        if $call.add {
            block!($call, sums!(load $rows $cols), sums!(step $rows $cols), sums!(store $rows $cols))
        } else {
            block!($call, sums!(zero $rows $cols), sums!(step $rows $cols), sums!(store $rows $cols))
        }
    };
}

impl Unit for Amx {
    unsafe fn configure(&mut self, Shape { rows, cols }: Shape) {
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let mut set = |register: usize, rows: usize, words: usize| {
            // A register without rows must have no columns either.
            if rows > 0 && words > 0 {
                config.rows[register] = rows as u8;
                config.row_bytes[register] = 4 * words as u16;
            }
        };
        for (i, &rows) in rows.iter().enumerate() {
            for (j, &cols) in cols.iter().enumerate() {
                set(2 * i + j, rows, cols);
            }
            set(4 + i, rows, TILE);
        }
        for (j, &cols) in cols.iter().enumerate() {
            set(6 + j, TILE, cols);
        }
        // SAFETY: the unit is usable, and the configuration is one of palette 1.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly, preserves_flags))
        };
    }

    unsafe fn block(&mut self, call: &Call<'_>, shape: Shape) {
        // SAFETY: the unit is configured for `shape`, so only addresses inside the block are touched,
        // which the caller vouches for; there is a tap and a step; `Tap` is two words in C's order.
        unsafe {
            match (shape.rows[1] > 0, shape.cols[1] > 0) {
                (true, true) => block_of!(call, 2 2),
                (true, false) => block_of!(call, 2 1),
                (false, true) => block_of!(call, 1 2),
                (false, false) => block_of!(call, 1 1),
            }
        }
    }
}

unsafe fn whole(call: &Call<'_>, m: usize, n: usize) {
    // SAFETY: the caller vouches for the unit and for the addresses.
    unsafe { blocks::product(&mut Amx, call, m, n) }
}

/// Keeps the unit busy without touching memory: four independent sums.
unsafe fn burn(rounds: usize) -> f32 {
    let mut amx = Amx;
    // SAFETY: the caller vouches for the unit. All registers have a shape, and are set to zero first.
    unsafe {
        amx.configure(Shape {
            rows: [TILE; 2],
            cols: [TILE; 2],
        });
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "test {n}, {n}",
            "jz 3f",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {n}",
            "jnz 2b",
            "3:",
            n = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nomem, nostack),
        );
    }
    0.0
}

/// Multiply-adds of a round of [`burn`], counted in vectors of 16.
const BURN: usize = 4 * TILE * TILE * 2 * TILE / 16;

/// The kernels of a CPU with AMX.
pub(crate) static KERNELS: PairKernels = {
    // SAFETY: `present` hands these kernels out only where the unit is usable and AVX512-BF16 detected.
    unsafe {
        let table: Table = (avx512::TABLE.with_whole(whole).with_burn(burn, BURN))
            .with_sparse(avx512_bf16::SPARSE_PAIRS);
        let pack = [avx512_bf16::along as _, avx512_bf16::across as _];
        PairKernels::new(("amx", Isa::Amx), table, pack, TILE)
    }
};
