//! Speed of the products and convolutions, against the arithmetic peak measured in the same process
//! and against `matrixmultiply`.
//!
//! `cargo bench --bench kernels -- [gemm] [conv] [slim] [single] [bf16] [ISA] [threads=N] [json]`. Times are the least
//! wall times over many calls: neighbours on a busy machine disturb them least, and the processor time of a thread stands
//! still at times on a virtual one. With `json`, one object a line for the kernels that the
//! engine uses: `benches/rivals/compare_kernels.py` runs that in turn with PyTorch.

use std::hint::black_box;
use std::time::Instant;

use unforget::backend::cpu::probe::{Aligned, Kernels, Rounded};
use unforget::backend::{Gemm, Write};
use unforget::shape::{Conv, Images};

/// The least time of one call, over at least 0.25 s of calls. Short calls are timed in batches that
/// last longer than the clock takes to read.
fn least(mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    f();
    let once = start.elapsed().as_secs_f64();
    let batch = (100e-6 / once.max(1e-9)).ceil().max(1.0) as usize;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.25 {
        let start = Instant::now();
        for _ in 0..batch {
            f();
        }
        best = best.min(start.elapsed().as_secs_f64() / batch as f64);
    }
    best
}

fn noise(len: usize) -> Aligned {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    Aligned::from_fn(len, next)
}

struct Bench {
    kernels: Vec<Kernels>,
    /// Operations a second of each of the kernels in registers alone.
    peaks: Vec<f64>,
    json: bool,
}

impl Bench {
    fn new(threads: usize, kernels: Vec<Kernels>, json: bool) -> Self {
        let peak = |k: &Kernels| {
            let rounds = 100_000;
            k.burn(rounds) / least(|| _ = black_box(k.burn(rounds))) * threads as f64
        };
        let peaks: Vec<f64> = kernels.iter().map(peak).collect();
        for (k, peak) in kernels.iter().zip(&peaks).filter(|_| !json) {
            println!("peak of {:8} {:6.1} GFLOP/s", k.isa(), peak / 1e9);
        }
        Bench {
            kernels,
            peaks,
            json,
        }
    }

    /// Prints the speed of `f` on each table.
    fn row(&self, name: &str, flops: f64, mut f: impl FnMut(Kernels)) {
        if !self.json {
            print!("{name:34}");
        }
        for (&k, peak) in self.kernels.iter().zip(&self.peaks) {
            let rate = flops / least(|| f(k));
            if self.json {
                println!(
                    "{{\"name\":\"{name}\",\"isa\":\"{}\",\"gflops\":{:.1},\"percent\":{:.1}}}",
                    k.isa(),
                    rate / 1e9,
                    100.0 * rate / peak
                );
                continue;
            }
            print!(
                " | {:8} {:6.1} {:4.1} %",
                k.isa(),
                rate / 1e9,
                100.0 * rate / peak
            );
        }
    }

    fn gemm(&self, name: &str, m: usize, n: usize, k: usize) {
        let mut p = Product::new(name, m, n, k);
        self.row(&p.name, p.flops, |kernels| {
            let (a, b) = (black_box(&p.a), black_box(&p.b));
            kernels.gemm(black_box(&mut p.c), a, b, p.dims, Write::Set);
        });
        if self.json {
            return;
        }
        let (a_row, a_col) = if p.dims.a_transposed { (1, m) } else { (k, 1) };
        let (b_row, b_col) = if p.dims.b_transposed { (1, k) } else { (n, 1) };
        let time = least(|| {
            // SAFETY: the three matrices have the sizes and strides given.
            #[allow(unsafe_code)]
            unsafe {
                matrixmultiply::sgemm(
                    m,
                    k,
                    n,
                    1.0,
                    p.a.as_ptr(),
                    a_row as isize,
                    a_col as isize,
                    p.b.as_ptr(),
                    b_row as isize,
                    b_col as isize,
                    0.0,
                    p.c.as_mut_ptr(),
                    n as isize,
                    1,
                )
            };
        });
        println!(" | matrixmultiply {:6.1}", p.flops / time / 1e9);
    }
}

impl Bench {
    /// A square convolution with padding `kernel / 2`: all three passes, padding counted.
    fn conv(&self, n: usize, channels: [usize; 2], size: usize, kernel: usize, stride: usize) {
        let mut c = Convolution::new(n, channels, size, kernel, stride);
        let end = || {
            if !self.json {
                println!();
            }
        };
        self.row(&format!("forward {}", c.name), c.flops, |kernels| {
            kernels.conv2d(black_box(&mut c.y), &c.x, &c.w, c.conv);
        });
        end();
        self.row(&format!("data {}", c.name), c.flops, |kernels| {
            kernels.conv2d_backward_data(black_box(&mut c.x), &c.y, &c.w, c.conv);
        });
        end();
        self.row(&format!("weight {}", c.name), c.flops, |kernels| {
            kernels.conv2d_backward_weight(black_box(&mut c.w), &c.x, &c.y, c.conv);
        });
        end();
    }
}

/// A product of made-up numbers.
struct Product {
    name: String,
    dims: Gemm,
    flops: f64,
    a: Aligned,
    b: Aligned,
    c: Aligned,
}

impl Product {
    /// `name` says which factors are transposed, as in `NT`.
    fn new(name: &str, m: usize, n: usize, k: usize) -> Self {
        Product {
            name: format!("gemm {name} {m} x {n} x {k}"),
            dims: Gemm {
                m,
                n,
                k,
                a_transposed: name.starts_with('T'),
                b_transposed: name.ends_with('T'),
            },
            flops: 2.0 * (m * n * k) as f64,
            a: noise(m * k),
            b: noise(k * n),
            c: noise(m * n),
        }
    }
}

/// A square convolution with padding `kernel / 2` of made-up numbers. The padding counts as work.
struct Convolution {
    name: String,
    conv: Conv,
    flops: f64,
    x: Aligned,
    y: Aligned,
    w: Aligned,
}

impl Convolution {
    fn new(n: usize, [c, out_c]: [usize; 2], size: usize, kernel: usize, stride: usize) -> Self {
        let conv = Conv {
            input: Images {
                n,
                c,
                h: size,
                w: size,
            },
            out_c,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
        };
        let output = conv.output();
        Convolution {
            name: format!("n={n} {c}->{out_c} @{size} {kernel}x{kernel} /{stride}"),
            conv,
            flops: 2.0 * (conv.weight_len() * output.n * output.pixels()) as f64,
            x: noise(conv.input.len()),
            y: noise(output.len()),
            w: noise(conv.weight_len()),
        }
    }
}

/// The products of the hidden layers of 784-100-100-10 for a mini-batch of so many rows.
fn hidden_layers(rows: usize, gemm: impl Fn(&str, usize, usize, usize)) {
    gemm("NN", rows, 100, 784);
    gemm("TN", 784, 100, rows);
    gemm("NN", rows, 100, 100);
    gemm("NT", rows, 100, 100);
    gemm("TN", 100, 100, rows);
}

/// The convolutions of ResNet-18 with so many channels in its first stage, for images of 32x32: images,
/// channels, size, kernel, stride.
fn resnet(n: usize, width: usize, conv: impl Fn(usize, [usize; 2], usize, usize, usize)) {
    conv(n, [3, width], 32, 3, 1);
    conv(n, [width, width], 32, 3, 1);
    for stage in 1..4 {
        let (channels, size) = (width << stage, 32 >> stage);
        conv(n, [channels / 2, channels], 2 * size, 3, 2);
        conv(n, [channels, channels], size, 3, 1);
    }
}

/// One way to multiply bfloat16 numbers: everything with rounded factors, however small, and in brackets
/// what the engine does, which is f32 where that is faster.
struct Bf16 {
    rounded: Rounded,
    peak: f64,
}

impl Bf16 {
    fn new(threads: usize, rounded: Rounded) -> Self {
        let rounds = 100_000;
        let least = least(|| _ = black_box(rounded.burn(rounds)));
        let peak = rounded.burn(rounds) / least * threads as f64;
        println!("peak of {:11} {:6.1} GFLOP/s", rounded.name(), peak / 1e9);
        Bf16 { rounded, peak }
    }

    fn row(&self, name: &str, flops: f64, mut f: impl FnMut(Rounded)) {
        let rate = flops / least(|| f(self.rounded));
        let engine = self.rounded.where_it_pays();
        let chosen = flops / least(|| f(engine));
        println!(
            "{name:34} | {} {:6.1} {:4.1} % ({:.1})",
            self.rounded.name(),
            rate / 1e9,
            100.0 * rate / self.peak,
            chosen / 1e9
        );
    }

    fn gemm(&self, name: &str, m: usize, n: usize, k: usize) {
        let mut p = Product::new(name, m, n, k);
        self.row(&p.name, p.flops, |rounded| {
            rounded.gemm(black_box(&mut p.c), &p.a, &p.b, p.dims, Write::Set);
        });
        let mut prepared = self.rounded.prepared(&p.a, &p.b, p.dims);
        let rate = p.flops / least(|| prepared(black_box(&mut p.c)));
        let percent = 100.0 * rate / self.peak;
        println!(
            "{:34} | {:6.1} {percent:4.1} %",
            "  factors prepared",
            rate / 1e9
        );
    }

    fn conv(&self, n: usize, channels: [usize; 2], size: usize, kernel: usize, stride: usize) {
        let mut c = Convolution::new(n, channels, size, kernel, stride);
        self.row(&format!("forward {}", c.name), c.flops, |rounded| {
            rounded.conv2d(black_box(&mut c.y), &c.x, &c.w, c.conv);
        });
        self.row(&format!("data    {}", c.name), c.flops, |rounded| {
            rounded.conv2d_backward_data(black_box(&mut c.x), &c.y, &c.w, c.conv);
        });
        self.row(&format!("weight  {}", c.name), c.flops, |rounded| {
            rounded.conv2d_backward_weight(black_box(&mut c.w), &c.x, &c.y, c.conv);
        });
    }
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let (mut threads, mut json) = (1, false);
    let mut names: Vec<String> = Vec::new();
    let mut isas: Vec<String> = Vec::new();
    for arg in args {
        if let Some(n) = arg.strip_prefix("threads=") {
            threads = n.parse().expect("threads=N takes a number");
        } else if arg == "json" {
            json = true;
            isas.push(Kernels::selected().isa().name().to_string());
        } else if Kernels::all().any(|k| k.isa().name() == arg) {
            isas.push(arg);
        } else {
            names.push(arg);
        }
    }
    let wants = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let kernels = Kernels::all()
        .filter(|k| isas.is_empty() || isas.iter().any(|n| n == k.isa().name()))
        .collect();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a thread pool");
    pool.install(|| {
        if wants("bf16") {
            for rounded in Rounded::all(false) {
                let bench = Bf16::new(threads, rounded);
                bench.gemm("NN", 1024, 1024, 1024);
                bench.gemm("NT", 1024, 1024, 1024);
                bench.gemm("TN", 1024, 1024, 1024);
                for rows in [20, 128, 384] {
                    hidden_layers(rows, |name, m, n, k| bench.gemm(name, m, n, k));
                }
                resnet(32, 64, |n, c, size, k, stride| {
                    bench.conv(n, c, size, k, stride)
                });
                bench.conv(32, [64, 128], 32, 1, 2);
            }
        }
        let bench = Bench::new(threads, kernels, json);
        if wants("gemm") {
            for size in [256, 512, 1024] {
                bench.gemm("NN", size, size, size);
            }
            bench.gemm("NT", 1024, 1024, 1024);
            bench.gemm("TN", 1024, 1024, 1024);
            for rows in [20, 128, 384] {
                hidden_layers(rows, |name, m, n, k| bench.gemm(name, m, n, k));
                bench.gemm("NN", rows, 10, 100);
                bench.gemm("NT", rows, 100, 10);
                bench.gemm("TN", 100, 10, rows);
            }
        }
        if wants("conv") {
            resnet(32, 64, |n, c, size, k, stride| {
                bench.conv(n, c, size, k, stride)
            });
            bench.conv(32, [64, 128], 32, 1, 2);
        }
        if wants("slim") {
            resnet(20, 20, |n, c, size, k, stride| {
                bench.conv(n, c, size, k, stride)
            });
        }
        if wants("single") {
            for n in [1, 4] {
                for (channels, size, stride) in [
                    ([64, 64], 32, 1),
                    ([64, 128], 32, 2),
                    ([256, 256], 8, 1),
                    ([512, 512], 4, 1),
                ] {
                    bench.conv(n, channels, size, 3, stride);
                }
            }
        }
    });
}
