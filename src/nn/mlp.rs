//! Multi-layer perceptrons.

use super::init::{uniform, xavier_bound};
use super::{Backbone, Head, INITIAL_OUT_FEATURES, Linear, Module, MultiHeadClassifier};
use crate::tape::{Tape, Var};
use ndarray::ArrayD;

/// Linear layers with ReLU between them: the network of the paper's MNIST benchmarks with the sizes
/// `[784, 100, 100, C]`. Names as in a `torch.nn.Sequential`: `0`, `2`, `4`.
#[derive(Clone, Debug)]
pub struct Mlp {
    hidden: Vec<Linear>,
    head: Head,
}

impl Mlp {
    /// A network with these numbers of columns, from input to output, and PyTorch's default initial
    /// weights.
    ///
    /// # Panics
    /// If fewer than two sizes are given.
    #[track_caller]
    pub fn new(tape: &mut Tape, sizes: &[usize]) -> Self {
        assert!(
            sizes.len() >= 2,
            "an MLP has an input and an output size, found {sizes:?}"
        );
        let layer = |(i, pair): (usize, &[usize])| {
            Linear::new(tape, &(2 * i).to_string(), pair[0], pair[1])
        };
        let mut hidden: Vec<Linear> = sizes.windows(2).enumerate().map(layer).collect();
        let head = Head::Linear(hidden.pop().expect("at least one layer"));
        Mlp { hidden, head }
    }

    /// Draws the weights again as the paper's authors do: Xavier-uniform, with zero biases
    /// (`torch.nn.init.xavier_uniform_` layer by layer).
    ///
    /// # Panics
    /// If the head has been replaced by one that grows.
    #[track_caller]
    pub fn xavier(self, tape: &mut Tape) -> Self {
        let Head::Linear(last) = &self.head else {
            panic!("xavier: the network has a growing head");
        };
        for layer in self.hidden.iter().chain([last]) {
            let (fan_out, fan_in) = (layer.outputs, layer.inputs);
            let shape = vec![fan_out, fan_in];
            let bound = xavier_bound(fan_in, fan_out);
            let weights = uniform(tape.generator(), bound, fan_in * fan_out);
            let weights = ArrayD::from_shape_vec(shape, weights).expect("as many as before");
            tape.set_parameter(layer.weight, &weights)
                .expect("the shape it has");
            if let Some(bias) = layer.bias {
                tape.set_parameter(bias, &ArrayD::zeros(vec![fan_out]))
                    .expect("the shape it has");
            }
        }
        self
    }
}

impl Backbone for Mlp {
    fn features(&self, tape: &mut Tape, x: Var) -> Var {
        let mut x = tape.flatten(x);
        for layer in &self.hidden {
            x = layer.forward(tape, x);
            x = tape.relu(x);
        }
        x
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }

    fn features_treat_rows_apart(&self) -> bool {
        true
    }
}

/// Avalanche's `SimpleMLP`: blocks of linear layer, ReLU and dropout, then the classifier. Names as
/// there: `features.0`, `features.3.0`, `features.4.0`, …, `classifier`.
#[derive(Clone, Debug)]
pub struct SimpleMlp {
    features: Vec<Linear>,
    classifier: Head,
    drop_rate: f32,
}

impl SimpleMlp {
    /// A network of `hidden_layers` blocks of `hidden_size` columns. Avalanche's defaults are
    /// 10 classes, input 784, hidden 512, one layer, drop rate 0.5.
    ///
    /// # Panics
    /// If there is no hidden layer or the drop rate is not in `[0, 1)`.
    #[track_caller]
    pub fn new(
        tape: &mut Tape,
        num_classes: usize,
        input_size: usize,
        hidden_size: usize,
        hidden_layers: usize,
        drop_rate: f32,
    ) -> Self {
        assert!(
            hidden_layers >= 1,
            "SimpleMLP has at least one hidden layer"
        );
        assert!(
            (0.0..1.0).contains(&drop_rate),
            "a drop rate lies in [0, 1), found {drop_rate}"
        );
        let mut features = vec![Linear::new(tape, "features.0", input_size, hidden_size)];
        for i in 1..hidden_layers {
            let name = format!("features.{}.0", i + 2);
            features.push(Linear::new(tape, &name, hidden_size, hidden_size));
        }
        let classifier = Linear::new(tape, "classifier", hidden_size, num_classes);
        SimpleMlp {
            features,
            classifier: Head::Linear(classifier),
            drop_rate,
        }
    }

    /// Avalanche's `MTSimpleMLP`: one block and a head for each task. The drop rate there is 0.5.
    ///
    /// # Panics
    /// If the drop rate is not in `[0, 1)`.
    #[track_caller]
    pub fn multi_task(
        tape: &mut Tape,
        input_size: usize,
        hidden_size: usize,
        drop_rate: f32,
    ) -> Self {
        assert!(
            (0.0..1.0).contains(&drop_rate),
            "a drop rate lies in [0, 1), found {drop_rate}"
        );
        let features = vec![Linear::new(tape, "features.0", input_size, hidden_size)];
        let first = INITIAL_OUT_FEATURES;
        let head = MultiHeadClassifier::new(tape, "classifier", hidden_size, first);
        SimpleMlp {
            features,
            classifier: Head::MultiHead(head),
            drop_rate,
        }
    }
}

impl Backbone for SimpleMlp {
    fn features(&self, tape: &mut Tape, x: Var) -> Var {
        let mut x = tape.flatten(x);
        for layer in &self.features {
            x = layer.forward(tape, x);
            x = tape.relu(x);
            x = tape.dropout(x, self.drop_rate);
        }
        x
    }

    fn head(&self) -> &Head {
        &self.classifier
    }

    fn head_mut(&mut self) -> &mut Head {
        &mut self.classifier
    }

    fn features_treat_rows_apart(&self) -> bool {
        self.drop_rate == 0.0
    }
}
