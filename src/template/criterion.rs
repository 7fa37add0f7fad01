//! The loss of labels, where it is not the plain cross-entropy.

use crate::tape::{LossRows, Tape, Var};

/// A loss of logits and labels, Avalanche's `criterion`: a mean over the rows it is given.
///
/// Where Avalanche's `DER` falls back to plain cross-entropy as soon as replay begins, here the
/// same criterion is used for current and for replayed rows.
///
/// ```
/// use unforget::prelude::*;
/// use unforget::training::Criterion;
///
/// /// Half the cross-entropy.
/// struct Half;
///
/// impl Criterion for Half {
///     fn loss(&self, tape: &mut Tape, logits: Var, labels: &[u32]) -> Var {
///         let loss = tape.cross_entropy(logits, labels);
///         tape.scale(loss, 0.5)
///     }
/// }
/// ```
pub trait Criterion: Send {
    /// Records the loss of `logits` (`[n, classes]`) and `labels` (`n`) as one number.
    fn loss(&self, tape: &mut Tape, logits: Var, labels: &[u32]) -> Var;
}

/// Cross-entropy in which each class has its own weight, as PyTorch's
/// `CrossEntropyLoss(weight=...)`: `Σ_i w[y_i]·CE_i / Σ_i w[y_i]`.
#[derive(Clone, Debug)]
pub struct ClassWeights(pub Vec<f32>);

impl Criterion for ClassWeights {
    fn loss(&self, tape: &mut Tape, logits: Var, labels: &[u32]) -> Var {
        // A class beyond the list has the weight 1, so that heads may grow.
        let weight = |label: u32| self.0.get(label as usize).map_or(1.0, |&w| f64::from(w));
        let sum: f64 = labels.iter().map(|&label| weight(label)).sum();
        let rows = LossRows {
            labels,
            current: 0..labels.len(),
            targets: &[],
            first_target: 0,
            widths: &[],
        };
        tape.row_loss(logits, &rows, |i| (weight(labels[i]) / sum, 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{Device, Mode};

    #[test]
    fn class_weights_agree_with_pytorch() {
        // F.cross_entropy(torch.tensor([[1., 2, 0], [0.5, -1, 3]]), torch.tensor([1, 0]),
        //                 weight=torch.tensor([0.2, 1.5, 1.0]))
        let mut tape = Tape::new(Device::Cpu).unwrap();
        tape.begin(Mode::Train);
        let logits = tape.variable(&[2, 3], &[1.0, 2.0, 0.0, 0.5, -1.0, 3.0]);
        let loss = ClassWeights(vec![0.2, 1.5, 1.0]).loss(&mut tape, logits, &[1, 0]);
        let found = tape.item(loss);
        assert!((found - 0.665_025_8).abs() <= 1e-6, "{found}");
    }
}
