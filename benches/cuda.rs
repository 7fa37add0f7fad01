//! Speed on an NVIDIA GPU: each primitive against what the device can do, training steps, whole runs.
//!
//! `cargo bench --features cuda --bench cuda -- [quick]` prints Markdown. Times are wall time around
//! enough work to fill 50 ms (`quick`: one call, to see that everything runs), the least of several.
//! GB/s counts what must be read and written at least once, GFLOP/s a multiplication and an addition
//! for each term.

use std::sync::Arc;
use std::time::Instant;

use unforget::backend::cuda::{Buffer, Cuda};
use unforget::backend::{
    Backend, BatchNorm, BatchNormBackward, Gemm, Precision, SgdStep, Upstream, View, ViewMut, Write,
};
use unforget::pixels::{Cutout, PixelRow};
use unforget::prelude::*;
use unforget::shape::{Conv, Images};
use unforget::tape::LossRows;

const PRECISIONS: [Precision; 3] = [Precision::Full, Precision::Tf32, Precision::Bf16];

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
        let n = if self.quick { 1 << 13 } else { 1 << 26 };
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
                dy: Upstream::Kept(src(&dy, n)),
                gamma: src(&gamma, c),
                beta: src(&gamma, c),
                mean: src(&mean, 2 * c),
                inv_std: src(&inv_std, 2 * c),
                y: None,
                residual: false,
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

/// Numbers of classes in the steps.
const CLASSES: usize = 10;

/// How the rows of a step of DER++ are divided: replayed and current ones in a single forward pass, or the
/// paper's three passes (current rows, rows for the logits, rows for the labels), which here are one pass over
/// three groups with batch statistics of their own.
#[derive(Clone, Copy)]
struct Rows {
    groups: usize,
    each: usize,
}

impl Rows {
    fn name(self) -> String {
        vec![self.each.to_string(); self.groups].join("+")
    }
}

/// Microseconds of a step of DER++ as in training: rows from the store on the GPU, forward, loss (read
/// back), backward, SGD.
fn step<M: Module + 'static>(
    quick: bool,
    precision: Precision,
    rows: Rows,
    [c, h, w]: [usize; 3],
    build: impl Fn(&mut Tape) -> M,
) -> Result<f64> {
    let mut tape = Tape::new(Device::Cuda(0))?;
    tape.set_precision(precision)?;
    let model = build(&mut tape);
    let Rows { groups, each } = rows;
    let n = groups * each;
    let pixels = rows_of_pixels(n, [c, h, w]);
    let labels: Vec<u32> = (0..n).map(|i| (i * 7 % CLASSES) as u32).collect();
    let targets: Vec<f32> = (0..each * CLASSES)
        .map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5)
        .collect();
    let (alpha, beta, share) = (0.2, 0.5, 1.0 / each as f64);
    // Of one pass the replayed rows come first, and give both other terms.
    let (current, first_target) = match groups {
        3 => (0..each, each),
        _ => (each..n, 0),
    };
    let loss = LossRows {
        labels: &labels,
        current: current.clone(),
        targets: &targets,
        first_target,
        widths: &[],
    };
    let weights = |row: usize| {
        let logits = (first_target..first_target + each).contains(&row);
        let mse = if logits {
            alpha * share / CLASSES as f64
        } else {
            0.0
        };
        let ce = match current.contains(&row) {
            true => share,
            false if groups == 3 && logits => 0.0,
            false => beta * share,
        };
        (ce, mse)
    };
    let sizes = vec![each; if groups == 3 { 3 } else { 0 }];
    let sgd = Sgd::new(1e-3).momentum(0.9);
    let seconds = least(
        quick,
        || {
            tape.begin(Mode::Train);
            tape.set_groups(&sizes);
            let x = tape.pixels(&[n, c, h, w], &[], &pixels);
            let logits = model.forward(&mut tape, x);
            let loss = tape.row_loss(logits, &loss, weights);
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
    let row = |name: &str, rows: Rows, us: f64| {
        println!("| {name} | {} | {us:.1} | {:.0} |", rows.name(), 1e6 / us);
    };
    let (mnist, cifar, width) = match quick {
        true => ([1, 4, 4], [3, 8, 8], 2),
        false => ([1, 28, 28], [3, 32, 32], 64),
    };
    for (groups, each) in [(2, 10), (2, 32), (3, 32), (2, 128)] {
        let rows = Rows { groups, each };
        let us = step(quick, precision, rows, mnist, |tape| {
            Mlp::new(tape, &[mnist.iter().product(), 100, 100, 10])
        })?;
        row("MLP 784-100-100-10", rows, us);
    }
    for (groups, each) in [(2, 32), (3, 32), (2, 128)] {
        let each = if quick { 2 } else { each };
        let rows = Rows { groups, each };
        let us = step(quick, precision, rows, cifar, |tape| {
            ResNet18::new(tape, CLASSES, width)
        })?;
        row("ResNet-18 (CIFAR)", rows, us);
    }
    Ok(())
}

/// Seconds of whole runs of DER++ with ResNet-18 over images shaped like CIFAR's, cropped and mirrored at random:
/// five experiences, 10 000 samples to learn, 2000 to evaluate after each experience.
fn whole_runs(quick: bool) -> Result<()> {
    println!(
        "\n| whole run shaped like Split-CIFAR-10, ResNet-18, 32+32 | training s | evaluation s |"
    );
    println!("|---|---|---|");
    let (side, width, samples) = if quick { (8, 2, 40) } else { (32, 64, 10_000) };
    let images = |n: usize| {
        let pixels = (0..n * 3 * side * side).map(|p| (p * 37 % 251 + p / 3072 % 5) as u8);
        let targets = (0..n).map(|i| (i % CLASSES) as u32).collect();
        Dataset::from_u8(
            "images",
            [3, side, side],
            pixels.collect(),
            targets,
            CLASSES,
        )
    };
    for precision in PRECISIONS {
        let eval = Transform::cifar10();
        let train = (eval.clone().random_crop(side, side, 4)).random_horizontal_flip(0.5);
        let groups = TransformGroups { train, eval };
        let benchmark = NcBenchmark::new(images(samples)?, images(samples / 5)?, groups);
        let benchmark = benchmark.n_experiences(5).build()?;
        let mut tape = Tape::new(Device::Cuda(0))?;
        tape.set_precision(precision)?;
        let model = ResNet18::new(&mut tape, CLASSES, width);
        let mut strategy = Der::builder(tape, model, Sgd::new(1e-3))
            .mem_size(500)
            .train_mb_size(if quick { 4 } else { 32 })
            .eval_mb_size(if quick { 4 } else { 256 })
            .build()?;
        let (mut training, mut evaluation) = (0.0, 0.0);
        for experience in benchmark.train_stream() {
            let start = Instant::now();
            strategy.train(experience)?;
            training += start.elapsed().as_secs_f64();
            let start = Instant::now();
            strategy.eval(benchmark.test_stream())?;
            evaluation += start.elapsed().as_secs_f64();
        }
        println!("| {precision:?} | {training:.2} | {evaluation:.2} |");
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
    for precision in PRECISIONS {
        bench.gpu.set_precision(precision);
        bench.products(precision)?;
        bench.images(precision)?;
    }
    for precision in PRECISIONS {
        steps(quick, precision)?;
    }
    whole_runs(quick)
}
