//! Training steps of DER++ on made-up numbers: what `unforget bench` and `benches/steps.rs` time.

use crate::error::Result;
use crate::nn::models::{self, HeadKind, ModelOptions};
use crate::nn::{Mlp, Module};
use crate::optim::Sgd;
use crate::rng::TorchGenerator;
use crate::tape::{Awake, Device, LossRows, Mode, Precision, Tape};

const CLASSES: usize = 10;
const ALPHA: f64 = 0.2;
const BETA: f64 = 0.5;
/// So small that thousands of steps on the same few batches leave the network as it was: every step
/// meets ordinary numbers.
const LR: f32 = 1e-3;
/// Batches that the steps go through in turn.
const BATCHES: usize = 8;
/// Four in five numbers of MNIST's images are black, which is this value after normalisation, the others are parts
/// of strokes; so are those of the images made up for networks for MNIST: four neighbours are black where the first
/// lies below the bound.
const BLACK: f32 = -0.4242;
const BLACK_BELOW: f32 = 0.62;

/// A network with the shape of its step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// The name on the command line.
    pub name: &'static str,
    network: Network,
    /// Rows of the mini-batch, part by part: two parts are replay and current rows in Avalanche's
    /// order, three are the current rows and one replayed part for each of the other two terms, as
    /// the authors' code has them.
    parts: &'static [usize],
    /// Each part is normalised by its own statistics, as in a forward pass of its own.
    grouped: bool,
    /// How products multiply.
    pub precision: Precision,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Network {
    /// For images on a black ground.
    Mlp,
    /// The same for rows of noise.
    MlpOfNoise,
    SimpleCnn,
    ResNet(usize),
}

/// The steps that can be timed.
pub const WORKLOADS: [Workload; 9] = [
    Workload {
        name: "mlp-10+10",
        network: Network::Mlp,
        parts: &[10, 10],
        grouped: false,
        precision: Precision::Full,
    },
    Workload {
        name: "mlp-10+10-noise",
        network: Network::MlpOfNoise,
        parts: &[10, 10],
        grouped: false,
        precision: Precision::Full,
    },
    Workload {
        name: "mlp-3x128",
        network: Network::Mlp,
        parts: &[128, 128, 128],
        grouped: true,
        precision: Precision::Full,
    },
    Workload {
        name: "simple-cnn-10+10",
        network: Network::SimpleCnn,
        parts: &[10, 10],
        grouped: false,
        precision: Precision::Full,
    },
    Workload {
        name: "slim-resnet18-10+10",
        network: Network::ResNet(20),
        parts: &[10, 10],
        grouped: false,
        precision: Precision::Full,
    },
    Workload {
        name: "resnet18-32+32-f32",
        network: Network::ResNet(64),
        parts: &[32, 32],
        grouped: false,
        precision: Precision::Full,
    },
    RESNET18,
    Workload {
        name: "resnet18-3x32-high",
        precision: Precision::High,
        ..RESNET18
    },
    Workload {
        name: "resnet18-3x32-bf16",
        precision: Precision::Bf16,
        ..RESNET18
    },
];

const RESNET18: Workload = Workload {
    name: "resnet18-3x32-f32",
    network: Network::ResNet(64),
    parts: &[32, 32, 32],
    grouped: true,
    precision: Precision::Full,
};

impl Workload {
    /// The workload of this name.
    pub fn find(name: &str) -> Option<Workload> {
        WORKLOADS.into_iter().find(|w| w.name == name)
    }

    /// Rows of a step.
    pub fn samples(&self) -> usize {
        self.parts.iter().sum()
    }

    fn image(&self) -> [usize; 3] {
        match self.network {
            Network::Mlp | Network::MlpOfNoise => [1, 28, 28],
            Network::SimpleCnn | Network::ResNet(_) => [3, 32, 32],
        }
    }

    /// Floating point operations of a step's products, forward and backward, if each product and convolution
    /// is computed as its definition says and zeros of the padding are left out. The engine needs fewer for
    /// images on a black ground and where it uses Winograd's transforms.
    pub fn operations(&self) -> f64 {
        let layers = match self.network {
            Network::Mlp | Network::MlpOfNoise => vec![784 * 100, 100 * 100, 100 * CLASSES],
            Network::SimpleCnn => vec![
                3 * 32 * taps(32, 3, 1, 1),
                32 * 32 * taps(32, 3, 1, 0),
                32 * 64 * taps(15, 3, 1, 1),
                64 * 64 * taps(15, 3, 1, 0),
                64 * 64 * taps(6, 1, 1, 0),
                64 * CLASSES,
            ],
            Network::ResNet(width) => resnet(width),
        };
        // Forward, gradient of the weight, gradient of the input; nobody wants that of the images.
        let all: usize = layers.iter().sum();
        2.0 * (self.samples() * (3 * all - layers[0])) as f64
    }

    /// The network with its first weights, ready to train.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when there is no memory.
    pub fn start(&self) -> Result<Step> {
        let mut tape = Tape::new(Device::Cpu)?;
        tape.set_precision(self.precision)?;
        tape.manual_seed(0);
        let options = ModelOptions {
            head: HeadKind::Own,
            hidden_size: None,
            hidden_layers: None,
            drop_rate: None,
            xavier: false,
        };
        let build = |name: &str, tape: &mut Tape| {
            models::build(name, tape, self.image(), CLASSES, &options)
        };
        let model = match self.network {
            Network::Mlp | Network::MlpOfNoise => {
                Box::new(Mlp::new(&mut tape, &[784, 100, 100, CLASSES]))
            }
            Network::SimpleCnn => build("simple-cnn", &mut tape)?,
            Network::ResNet(20) => build("slim-resnet18", &mut tape)?,
            Network::ResNet(_) => build("resnet18", &mut tape)?,
        };
        let [c, h, w] = self.image();
        let n = self.samples();
        let mut generator = TorchGenerator::manual_seed(1);
        let mut noise =
            |len: usize| -> Vec<f32> { (0..len).map(|_| generator.uniform(-1.0, 1.0)).collect() };
        let images = |mut noise: Vec<f32>| {
            if self.network == Network::Mlp {
                let fours = noise.chunks_exact_mut(4);
                (fours.filter(|x| x[0] < BLACK_BELOW)).for_each(|x| x.fill(BLACK));
            }
            noise
        };
        let batches = (0..BATCHES).map(|batch| Batch {
            x: images(noise(n * c * h * w)),
            labels: (0..n).map(|i| ((i * 7 + batch) % CLASSES) as u32).collect(),
            targets: noise(n * CLASSES),
        });
        Ok(Step {
            _awake: tape.stay_awake(),
            workload: *self,
            dims: [n, c, h, w],
            batches: batches.collect(),
            tape,
            model,
            sgd: Sgd::new(LR),
            done: 0,
        })
    }
}

/// Pairs of an output and an input position that meet at a place of the kernel, for one channel of
/// a square image.
fn taps(size: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    let outputs = (size + 2 * padding - kernel) / stride + 1;
    let meets = |output: usize| {
        let start = output * stride;
        let inside = |t: &usize| (padding..size + padding).contains(&(start + t));
        (0..kernel).filter(inside).count()
    };
    let along: usize = (0..outputs).map(meets).sum();
    along * along
}

/// The products of each layer for one image, first layer first.
fn resnet(width: usize) -> Vec<usize> {
    let mut layers = vec![3 * width * taps(32, 3, 1, 1)];
    let (mut size, mut inputs) = (32, width);
    for stage in 0..4 {
        let channels = width << stage;
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            layers.push(inputs * channels * taps(size, 3, stride, 1));
            if stride == 2 {
                layers.push(inputs * channels * taps(size, 1, 2, 0));
                size /= 2;
            }
            layers.push(channels * channels * taps(size, 3, 1, 1));
            inputs = channels;
        }
    }
    layers.push(inputs * CLASSES);
    layers
}

struct Batch {
    x: Vec<f32>,
    labels: Vec<u32>,
    targets: Vec<f32>,
}

/// A network in training. As long as it lives, the other threads of its pool stay awake.
pub struct Step {
    _awake: Awake,
    workload: Workload,
    dims: [usize; 4],
    batches: Vec<Batch>,
    tape: Tape,
    model: Box<dyn Module>,
    sgd: Sgd,
    done: usize,
}

impl Step {
    /// One step, forward, backward and update; returns the loss.
    pub fn run(&mut self) -> f32 {
        let (tape, batch) = (&mut self.tape, &self.batches[self.done % BATCHES]);
        let parts = self.workload.parts;
        tape.begin(Mode::Train);
        if self.workload.grouped {
            tape.set_groups(parts);
        }
        let x = tape.input(&self.dims, &batch.x);
        let logits = self.model.forward(tape, x);
        // The weights of cross-entropy and of the squared distance, part by part.
        let n = |part: usize| parts[part] as f64;
        let current = |part| (1.0 / n(part), 0.0);
        let (old_logits, old_labels) = (
            |part| ALPHA / (n(part) * CLASSES as f64),
            |part| BETA / n(part),
        );
        let (weights, current) = match *parts {
            [replay, _] => (
                [(old_labels(0), old_logits(0)), current(1), (0.0, 0.0)],
                replay..self.dims[0],
            ),
            _ => (
                [current(0), (0.0, old_logits(1)), (old_labels(2), 0.0)],
                0..parts[0],
            ),
        };
        let rows = LossRows {
            labels: &batch.labels,
            current,
            targets: &batch.targets,
            first_target: 0,
            widths: &[],
        };
        let loss = tape.row_loss(logits, &rows, |row| weights[row / parts[0]]);
        tape.backward(loss);
        self.sgd.step(tape);
        self.done += 1;
        tape.item(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_known_networks() {
        let mlp = Workload::find("mlp-10+10").unwrap();
        let products = 2 * (784 * 100) + 3 * (100 * 100 + 100 * 10);
        assert_eq!(mlp.operations(), (2 * 20 * products) as f64);
        // Two rows of nine places lose one at each border: 3·32 - 2 along each axis.
        assert_eq!(taps(32, 3, 1, 1), 94 * 94);
        assert_eq!((taps(32, 3, 2, 1), taps(32, 1, 2, 0)), (47 * 47, 16 * 16));
        // PyTorch's profilers count 0.56 GMAC for ResNet-18 on 32x32, padding included.
        let all: usize = resnet(64).iter().sum();
        assert!((0.48e9..0.56e9).contains(&(all as f64)), "{all}");
    }

    #[test]
    fn every_step_trains_on_finite_numbers() {
        for workload in WORKLOADS.iter().filter(|w| !w.name.starts_with("resnet18")) {
            let mut step = workload.start().unwrap();
            let losses: Vec<f32> = (0..2 * BATCHES).map(|_| step.run()).collect();
            assert!(losses.iter().all(|l| l.is_finite()), "{losses:?}");
            let (first, again) = (losses[0], losses[BATCHES]);
            assert!(first != again, "{}: no step was made", workload.name);
        }
    }
}
