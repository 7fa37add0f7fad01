//! One suite that every backend must pass.
//!
//! A [`Case`] is one call of one primitive on given geometry. It runs on the backend under test and
//! on `Reference<f64>` with the same numbers, and every result must agree within rounding. Each
//! destination lies between canaries, at an odd offset or not; one to be set is full of NaN, which must not
//! be read, one to be added to is full of noise.

mod images;
mod lab;
mod linear;
mod loss;
mod norm;
mod norm_after;
mod pixels;
mod random;
mod rows;
mod windows;

use super::cpu::Cpu;
use super::cpu::bf16::Factors;
use super::cpu::bf16::tests::{modes, tolerance};
use super::reference::Reference;
use super::{Backend, Write};
use crate::shape::Images;
use lab::{Lab, Output};
use std::fmt::Debug;

/// One call of one primitive.
trait Case: Debug + Sync {
    /// Makes the inputs, calls the primitive, records the results.
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>);
}

/// What is done with each case of the suite.
trait Visitor {
    fn visit(&mut self, case: impl Case);
}

/// Both ways to write.
const WRITES: [Write; 2] = [Write::Set, Write::Add];

/// Lengths around the sizes of vector registers (4, 8, 16), and odd ones.
const LENGTHS: [usize; 13] = [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 100];

/// Batches of one block, of several, with even and with uneven blocks.
const BATCHES: [usize; 6] = [0, 1, 5, 20, 33, 70];

/// Enough numbers to be spread over threads.
const LARGE_IMAGES: Images = Images {
    n: 70,
    c: 33,
    h: 16,
    w: 17,
};

/// Every primitive over awkward geometry.
fn visit_all(visitor: &mut impl Visitor) {
    linear::visit(visitor);
    images::visit(visitor);
    windows::visit(visitor);
    norm::visit(visitor);
    norm_after::visit(visitor);
    pixels::visit(visitor);
    loss::visit(visitor);
    rows::visit(visitor);
}

fn outputs<B: Backend>(backend: &B, case: &impl Case) -> Vec<Output> {
    let mut lab = Lab::new(backend, case);
    case.run(&mut lab);
    lab.outputs
}

/// Panics if a result of `backend` differs from that of the oracle by more than rounding.
#[track_caller]
fn check<B: Backend>(backend: &B, case: &impl Case) {
    let oracle = outputs(&Reference::<f64>::default(), case);
    for (got, want) in outputs(backend, case).iter().zip(&oracle) {
        assert_close(got, want, case);
    }
}

/// The comparison of the suite. A number that is a sum of `terms` terms of magnitude `scale` may be
/// off by `8·epsilon·(|want| + scale·sqrt(terms))`. NaN never passes.
#[track_caller]
fn assert_close(got: &Output, want: &Output, case: &impl Case) {
    assert_eq!(
        got.values.len(),
        want.values.len(),
        "{case:?}: length of {}",
        want.name
    );
    let sum = want.scale * (want.terms.max(1) as f64).sqrt();
    let allowed = |want: f64| 8.0 * f64::from(f32::EPSILON) * (want.abs() + sum);
    let error = |i: &usize| (got.values[*i] - want.values[*i]).abs();
    let differs = |i: &usize| {
        let close = error(i) <= allowed(want.values[*i]);
        !close // and so is a NaN on either side
    };
    let wrong: Vec<usize> = (0..want.values.len()).filter(differs).collect();
    let Some(&first) = wrong.first() else { return };
    let worst = wrong
        .iter()
        .copied()
        .max_by(|a, b| error(a).total_cmp(&error(b)));
    let worst = worst.unwrap_or(first);
    let show = |i: usize| format!("[{i}] is {}, expected {}", got.values[i], want.values[i]);
    panic!(
        "{case:?}: {} of {} numbers of {} differ; first {}; worst {}; allowed {:e}",
        wrong.len(),
        want.values.len(),
        want.name,
        show(first),
        show(worst),
        allowed(want.values[worst]),
    );
}

/// Compares with the oracle.
struct Agreement<'a, B>(&'a B);

impl<B: Backend> Visitor for Agreement<'_, B> {
    fn visit(&mut self, case: impl Case) {
        check(self.0, &case);
    }
}

/// Compares products of rounded factors with the oracle: the root of the mean square error, relative to that
/// of the result. What is no product is as exact as ever.
struct Rounded {
    cpu: Cpu,
    factors: Factors,
}

impl Visitor for Rounded {
    fn visit(&mut self, case: impl Case) {
        let oracle = outputs(&Reference::<f64>::default(), &case);
        for (got, want) in outputs(&self.cpu, &case).iter().zip(&oracle) {
            assert_eq!(got.values.len(), want.values.len(), "{case:?}");
            let size = want.values.iter().map(|x| x * x).sum::<f64>().sqrt();
            let errors = (got.values.iter().zip(&want.values)).map(|(x, y)| (x - y).powi(2));
            let error = errors.sum::<f64>().sqrt();
            // A few sums of noise may cancel by chance.
            let size = size.max((want.terms as f64).sqrt() / 3.0);
            let len = want.values.len();
            let allowed = tolerance(self.factors, len) * size + 1e-7 * (len as f64).sqrt();
            // A NaN is never close enough.
            assert!(
                error <= allowed,
                "{:?}, {case:?}: {} is off by {error:e}, allowed {allowed:e}",
                self.factors,
                want.name
            );
        }
    }
}

/// Runs the whole suite on a backend.
pub(super) fn check_backend<B: Backend<Elem = f32>>(make: impl Fn() -> B) {
    let backend = make();
    visit_all(&mut Agreement(&backend));
    random::check(&backend);
}

/// Compares the bits of two thread counts.
struct SameBits {
    pools: [rayon::ThreadPool; 2],
}

impl Visitor for SameBits {
    fn visit(&mut self, case: impl Case) {
        let [one, several] = self
            .pools
            .each_ref()
            .map(|pool| pool.install(|| outputs(&Cpu::default(), &case)));
        for (a, b) in one.iter().zip(&several) {
            let differs = |i: &usize| a.values[*i].to_bits() != b.values[*i].to_bits();
            if let Some(i) = (0..a.values.len()).find(differs) {
                let (x, y, name) = (a.values[i], b.values[i], a.name);
                panic!("{case:?}: {name}[{i}] is {x} on one thread, {y} on several");
            }
        }
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads")
}

#[test]
fn the_f32_reference_agrees_with_the_oracle() {
    check_backend(Reference::<f32>::default);
}

#[test]
fn the_cpu_agrees_with_the_oracle_on_one_thread() {
    pool(1).install(|| check_backend(Cpu::default));
}

#[test]
fn the_cpu_agrees_with_the_oracle_on_three_threads() {
    pool(3).install(|| check_backend(Cpu::default));
}

#[test]
fn rounded_factors_agree_with_the_oracle() {
    for factors in modes() {
        let cpu = Cpu::with_factors(factors);
        pool(1).install(|| {
            linear::visit_products(&mut Rounded { cpu, factors });
            windows::visit_convs(&mut Rounded { cpu, factors });
        });
    }
}

#[test]
fn the_cpu_gives_the_same_bits_for_any_thread_count() {
    visit_all(&mut SameBits {
        pools: [pool(1), pool(3)],
    });
}
