//! What every engine is given: networks, batches and initial weights, number for number those of
//! `unforget::experiment::bench` (and so of PyTorch after `torch.manual_seed(0)`).

use unforget::rng::TorchGenerator;

pub const CLASSES: usize = 10;
pub const ALPHA: f64 = 0.2;
pub const BETA: f64 = 0.5;
pub const LR: f64 = 1e-3;
const BATCHES: usize = 8;

#[derive(Clone, Copy)]
pub enum Network {
    /// 784-100-100-10.
    Mlp,
    /// ResNet-18 of the CIFAR papers with this many channels in its first stage.
    ResNet(usize),
}

/// A training step: the network and the rows of its mini-batch, part by part. Two parts are replay and
/// current rows; three are the current rows and a replayed part for each of the other two terms.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub network: Network,
    pub parts: &'static [usize],
    /// Each part has a forward pass of its own, so that batch normalisation sees them one by one.
    pub apart: bool,
}

pub const CASES: [Case; 5] = [
    Case {
        name: "mlp-10+10",
        network: Network::Mlp,
        parts: &[10, 10],
        apart: false,
    },
    Case {
        name: "mlp-3x128",
        network: Network::Mlp,
        parts: &[128, 128, 128],
        apart: false,
    },
    Case {
        name: "slim-resnet18-10+10",
        network: Network::ResNet(20),
        parts: &[10, 10],
        apart: false,
    },
    Case {
        name: "resnet18-32+32-f32",
        network: Network::ResNet(64),
        parts: &[32, 32],
        apart: false,
    },
    Case {
        name: "resnet18-3x32-f32",
        network: Network::ResNet(64),
        parts: &[32, 32, 32],
        apart: true,
    },
];

pub struct Batch {
    pub x: Vec<f32>,
    pub labels: Vec<u32>,
    /// The logits kept with the replayed rows.
    pub kept: Vec<f32>,
}

/// The terms of DER++: which part's rows go into the cross-entropy of current labels, the squared
/// distance and the cross-entropy of old labels.
pub struct Terms {
    pub current: usize,
    pub logits: usize,
    pub labels: usize,
}

impl Case {
    pub fn rows(&self) -> usize {
        self.parts.iter().sum()
    }

    /// Channels, height and width.
    pub fn image(&self) -> [usize; 3] {
        match self.network {
            Network::Mlp => [1, 28, 28],
            Network::ResNet(_) => [3, 32, 32],
        }
    }

    pub fn terms(&self) -> Terms {
        let [current, logits, labels] = if self.parts.len() == 2 {
            [1, 0, 0]
        } else {
            [0, 1, 2]
        };
        Terms {
            current,
            logits,
            labels,
        }
    }

    /// The first row of a part and how many it has.
    pub fn part(&self, part: usize) -> (usize, usize) {
        (self.parts[..part].iter().sum(), self.parts[part])
    }

    /// The batches that the steps go through in turn.
    pub fn batches(&self) -> Vec<Batch> {
        let n = self.rows();
        let pixels: usize = self.image().iter().product();
        let mut generator = TorchGenerator::manual_seed(1);
        let mut noise = |len| {
            (0..len)
                .map(|_| generator.uniform(-1.0, 1.0))
                .collect::<Vec<f32>>()
        };
        (0..BATCHES)
            .map(|batch| Batch {
                x: noise(n * pixels),
                labels: (0..n).map(|i| ((i * 7 + batch) % CLASSES) as u32).collect(),
                kept: noise(n * CLASSES),
            })
            .collect()
    }
}

/// Initial weights in the order in which PyTorch draws them.
pub struct Weights(TorchGenerator);

impl Weights {
    pub fn new() -> Self {
        Weights(TorchGenerator::manual_seed(0))
    }

    /// `count` weights, or biases, of a unit that sees `inputs` numbers.
    pub fn draw(&mut self, count: usize, inputs: usize) -> Vec<f32> {
        let bound = (1.0 / (inputs as f64).sqrt()) as f32;
        (0..count).map(|_| self.0.uniform(-bound, bound)).collect()
    }
}
