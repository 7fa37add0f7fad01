//! Batch normalisation within the strategies.

use crate::lab::{Probe, gradient, train};
use unforget::prelude::*;
use unforget::training::*;

/// A model with a batch normalisation, frozen or not.
struct Normalised(Linear, BatchNorm, Linear);

impl Normalised {
    fn strategy(frozen: bool, size: usize) -> StrategyBuilder {
        let mut tape = Tape::new(Device::Cpu).unwrap();
        let fc = Linear::new(&mut tape, "fc", 6, 8);
        let mut norm = BatchNorm::new(&mut tape, "bn", 8);
        norm.frozen = frozen;
        let model = Normalised(fc, norm, Linear::new(&mut tape, "head", 8, 6));
        Der::builder(tape, model, Sgd::new(0.05))
            .mem_size(10)
            .batch_size_mem(4)
            .train_mb_size(size)
            .eval_mb_size(8)
    }
}

impl Module for Normalised {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        let x = tape.flatten(x);
        let x = self.0.forward(tape, x);
        let x = self.1.forward(tape, x);
        let x = tape.relu(x);
        self.2.forward(tape, x)
    }
}

/// In Avalanche the pass over the data that DER stores ends with `model.train()`, so that a frozen
/// normalisation thaws after the first experience.
#[test]
fn a_frozen_normalisation_stays_frozen_through_ders_logits() {
    let batches = |frozen| {
        let (probe, notes) = Probe::new(Event::AfterTrainingExp, |s| {
            let running = s
                .tape
                .state_dict()
                .into_iter()
                .find(|(n, _)| n == "bn.running_mean");
            (s.tape.batches()[0].1, running.unwrap().1)
        });
        train(Normalised::strategy(frozen, 5).plugin(probe));
        let notes = notes.lock().unwrap();
        notes.clone()
    };
    let frozen = batches(true);
    assert_eq!(frozen.len(), 3);
    for (seen, mean) in frozen {
        assert_eq!(seen, 0);
        assert!(mean.iter().all(|&m| m == 0.0));
    }
    let thawed: Vec<u64> = batches(false).iter().map(|b| b.0).collect();
    assert_eq!(
        thawed,
        [4, 8, 12],
        "only the iterations count, not the pass over the stored"
    );
}

/// PyTorch refuses to normalise a single sample in training. Here its normalised value is the shift,
/// and the running statistics, which have no variance to learn from it, stay as they are.
#[test]
fn a_last_batch_of_one_sample_trains() {
    let (probe, notes) = Probe::new(Event::AfterBackward, |s| {
        let finite = gradient(s).iter().all(|g| g.is_finite());
        let state = s.tape.state_dict();
        let running: Vec<f32> = (state.iter().filter(|(n, _)| n.contains("running")))
            .flat_map(|(_, a)| a.iter().copied().collect::<Vec<_>>())
            .collect();
        (s.mb_y.len(), finite && s.loss().total.is_finite(), running)
    });
    train(Normalised::strategy(false, 19).plugin(probe));
    let notes = notes.lock().unwrap();
    let sizes: Vec<usize> = notes.iter().map(|n| n.0).collect();
    assert_eq!(sizes, [19, 1, 23, 5, 23, 5]);
    assert!(notes.iter().all(|n| n.1));
    assert_eq!(
        notes[1].2, notes[0].2,
        "nothing is learnt of a variance that is none"
    );
    assert_ne!(notes[3].2, notes[2].2);
}
