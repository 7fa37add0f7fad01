//! The models by name, as the command line and a configuration ask for them.

use super::{
    Backbone, INITIAL_OUT_FEATURES, LeNet5, Mlp, Module, ResNet18, ResNet32, SimpleCnn, SimpleMlp,
    with_incremental_head, with_multi_head,
};
use crate::error::{Error, Result};
use crate::tape::Tape;

/// The names that [`build`] knows. Those that begin with `mt` have a head for each task; they need a
/// benchmark with task labels to be more than one head.
pub const NAMES: [&str; 10] = [
    "mlp",
    "simple-mlp",
    "simple-cnn",
    "lenet5",
    "resnet18",
    "slim-resnet18",
    "resnet32",
    "mt-simple-mlp",
    "mt-simple-cnn",
    "mt-slim-resnet18",
];

/// What the last layer of a model is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeadKind {
    /// The model's own: as wide as there are classes, or, for the `mt-` models, one for each task.
    #[default]
    Own,
    /// One that grows with the classes ([`IncrementalClassifier`](super::IncrementalClassifier)).
    Incremental,
    /// One for each task, which grows with its classes
    /// ([`MultiHeadClassifier`](super::MultiHeadClassifier)).
    MultiHead,
}

/// The sizes of a model that has any, and its head.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ModelOptions {
    /// Columns of each hidden layer of `mlp` (default 100), `simple-mlp` and `mt-simple-mlp`
    /// (default 512).
    pub hidden_size: Option<usize>,
    /// Hidden layers of `mlp` (default 2) and `simple-mlp` (default 1).
    pub hidden_layers: Option<usize>,
    /// Drop rate of `simple-mlp` (default 0.5) and `simple-cnn` (default 0.25), also with several heads.
    pub drop_rate: Option<f32>,
    /// Xavier-uniform weights and zero biases for `mlp`, as in the paper.
    pub xavier: bool,
    /// The last layer; a growing one begins with 2 units.
    pub head: HeadKind,
}

/// Builds the model `name` for images of `input` (`[C, H, W]`) and `n_classes` classes.
///
/// # Errors
/// [`Error::Config`] for an unknown name or an option or an image that the model cannot have.
pub fn build(
    name: &str,
    tape: &mut Tape,
    input: [usize; 3],
    n_classes: usize,
    options: &ModelOptions,
) -> Result<Box<dyn Module>> {
    let [channels, height, width] = input;
    let flat = channels * height * width;
    let sizes = |size, layers| {
        (
            options.hidden_size.unwrap_or(size),
            options.hidden_layers.unwrap_or(layers),
        )
    };
    if options.hidden_size == Some(0) {
        return Err(Error::config("hidden-size", "at least 1", 0));
    }
    if let Some(rate) = options.drop_rate.filter(|r| !(0.0..1.0).contains(r)) {
        return Err(Error::config("drop-rate", "a probability in [0, 1)", rate));
    }
    let needs = |what: &str, fits: bool| {
        let found = format!("{name} for images of {channels}x{height}x{width}");
        if fits {
            Ok(())
        } else {
            Err(Error::config("model", what, found))
        }
    };
    if name.starts_with("mt-") && options.head != HeadKind::Own {
        let expected = "the head that a model with a head for each task has already";
        return Err(Error::config(
            "head",
            expected,
            format!("another for {name}"),
        ));
    }
    let head = options.head;
    Ok(match name {
        "mlp" => {
            let (size, layers) = sizes(100, 2);
            let mut all = vec![flat];
            all.extend(std::iter::repeat_n(size, layers));
            all.push(n_classes);
            let model = Mlp::new(tape, &all);
            let model = if options.xavier {
                model.xavier(tape)
            } else {
                model
            };
            with_head(tape, model, head)
        }
        "simple-mlp" => {
            let (size, layers) = sizes(512, 1);
            if layers == 0 {
                return Err(Error::config(
                    "hidden-layers",
                    "at least 1 for simple-mlp",
                    0,
                ));
            }
            let rate = options.drop_rate.unwrap_or(0.5);
            let model = SimpleMlp::new(tape, n_classes, flat, size, layers, rate);
            with_head(tape, model, head)
        }
        "mt-simple-mlp" => {
            if let Some(layers) = options.hidden_layers.filter(|&layers| layers != 1) {
                return Err(Error::config(
                    "hidden-layers",
                    "1 for mt-simple-mlp",
                    layers,
                ));
            }
            let rate = options.drop_rate.unwrap_or(0.5);
            Box::new(SimpleMlp::multi_task(tape, flat, sizes(512, 1).0, rate))
        }
        "simple-cnn" | "mt-simple-cnn" => {
            let fits = channels == 3 && height >= 10 && width >= 10;
            needs("RGB images of at least 10x10 for simple-cnn", fits)?;
            let model = match name {
                "simple-cnn" => SimpleCnn::new(tape, n_classes),
                _ => SimpleCnn::multi_task(tape),
            };
            let model = model.drop_rate(options.drop_rate.unwrap_or(0.25));
            with_head(tape, model, head)
        }
        "lenet5" => {
            needs("images of 32x32 for lenet5", height == 32 && width == 32)?;
            let model = LeNet5::new(tape, n_classes, channels);
            with_head(tape, model, head)
        }
        "resnet18" | "slim-resnet18" => {
            needs("RGB images for a ResNet", channels == 3)?;
            let width = if name == "resnet18" { 64 } else { 20 };
            let model = ResNet18::new(tape, n_classes, width);
            with_head(tape, model, head)
        }
        "mt-slim-resnet18" => {
            needs("RGB images for a ResNet", channels == 3)?;
            Box::new(ResNet18::multi_task(tape, n_classes, 20))
        }
        "resnet32" => {
            needs("RGB images for a ResNet", channels == 3)?;
            let model = ResNet32::new(tape, n_classes);
            with_head(tape, model, head)
        }
        _ => {
            return Err(Error::config(
                "model",
                format!("one of {}", NAMES.join(", ")),
                name,
            ));
        }
    })
}

/// The model with the head that was asked for.
fn with_head<M: Backbone + 'static>(tape: &mut Tape, model: M, head: HeadKind) -> Box<dyn Module> {
    match head {
        HeadKind::Own => Box::new(model),
        HeadKind::Incremental => Box::new(with_incremental_head(tape, model, INITIAL_OUT_FEATURES)),
        HeadKind::MultiHead => Box::new(with_multi_head(tape, model, INITIAL_OUT_FEATURES)),
    }
}
