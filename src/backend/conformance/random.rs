//! The same cases on random geometry, which shrinks to the smallest that fails.

use super::images::{Convert, CopySamples, Dropout};
use super::linear::{AddBias, Elementwise, GemmCase, Op, SumRows};
use super::loss::RowLossCase;
use super::norm::BatchNormCase;
use super::windows::{ConvCase, PoolCase, fixed};
use super::{Backend, WRITES, check as check_case};
use crate::backend::{Gemm, RowLoss, Write};
use crate::shape::{Conv, Images, Pool, Window};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;

/// Random geometries of each primitive.
const CASES: u32 = 48;

/// A reproducible run: a failure that comes and goes helps nobody.
fn config() -> Config {
    Config {
        cases: CASES,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(20_20),
        ..Config::default()
    }
}

fn write() -> impl Strategy<Value = Write> {
    select(&WRITES[..])
}

fn images() -> impl Strategy<Value = Images> {
    (0..75_usize, 1..20_usize, 1..9_usize, 1..9_usize).prop_map(|(n, c, h, w)| Images {
        n,
        c,
        h,
        w,
    })
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        (1..4_usize, 1..4_usize, any::<bool>()).prop_map(|(kernel, stride, pad)| fixed(
            kernel,
            stride,
            if pad { kernel / 2 } else { 0 }
        )),
        (1..12_usize).prop_map(|out| Window::Adaptive { out }),
    ]
}

fn conv() -> impl Strategy<Value = Conv> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (images(), 1..20_usize, pair(1..5), pair(1..4), pair(0..3)).prop_map(
        |(input, out_c, kernel, stride, padding)| Conv {
            input,
            out_c,
            kernel,
            stride,
            padding,
        },
    )
}

pub(super) fn check<B: Backend>(backend: &B) {
    let op = select(
        &[
            Op::ScaleAdd,
            Op::ReluBackward,
            Op::TanhBackward,
            Op::MseBackward,
        ][..],
    );
    proptest!(config(), |(op in op, len in 0..200_usize, write in write())| {
        check_case(backend, &Elementwise { op, len, write });
    });
    proptest!(config(), |(rows in 0..300_usize, cols in 1..120_usize, write in write())| {
        check_case(backend, &AddBias { rows, cols });
        check_case(backend, &SumRows { rows, cols, write });
    });
    let size = || 0..70_usize;
    let flags = (any::<bool>(), any::<bool>());
    proptest!(config(), |(m in size(), n in size(), k in size(), f in flags, write in write())| {
        let dims = Gemm { m, n, k, a_transposed: f.0, b_transposed: f.1 };
        check_case(backend, &GemmCase { dims, write });
    });
    proptest!(config(), |(images in images(), p in 0.0..0.9_f32, write in write())| {
        check_case(backend, &Convert { images, write, to_rows: false });
        check_case(backend, &Convert { images, write, to_rows: true });
        check_case(backend, &Dropout { images, p, write });
    });
    let starts = (0..80_usize, 0..80_usize, 0..80_usize);
    let rests = (0..20_usize, 0..20_usize);
    proptest!(config(), |(image in images(), s in starts, rest in rests, write in write())| {
        let (to_start, from_start, count) = s;
        let (to, from) = (to_start + count + rest.0, from_start + count + rest.1);
        let case = CopySamples { image, to, to_start, from, from_start, count, write };
        check_case(backend, &case);
    });
    proptest!(config(), |(input in images(), rows in window(), cols in window(), write in write())| {
        check_case(backend, &PoolCase { pool: Pool { input, rows, cols }, write });
    });
    proptest!(config(), |(conv in conv(), write in write())| {
        check_case(backend, &ConvCase { conv, write });
    });
    let groups = proptest::collection::vec(0..40_usize, 0..4);
    let wants_dx = proptest::option::of(write());
    proptest!(config(), |(
        images in images(), groups in groups, write in write(), wants_dx in wants_dx,
    )| {
        let images = Images { n: groups.iter().sum(), ..images };
        check_case(backend, &BatchNormCase { images, groups, write, wants_dx, mean: 0.0 });
    });
    let loss = (0..50_usize, 1..30_usize, any::<bool>());
    proptest!(config(), |((n, c, with_targets) in loss, split in 0..50_usize, write in write())| {
        let split = split.min(n);
        let dims = RowLoss { n, c, current_start: split, current_end: n };
        check_case(backend, &RowLossCase { dims, logits_scale: 5.0, with_targets, write });
    });
}
