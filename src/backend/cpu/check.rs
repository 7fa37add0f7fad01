//! What the tests of the kernels share: noise, guarded destinations, comparison.

use super::dispatch;
use super::isa::bf16::present;
use super::table::Table;
use crate::backend::Write;

/// Every table of this CPU. The environment variable `UNFORGET_REQUIRE` (names with commas between)
/// makes it an error if one of those is missing, so that a test meant for it cannot pass unrun.
pub(super) fn tables() -> Vec<&'static Table> {
    let tables: Vec<_> = dispatch::tables().collect();
    let required = std::env::var("UNFORGET_REQUIRE").unwrap_or_default();
    let pairs: Vec<_> = present().map(|kernels| kernels.name()).collect();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        assert!(
            tables.iter().any(|table| table.isa().name() == name) || pairs.contains(&name),
            "UNFORGET_REQUIRE wants the kernels {name:?}, which this CPU does not have"
        );
    }
    tables
}

/// `len` numbers in [-1, 1) that depend on `seed`.
pub(super) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(next).collect()
}

/// What a kernel leaves in a destination of `len` numbers between two guards: it starts as NaN for
/// [`Write::Set`], which must not read it, and as noise for [`Write::Add`].
pub(super) fn written(len: usize, write: Write, kernel: impl FnOnce(&mut [f32])) -> Vec<f32> {
    const GUARD: usize = 33;
    const CANARY: f32 = 123.25;
    let mut memory = vec![CANARY; len + 2 * GUARD];
    memory[GUARD..][..len].copy_from_slice(&before(len, write));
    kernel(&mut memory[GUARD..][..len]);
    let guards = memory[..GUARD].iter().chain(&memory[GUARD + len..]);
    assert!(
        guards.copied().all(|x| x == CANARY),
        "wrote outside its {len} numbers"
    );
    memory[GUARD..][..len].to_vec()
}

pub(super) fn before(len: usize, write: Write) -> Vec<f32> {
    match write {
        Write::Set => vec![f32::NAN; len],
        Write::Add => noise(99, len),
    }
}

/// Compares what [`written`] returned with sums of at most `terms` products of noise.
#[track_caller]
pub(super) fn assert_sums(got: &[f32], sums: &[f64], terms: usize, write: Write, what: &str) {
    assert_eq!(got.len(), sums.len(), "{what}");
    let start = before(got.len(), write);
    let tolerance = 1e-6 + 16.0 * (terms as f64).sqrt() * f64::from(f32::EPSILON);
    for (i, (&got, &sum)) in got.iter().zip(sums).enumerate() {
        let want = match write {
            Write::Set => sum,
            Write::Add => f64::from(start[i]) + sum,
        };
        let off = (f64::from(got) - want).abs();
        // A NaN is never close enough.
        assert!(
            off <= tolerance,
            "{what}, {write:?}: number {i} is {got}, should be {want} (tolerance {tolerance:e})"
        );
    }
}

/// Compares what [`written`] returned with sums: the root of the mean square error is at most
/// `tolerance` times that of the sums.
#[track_caller]
pub(super) fn assert_near(got: &[f32], sums: &[f64], tolerance: f64, write: Write, what: &str) {
    assert_eq!(got.len(), sums.len(), "{what}");
    let start = before(got.len(), write);
    let (mut error, mut size) = (0.0, 0.0);
    for (i, (&got, &sum)) in got.iter().zip(sums).enumerate() {
        let want = match write {
            Write::Set => sum,
            Write::Add => f64::from(start[i]) + sum,
        };
        error += (f64::from(got) - want).powi(2);
        size += sum.powi(2);
    }
    let relative = (error / size).sqrt();
    // A NaN is never close enough.
    assert!(
        relative <= tolerance,
        "{what}, {write:?}: relative error {relative:e}, allowed {tolerance:e}"
    );
}

/// Runs `f` in pools of one and of three threads and returns both results.
pub(super) fn with_threads<R: Send>(f: impl Fn() -> R + Sync) -> [R; 2] {
    [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a thread pool").install(&f)
    })
}
