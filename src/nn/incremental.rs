//! A classifier that grows.

use super::{Adaptation, Linear, Module};
use crate::tape::{MaskId, Tape, Var};

/// Units of a growing head before it has seen a class, as in Avalanche.
pub const INITIAL_OUT_FEATURES: usize = 2;

/// What a masked unit gives, as in Avalanche: its softmax is 0.
pub(super) const MASK_VALUE: f32 = -1000.0;

/// Avalanche's `IncrementalClassifier`: a linear layer that grows when an experience brings a class
/// that it has no unit for. With masking, which is the default, units of classes that have not been
/// trained give -1000; training on an experience activates its classes for good, evaluating grows
/// the layer too but activates nothing.
///
/// Growing makes a fresh layer, which draws its initial weights as a whole, and copies the old rows
/// over it: the numbers drawn are those that PyTorch draws. Names as in Avalanche: `classifier.weight`,
/// `classifier.bias` and the mask `active_units` below the layer's own name.
///
/// ```
/// use unforget::nn::{Adaptation, IncrementalClassifier, Module};
/// use unforget::tape::{Device, Mode, Tape};
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let mut head = IncrementalClassifier::new(&mut tape, "head", 4, 2);
/// let experience = Adaptation { classes: &[3, 1], task_label: 0, training: true };
/// head.adapt(&mut tape, &experience);
/// assert_eq!(head.n_classes(), Some(4));
/// tape.begin(Mode::Eval);
/// let x = tape.input(&[1, 4], &[0.5; 4]);
/// let logits = head.forward(&mut tape, x);
/// let logits = tape.value(logits);
/// assert_eq!((logits[[0, 0]], logits[[0, 2]]), (-1000.0, -1000.0)); // 1 and 3 are active
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct IncrementalClassifier {
    classifier: Linear,
    units: MaskId,
    mask_value: Option<f32>,
}

impl IncrementalClassifier {
    /// A classifier of `in_features` columns with `initial_out_features` units, masked with -1000.
    ///
    /// # Panics
    /// If the tape already has parameters of this name.
    #[track_caller]
    pub fn new(
        tape: &mut Tape,
        name: &str,
        in_features: usize,
        initial_out_features: usize,
    ) -> Self {
        let inner = format!("{name}.classifier");
        let classifier = Linear::new(tape, &inner, in_features, initial_out_features);
        Self::around(tape, name, classifier)
    }

    /// A classifier whose linear layer exists already, under the name that it needs.
    #[track_caller]
    pub(super) fn around(tape: &mut Tape, name: &str, classifier: Linear) -> Self {
        IncrementalClassifier {
            classifier,
            units: tape.mask(&format!("{name}.active_units"), classifier.outputs),
            mask_value: Some(MASK_VALUE),
        }
    }

    /// Turns masking on (with -1000) or off.
    pub fn masking(self, masking: bool) -> Self {
        IncrementalClassifier {
            mask_value: masking.then_some(MASK_VALUE),
            ..self
        }
    }

    /// Masks with another value.
    pub fn mask_value(self, value: f32) -> Self {
        IncrementalClassifier {
            mask_value: Some(value),
            ..self
        }
    }

    /// How many units there are.
    pub fn width(&self) -> usize {
        self.classifier.outputs
    }
}

/// The units that classes up to the largest of `classes` need; `None` if there are no classes.
pub(super) fn units_for(classes: &[u32]) -> Option<usize> {
    classes.iter().max().map(|&largest| largest as usize + 1)
}

/// Makes `mask` at least `width` units long and, in training, activates those of `classes`.
pub(super) fn activate(tape: &mut Tape, mask: MaskId, width: usize, adaptation: &Adaptation<'_>) {
    let mut units = tape.mask_units(mask).to_vec();
    units.resize(width.max(units.len()), false);
    if adaptation.training {
        for &class in adaptation.classes {
            units[class as usize] = true;
        }
    }
    tape.set_mask_units(mask, units);
}

impl Module for IncrementalClassifier {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        let logits = self.classifier.forward(tape, x);
        match self.mask_value {
            Some(value) => tape.mask_columns(logits, self.units, value),
            None => logits,
        }
    }

    fn adapt(&mut self, tape: &mut Tape, adaptation: &Adaptation<'_>) {
        let Some(needed) = units_for(adaptation.classes) else {
            return;
        };
        let width = needed.max(self.width());
        if self.mask_value.is_some() {
            activate(tape, self.units, width, adaptation);
        }
        if width > self.width() {
            self.classifier.grow(tape, width);
        }
    }

    fn n_classes(&self) -> Option<usize> {
        Some(self.width())
    }

    fn active_units(&self, tape: &Tape, _task_label: u32) -> Option<Vec<bool>> {
        self.mask_value
            .map(|_| tape.mask_units(self.units).to_vec())
    }
}
