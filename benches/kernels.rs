//! Speed of the products and convolutions, against the arithmetic peak measured in the same process
//! and against `matrixmultiply`.
//!
//! `cargo bench --bench kernels -- [gemm] [conv] [slim] [single] [bf16] [ISA] [threads=N] [json]`. Times are the
//! least CPU time of the calling thread (with more than one thread: the least wall time) over many calls,
//! which neighbours on a busy machine disturb least. With `json`, one object a line for the kernels that the
//! engine uses: `benches/rivals/compare_kernels.py` runs that in turn with PyTorch.

use std::hint::black_box;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use unforget::backend::cpu::probe::{Kernels, Rounded};
use unforget::backend::{Gemm, Write};
use unforget::shape::{Conv, Images};

/// Seconds on the clock of a measurement.
type Clock = fn() -> f64;

fn thread_time() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

fn wall_time() -> f64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// The least time of one call, over at least 0.25 s of calls. Short calls are timed in batches that
/// last longer than the clock takes to read.
fn least(clock: Clock, mut f: impl FnMut()) -> f64 {
    f();
    let start = clock();
    f();
    let batch = (100e-6 / (clock() - start).max(1e-9)).ceil().max(1.0) as usize;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.25 {
        let start = clock();
        for _ in 0..batch {
            f();
        }
        best = best.min((clock() - start) / batch as f64);
    }
    best
}

fn noise(len: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(next).collect()
}

struct Bench {
    clock: Clock,
    kernels: Vec<Kernels>,
    /// Operations a second of each of the kernels in registers alone.
    peaks: Vec<f64>,
    json: bool,
}

impl Bench {
    fn new(clock: Clock, threads: usize, kernels: Vec<Kernels>, json: bool) -> Self {
        let peak = |k: &Kernels| {
            let rounds = 100_000;
            k.burn(rounds) / least(thread_time, || _ = black_box(k.burn(rounds))) * threads as f64
        };
        let peaks: Vec<f64> = kernels.iter().map(peak).collect();
        for (k, peak) in kernels.iter().zip(&peaks).filter(|_| !json) {
            println!("peak of {:8} {:6.1} GFLOP/s", k.isa(), peak / 1e9);
        }
        Bench {
            clock,
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
            let rate = flops / least(self.clock, || f(k));
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
        let dims = Gemm {
            m,
            n,
            k,
            a_transposed: name.starts_with('T'),
            b_transposed: name.ends_with('T'),
        };
        let (a, b, mut c) = (noise(m * k), noise(k * n), noise(m * n));
        let flops = 2.0 * (m * n * k) as f64;
        self.row(&format!("gemm {name} {m} x {n} x {k}"), flops, |kernels| {
            kernels.gemm(
                black_box(&mut c),
                black_box(&a),
                black_box(&b),
                dims,
                Write::Set,
            );
        });
        if self.json {
            return;
        }
        let (a_row, a_col) = if dims.a_transposed { (1, m) } else { (k, 1) };
        let (b_row, b_col) = if dims.b_transposed { (1, k) } else { (n, 1) };
        let (a, b, c) = (noise(m * k), noise(k * n), &mut c);
        let time = least(self.clock, || {
            // SAFETY: the three matrices have the sizes and strides given.
            #[allow(unsafe_code)]
            unsafe {
                matrixmultiply::sgemm(
                    m,
                    k,
                    n,
                    1.0,
                    a.as_ptr(),
                    a_row as isize,
                    a_col as isize,
                    b.as_ptr(),
                    b_row as isize,
                    b_col as isize,
                    0.0,
                    c.as_mut_ptr(),
                    n as isize,
                    1,
                )
            };
        });
        println!(" | matrixmultiply {:6.1}", flops / time / 1e9);
    }
}

impl Bench {
    /// A square convolution with padding `kernel / 2`: all three passes, padding counted.
    fn conv(&self, n: usize, channels: [usize; 2], size: usize, kernel: usize, stride: usize) {
        let conv = geometry(n, channels, size, kernel, stride);
        let [c, out_c] = channels;
        let output = conv.output();
        let (mut x, mut y) = (noise(conv.input.len()), noise(output.len()));
        let mut w = noise(conv.weight_len());
        let flops = 2.0 * (conv.weight_len() * output.n * output.pixels()) as f64;
        let name = format!("n={n} {c}->{out_c} @{size} {kernel}x{kernel} /{stride}");
        let end = || {
            if !self.json {
                println!();
            }
        };
        self.row(&format!("forward {name}"), flops, |kernels| {
            kernels.conv2d(black_box(&mut y), &x, &w, conv);
        });
        end();
        self.row(&format!("data {name}"), flops, |kernels| {
            kernels.conv2d_backward_data(black_box(&mut x), &y, &w, conv);
        });
        end();
        self.row(&format!("weight {name}"), flops, |kernels| {
            kernels.conv2d_backward_weight(black_box(&mut w), &x, &y, conv);
        });
        end();
    }
}

/// Channels, size and stride of the 3x3 convolutions of ResNet-18 for images of 32x32.
const RESNET: [([usize; 2], usize, usize); 7] = [
    ([64, 64], 32, 1),
    ([64, 128], 32, 2),
    ([128, 128], 16, 1),
    ([128, 256], 16, 2),
    ([256, 256], 8, 1),
    ([256, 512], 8, 2),
    ([512, 512], 4, 1),
];

/// A square convolution with padding `kernel / 2`.
fn geometry(n: usize, [c, out_c]: [usize; 2], size: usize, kernel: usize, stride: usize) -> Conv {
    Conv {
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
    }
}

/// One way to multiply bfloat16 numbers: everything with rounded factors, however small, and in brackets
/// what the engine does, which is f32 where that is faster.
struct Bf16 {
    clock: Clock,
    rounded: Rounded,
    peak: f64,
}

impl Bf16 {
    fn new(clock: Clock, threads: usize, rounded: Rounded) -> Self {
        let rounds = 100_000;
        let least = least(thread_time, || _ = black_box(rounded.burn(rounds)));
        let peak = rounded.burn(rounds) / least * threads as f64;
        println!("peak of {:11} {:6.1} GFLOP/s", rounded.name(), peak / 1e9);
        Bf16 {
            clock,
            rounded,
            peak,
        }
    }

    fn row(&self, name: &str, flops: f64, mut f: impl FnMut(Rounded)) {
        let rate = flops / least(self.clock, || f(self.rounded));
        let engine = self.rounded.where_it_pays();
        let chosen = flops / least(self.clock, || f(engine));
        println!(
            "{name:34} | {} {:6.1} {:4.1} % ({:.1})",
            self.rounded.name(),
            rate / 1e9,
            100.0 * rate / self.peak,
            chosen / 1e9
        );
    }

    fn gemm(&self, name: &str, m: usize, n: usize, k: usize) {
        let dims = Gemm {
            m,
            n,
            k,
            a_transposed: name.starts_with('T'),
            b_transposed: name.ends_with('T'),
        };
        let (a, b, mut c) = (noise(m * k), noise(k * n), noise(m * n));
        let flops = 2.0 * (m * n * k) as f64;
        self.row(&format!("gemm {name} {m} x {n} x {k}"), flops, |rounded| {
            rounded.gemm(black_box(&mut c), &a, &b, dims, Write::Set);
        });
        let mut prepared = self.rounded.prepared(&a, &b, dims);
        let rate = flops / least(self.clock, || prepared(black_box(&mut c)));
        let percent = 100.0 * rate / self.peak;
        println!(
            "{:34} | {:6.1} {percent:4.1} %",
            "  factors prepared",
            rate / 1e9
        );
    }

    fn conv(&self, n: usize, channels: [usize; 2], size: usize, kernel: usize, stride: usize) {
        let conv = geometry(n, channels, size, kernel, stride);
        let output = conv.output();
        let (mut x, mut y) = (noise(conv.input.len()), noise(output.len()));
        let mut w = noise(conv.weight_len());
        let flops = 2.0 * (conv.weight_len() * output.n * output.pixels()) as f64;
        let [c, out_c] = channels;
        let name = format!("n={n} {c}->{out_c} @{size} {kernel}x{kernel} /{stride}");
        self.row(&format!("forward {name}"), flops, |rounded| {
            rounded.conv2d(black_box(&mut y), &x, &w, conv);
        });
        self.row(&format!("data    {name}"), flops, |rounded| {
            rounded.conv2d_backward_data(black_box(&mut x), &y, &w, conv);
        });
        self.row(&format!("weight  {name}"), flops, |rounded| {
            rounded.conv2d_backward_weight(black_box(&mut w), &x, &y, conv);
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
    let clock: Clock = if threads == 1 { thread_time } else { wall_time };
    pool.install(|| {
        if wants("bf16") {
            for rounded in Rounded::all(false) {
                let bench = Bf16::new(clock, threads, rounded);
                bench.gemm("NN", 1024, 1024, 1024);
                bench.gemm("NT", 1024, 1024, 1024);
                bench.gemm("TN", 1024, 1024, 1024);
                for rows in [20, 128, 384] {
                    bench.gemm("NN", rows, 100, 784);
                    bench.gemm("TN", 784, 100, rows);
                    bench.gemm("NN", rows, 100, 100);
                    bench.gemm("NT", rows, 100, 100);
                    bench.gemm("TN", 100, 100, rows);
                }
                bench.conv(32, [3, 64], 32, 3, 1);
                for (channels, size, stride) in RESNET {
                    bench.conv(32, channels, size, 3, stride);
                }
                bench.conv(32, [64, 128], 32, 1, 2);
            }
        }
        let bench = Bench::new(clock, threads, kernels, json);
        if wants("gemm") {
            for size in [256, 512, 1024] {
                bench.gemm("NN", size, size, size);
            }
            bench.gemm("NT", 1024, 1024, 1024);
            bench.gemm("TN", 1024, 1024, 1024);
            for rows in [20, 128, 384] {
                bench.gemm("NN", rows, 100, 784);
                bench.gemm("TN", 784, 100, rows);
                bench.gemm("NN", rows, 100, 100);
                bench.gemm("NT", rows, 100, 100);
                bench.gemm("TN", 100, 100, rows);
                bench.gemm("NN", rows, 10, 100);
                bench.gemm("NT", rows, 100, 10);
                bench.gemm("TN", 100, 10, rows);
            }
        }
        if wants("conv") {
            let n = 32;
            bench.conv(n, [3, 64], 32, 3, 1);
            for (channels, size, stride) in RESNET {
                bench.conv(n, channels, size, 3, stride);
            }
            bench.conv(n, [64, 128], 32, 1, 2);
        }
        if wants("slim") {
            let n = 20;
            bench.conv(n, [3, 20], 32, 3, 1);
            for (channels, size, stride) in [
                ([20, 20], 32, 1),
                ([20, 40], 32, 2),
                ([40, 40], 16, 1),
                ([40, 80], 16, 2),
                ([80, 80], 8, 1),
                ([80, 160], 8, 2),
                ([160, 160], 4, 1),
            ] {
                bench.conv(n, channels, size, 3, stride);
            }
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
