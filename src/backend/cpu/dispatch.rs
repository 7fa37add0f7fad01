//! Which kernels this CPU runs: one table of functions for each instruction set, chosen once.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;

use super::isa::{self, bf16::PairKernels};
use super::table::Table;
use crate::error::{Error, Result};

/// The environment variable that caps the instruction set: `portable`, `avx2`, `avx512` (which includes
/// AVX512-BF16) or `amx`.
pub const ISA_VARIABLE: &str = "UNFORGET_ISA";

/// An instruction set with kernels of its own, from the plainest to the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F, for bfloat16 AVX512-BF16.
    Avx512,
    /// AMX, for bfloat16; everything else as with [`Avx512`](Isa::Avx512).
    Amx,
}

impl Isa {
    const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// The name used in [`ISA_VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let found = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| {
            Error::config(
                ISA_VARIABLE,
                "portable, avx2, avx512 or amx",
                format!("{name:?}"),
            )
        })
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A function of plain loops, compiled once for each instruction set and called for the one in use.
/// Generic parameters go in brackets: `fn map[F: Fn(f32) -> f32](..)`.
macro_rules! each_isa {
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident $([$($generics:tt)*])? ( $($arg:ident: $type:ty),* $(,)? ) $body:block
    ) => {
        $(#[$doc])*
        #[allow(unsafe_code)]
        $vis fn $name $(<$($generics)*>)? ($($arg: $type),*) {
            #[inline(always)]
            fn body $(<$($generics)*>)? ($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            fn avx512 $(<$($generics)*>)? ($($arg: $type),*) {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($generics)*>)? ($($arg: $type),*) {
                body($($arg),*)
            }
            match $crate::backend::cpu::dispatch::select().isa() {
                #[cfg(target_arch = "x86_64")]
                $crate::backend::cpu::Isa::Avx512 => {
                    // SAFETY: the table in use was chosen because this CPU has its instructions.
                    unsafe { avx512($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::backend::cpu::Isa::Avx2 => {
                    // SAFETY: the table in use was chosen because this CPU has its instructions.
                    unsafe { avx2($($arg),*) }
                }
                _ => body($($arg),*),
            }
        }
    };
}
pub(super) use each_isa;

/// The tables that this CPU can run, from the plainest to the fastest.
pub(crate) fn tables() -> impl DoubleEndedIterator<Item = &'static Table> {
    let present: [Option<&'static Table>; 3] = [
        Some(&isa::portable::TABLE),
        #[cfg(target_arch = "x86_64")]
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"))
            .then_some(&isa::avx2::TABLE),
        #[cfg(target_arch = "x86_64")]
        is_x86_feature_detected!("avx512f").then_some(&isa::avx512::TABLE),
        #[cfg(not(target_arch = "x86_64"))]
        None,
        #[cfg(not(target_arch = "x86_64"))]
        None,
    ];
    present.into_iter().flatten()
}

/// The instruction set the engine will use for f32: the best of this CPU, or of those up to
/// [`ISA_VARIABLE`] if that is set.
///
/// # Errors
/// [`Error::Config`] when the variable holds none of the known names. The engine itself, which
/// cannot fail there, then goes on without a cap.
pub fn isa_from_env() -> Result<Isa> {
    Ok(best(cap()?).isa())
}

/// What [`ISA_VARIABLE`] allows.
fn cap() -> Result<Option<Isa>> {
    let value = std::env::var_os(ISA_VARIABLE);
    value.map(|v| Isa::parse(&v.to_string_lossy())).transpose()
}

/// The table in use, settled at the first call.
pub(crate) fn select() -> &'static Table {
    static SELECTED: OnceLock<&'static Table> = OnceLock::new();
    SELECTED.get_or_init(|| best(cap().unwrap_or_default()))
}

/// The kernels for bfloat16 in use, if this CPU has any: the fastest that [`ISA_VARIABLE`] allows.
pub(crate) fn select_pairs() -> Option<&'static PairKernels> {
    let cap = cap().unwrap_or_default();
    isa::bf16::present().rfind(|kernels| cap.is_none_or(|cap| kernels.isa() <= cap))
}

/// Asks for bytes that will be read soon.
pub(super) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of the architecture, and a hint may name any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}

fn best(cap: Option<Isa>) -> &'static Table {
    tables()
        .rfind(|table| cap.is_none_or(|cap| table.isa() <= cap))
        .unwrap_or(&isa::portable::TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::check;

    #[test]
    fn tables_go_from_the_plainest_to_the_fastest() {
        let isas: Vec<Isa> = check::tables().iter().map(|table| table.isa()).collect();
        assert_eq!(isas[0], Isa::Portable);
        assert!(isas.is_sorted());
    }

    #[test]
    fn the_cap_is_kept() {
        for isa in Isa::ALL {
            assert_eq!(Isa::parse(isa.name()).unwrap(), isa);
            assert!(best(Some(isa)).isa() <= isa);
        }
        assert_eq!(best(Some(Isa::Portable)).isa(), Isa::Portable);
        assert_eq!(best(None).isa(), tables().last().unwrap().isa());
        let error = Isa::parse("sse9").unwrap_err().to_string();
        assert_eq!(
            error,
            "UNFORGET_ISA: expected portable, avx2, avx512 or amx, found \"sse9\""
        );
    }
}
