//! Speed on an NVIDIA GPU: each primitive against what the device can do, and whole training steps.
//!
//! `cargo bench --features cuda --bench cuda -- [quick]` prints Markdown. Times are wall time around
//! enough work to fill 50 ms (`quick`: one call, to see that everything runs), the least of several.
//! GB/s counts what must be read and written at least once, GFLOP/s a multiplication and an addition
//! for each term.

use std::sync::Arc;
use std::time::Instant;

use unforget::Result;
use unforget::backend::cuda::{Buffer, Cuda};
use unforget::backend::{
    Backend, BatchNorm, BatchNormBackward, Gemm, Precision, SgdStep, View, ViewMut, Write,
};
use unforget::nn::{Mlp, Module, ResNet18};
use unforget::optim::Sgd;
use unforget::pixels::{Cutout, PixelRow};
use unforget::shape::{Conv, Images};
use unforget::tape::{DerLoss, Device, Mode, Tape};

struct Bench {
    gpu: Cuda,
    quick: bool,
}

fn src(buf: &Buffer, len: usize) -> View<'_, Buffer> {
    View {
        buf,
        offset: 0,
        len,
    }
}

fn dst(buf: &mut Buffer, len: usize) -> ViewMut<'_, Buffer> {
    ViewMut {
        buf,
        offset: 0,
        len,
    }
}

/// The least seconds of one call of `f`; `finish` waits for what it started.
fn least(quick: bool, mut f: impl FnMut(), finish: impl Fn()) -> f64 {
    let mut time = |calls: usize| {
        let start = Instant::now();
        for _ in 0..calls {
            f();
        }
        finish();
        start.elapsed().as_secs_f64() / calls as f64
    };
    let once = time(1).min(time(1));
    if quick {
        return once;
    }
    let calls = (0.05 / once).clamp(2.0, 2000.0) as usize;
    (0..5).map(|_| time(calls)).fold(f64::INFINITY, f64::min)
}

impl Bench {
    fn numbers(&self, len: usize) -> Result<Buffer> {
        let host: Vec<f32> = (0..len)
            .map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5)
            .collect();
        let mut buf = self.gpu.alloc(len)?;
        self.gpu.upload(dst(&mut buf, len), &host);
        Ok(buf)
    }

    fn time(&self, f: impl FnMut()) -> f64 {
        least(self.quick, f, || self.gpu.finish())
    }

    fn memory(&self) -> Result<()> {
        println!("\n| primitive | numbers | µs | GB/s |\n|---|---|---|---|");
        let n = if self.quick { 1 << 12 } else { 1 << 26 };
        let (x, dy, mut y) = (self.numbers(n)?, self.numbers(n)?, self.numbers(n)?);
        let row = |name: &str, passes: usize, n: usize, seconds: f64| {
            let rate = (passes * n * 4) as f64 / seconds / 1e9;
            println!("| {name} | {n} | {:.1} | {rate:.0} |", seconds * 1e6);
        };
        let g = &self.gpu;
        let s = self.time(|| g.scale_add(dst(&mut y, n), src(&x, n), 1.0, Write::Set));
        row("copy", 2, n, s);
        let s = self.time(|| g.relu(dst(&mut y, n), src(&x, n)));
        row("relu", 2, n, s);
        let s = self.time(|| {
            g.relu_backward(dst(&mut y, n), src(&x, n), src(&dy, n), Write::Set);
        });
        row("relu backward", 3, n, s);
        let s = self.time(|| g.sum_rows(dst(&mut y, 64), src(&x, n), 64, Write::Set));
        row("sum of rows of 64", 1, n, s);
        let images = Images {
            n: n / 4096,
            c: 64,
            h: 8,
            w: 8,
        };
        let s = self.time(|| g.to_spatial(dst(&mut y, n), src(&x, n), images, Write::Set));
        row("to channels last", 2, n, s);
        let rows = rows_of_pixels(if self.quick { 2 } else { 256 }, [3, 32, 32]);
        let made = rows.len() * 3072;
        let s = self.time(|| g.gather_pixels(dst(&mut y, made), &rows));
        row("256 images of CIFAR from bytes, mirrored", 1, made, s);
        // The parameters of ResNet-18.
        let n = n.min(11_173_962);
        let (grads, mut v, mut p) = (self.numbers(n)?, self.numbers(n)?, self.numbers(n)?);
        let step = SgdStep {
            lr: 1e-4,
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 1e-4,
            nesterov: false,
            first: false,
        };
        let s = self.time(|| g.sgd(dst(&mut p, n), src(&grads, n), dst(&mut v, n), step));
        row("SGD with momentum", 5, n, s);
        Ok(())
    }

    fn products(&self, precision: Precision) -> Result<()> {
        println!(
            "\n| {precision:?} product | m | n | k | µs | GFLOP/s |\n|---|---|---|---|---|---|"
        );
        let most = if self.quick { 64 } else { 4096 };
        let square = [256, 512, 1024, 2048, 4096].map(|n| (n, n, n, false, false));
        let layers = [
            (20, 100, 784, false, false),
            (784, 100, 20, true, false),
            (256, 100, 784, false, false),
            (2048, 2048, 2048, true, false),
            (2048, 2048, 2048, false, true),
        ];
        for (m, n, k, a_transposed, b_transposed) in square.into_iter().chain(layers) {
            let [m, n, k] = [m, n, k].map(|size: usize| size.min(most));
            let dims = Gemm {
                m,
                n,
                k,
                a_transposed,
                b_transposed,
            };
            let (a, b, mut c) = (
                self.numbers(m * k)?,
                self.numbers(k * n)?,
                self.gpu.alloc(m * n)?,
            );
            let s = self.time(|| {
                let (a, b) = (src(&a, m * k), src(&b, k * n));
                self.gpu.gemm(dst(&mut c, m * n), a, b, dims, Write::Set);
            });
            let name = ["N", "T"].map(|x| x.to_string());
            let name = format!(
                "{}{}",
                name[usize::from(a_transposed)],
                name[usize::from(b_transposed)]
            );
            let rate = (2 * m * n * k) as f64 / s / 1e9;
            println!("| {name} | {m} | {n} | {k} | {:.1} | {rate:.0} |", s * 1e6);
        }
        Ok(())
    }

    /// The four kinds of 3x3 convolution of ResNet-18, and its batch normalisation.
    fn images(&self, precision: Precision) -> Result<()> {
        println!("\n| ResNet-18, batch 64, {precision:?} | µs | GFLOP/s |\n|---|---|---|");
        let batch = if self.quick { 2 } else { 64 };
        for (c, h) in [(64, 32), (128, 16), (256, 8), (512, 4)] {
            let c = if self.quick { 8 } else { c };
            let input = Images {
                n: batch,
                c,
                h,
                w: h,
            };
            let conv = Conv {
                input,
                out_c: c,
                kernel: [3, 3],
                stride: [1, 1],
                padding: [1, 1],
            };
            let (n, weights) = (input.len(), conv.weight_len());
            let (x, w) = (self.numbers(n)?, self.numbers(weights)?);
            let (mut y, mut dw) = (self.numbers(n)?, self.numbers(weights)?);
            let g = &self.gpu;
            let row = |what: &str, s: f64| {
                let rate = (2 * n * 9 * c) as f64 / s / 1e9;
                println!(
                    "| {c} channels {h}x{h}, {what} | {:.1} | {rate:.0} |",
                    s * 1e6
                );
            };
            let s = self.time(|| g.conv2d(dst(&mut y, n), src(&x, n), src(&w, weights), conv));
            row("forward", s);
            let s = self.time(|| {
                let (dy, w) = (src(&x, n), src(&w, weights));
                g.conv2d_backward_data(dst(&mut y, n), dy, w, conv, Write::Set);
            });
            row("gradient of the input", s);
            let s = self.time(|| {
                let (x, dy) = (src(&x, n), src(&y, n));
                g.conv2d_backward_weight(dst(&mut dw, weights), x, dy, conv, Write::Set);
            });
            row("gradient of the weight", s);
            self.norm(input)?;
        }
        Ok(())
    }

    fn norm(&self, images: Images) -> Result<()> {
        let (n, c) = (images.len(), images.c);
        let groups = [images.n / 2, images.n - images.n / 2];
        let (x, dy, mut y) = (self.numbers(n)?, self.numbers(n)?, self.numbers(n)?);
        let (gamma, mut running) = (self.numbers(2 * c)?, self.numbers(2 * c)?);
        let (mut mean, mut inv_std) = (self.numbers(2 * c)?, self.numbers(2 * c)?);
        let forward = self.time(|| {
            let args = BatchNorm {
                y: dst(&mut y, n),
                mean: dst(&mut mean, 2 * c),
                inv_std: dst(&mut inv_std, 2 * c),
                running: dst(&mut running, 2 * c),
                x: src(&x, n),
                gamma: src(&gamma, c),
                beta: src(&gamma, c),
                residual: None,
                relu: false,
            };
            self.gpu.batch_norm(args, images, &groups, 1e-5, 0.1);
        });
        let backward = self.time(|| {
            let args = BatchNormBackward {
                dx: Some((dst(&mut y, n), Write::Set)),
                dgamma_dbeta: dst(&mut running, 2 * c),
                x: src(&x, n),
                dy: src(&dy, n),
                gamma: src(&gamma, c),
                mean: src(&mean, 2 * c),
                inv_std: src(&inv_std, 2 * c),
                y: None,
                dresidual: None,
            };
            self.gpu
                .batch_norm_backward(args, images, &groups, Write::Set);
        });
        for (what, seconds) in [("forward", forward), ("backward", backward)] {
            let (us, h) = (seconds * 1e6, images.h);
            println!("| {c} channels {h}x{h}, batch normalisation {what} | {us:.1} | |");
        }
        Ok(())
    }
}

/// Rows from a store of a thousand images, every other one mirrored.
fn rows_of_pixels(n: usize, [c, h, w]: [usize; 3]) -> Vec<PixelRow> {
    let image = c * h * w;
    let pixels: Arc<[u8]> = (0..1000 * image).map(|i| (i * 37 % 251) as u8).collect();
    let tables: Arc<[_]> = vec![std::array::from_fn(|b| b as f32 / 255.0 - 0.5); c].into();
    (0..n)
        .map(|i| {
            let mut cutout = Cutout::whole([h, w]);
            if i % 2 == 1 {
                cutout.mirror();
            }
            PixelRow {
                pixels: pixels.clone(),
                first: i * 37 % 1000 * image,
                map: None,
                tables: tables.clone(),
                cutout,
            }
        })
        .collect()
}

/// Microseconds of a step of DER++ as in training: rows from the store on the GPU, forward, loss (read
/// back), backward, SGD.
fn step<M: Module + 'static>(
    quick: bool,
    precision: Precision,
    n: usize,
    [c, h, w]: [usize; 3],
    build: impl Fn(&mut Tape) -> M,
) -> Result<f64> {
    const CLASSES: usize = 10;
    let mut tape = Tape::new(Device::Cuda(0))?;
    tape.set_precision(precision)?;
    let model = build(&mut tape);
    let number = |i: usize| (i * 37 % 101) as f32 / 101.0 - 0.5;
    let rows = rows_of_pixels(n, [c, h, w]);
    let labels: Vec<u32> = (0..n).map(|i| (i * 7 % CLASSES) as u32).collect();
    let targets: Vec<f32> = (0..n / 2 * CLASSES).map(number).collect();
    let sgd = Sgd::new(1e-3).momentum(0.9);
    let seconds = least(
        quick,
        || {
            tape.begin(Mode::Train);
            let x = tape.pixels(&[n, c, h, w], &[], &rows);
            let logits = model.forward(&mut tape, x);
            let loss = DerLoss {
                labels: &labels,
                targets: &targets,
                widths: &[],
                replay: n / 2,
                alpha: 0.2,
                beta: 0.5,
            };
            let loss = tape.der_loss(logits, &loss);
            assert!(tape.item(loss).is_finite());
            tape.backward(loss);
            sgd.step(&mut tape);
        },
        || {},
    );
    Ok(seconds * 1e6)
}

fn steps(quick: bool, precision: Precision) -> Result<()> {
    println!("\n| step of DER++, {precision:?} | batch | µs | steps/s |\n|---|---|---|---|");
    let row = |name: &str, n: usize, us: f64| {
        println!("| {name} | {0}+{0} | {us:.1} | {1:.0} |", n / 2, 1e6 / us);
    };
    for n in [20, 64, 256] {
        let us = step(quick, precision, n, [1, 28, 28], |tape| {
            Mlp::new(tape, &[784, 100, 100, 10])
        })?;
        row("MLP 784-100-100-10", n, us);
    }
    if quick {
        return Ok(());
    }
    for n in [64, 256] {
        let us = step(quick, precision, n, [3, 32, 32], |tape| {
            ResNet18::new(tape, 10, 64)
        })?;
        row("ResNet-18 (CIFAR)", n, us);
    }
    Ok(())
}

fn main() -> Result<()> {
    let quick = std::env::args().any(|word| word == "quick");
    let mut bench = Bench {
        gpu: Cuda::new(0)?,
        quick,
    };
    println!(
        "{}, unforget {}",
        bench.gpu.name(),
        env!("CARGO_PKG_VERSION")
    );
    bench.memory()?;
    for precision in [Precision::Full, Precision::Tf32, Precision::Bf16] {
        bench.gpu.set_precision(precision);
        bench.products(precision)?;
        bench.images(precision)?;
        steps(quick, precision)?;
    }
    Ok(())
}
