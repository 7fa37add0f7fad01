//! The fused step of three groups against three passes, in f64.

use super::{PaperDer, PaperReplay, Plugin, State, Strategy};
use crate::Result;
use crate::benchmarks::Experience;
use crate::data::{ClassificationDataset, Dataset, Transform, TransformGroups};
use crate::nn::{Mlp, Module, ResNet18};
use crate::optim::Sgd;
use crate::replay::Buffer;
use crate::tape::{Device, Mode, Tape};
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const CLASSES: usize = 5;
const ALPHA: f32 = 0.7;
const BETA: f32 = 1.3;

/// What an iteration read and what came out of it.
#[derive(Default)]
struct Step {
    before: BTreeMap<String, ArrayD<f32>>,
    x: Vec<f32>,
    labels: Vec<u32>,
    stored: Vec<f32>,
    groups: Vec<usize>,
    loss: f32,
    logits: Vec<f32>,
    grads: Vec<(String, ArrayD<f32>)>,
    after: BTreeMap<String, ArrayD<f32>>,
}

/// Keeps the last iteration.
struct Capture(Arc<Mutex<Step>>);

impl Plugin for Capture {
    fn before_forward(&mut self, s: &mut State) -> Result<()> {
        self.0.lock().unwrap().before = s.tape.state_dict().into_iter().collect();
        Ok(())
    }

    fn after_backward(&mut self, s: &mut State) -> Result<()> {
        let mut step = self.0.lock().unwrap();
        step.x = s.mb_x().iter().copied().collect();
        step.labels = s.mb_y.clone();
        step.stored = s.mb_logits_stored.clone();
        step.groups = s.mb_groups.clone();
        step.loss = s.loss().total;
        step.logits = s.logits().to_vec();
        step.grads = grads(&s.tape);
        step.after = s.tape.state_dict().into_iter().collect();
        Ok(())
    }
}

fn grads(tape: &Tape) -> Vec<(String, ArrayD<f32>)> {
    let grad = |id| tape.parameter_grad(id).expect("every parameter has one");
    (tape.parameters().into_iter())
        .map(|id| (tape.parameter_name(id).to_string(), grad(id)))
        .collect()
}

fn data(shape: [usize; 3], n: usize) -> Experience {
    transformed(shape, n, TransformGroups::default())
}

fn transformed(shape: [usize; 3], n: usize, transforms: TransformGroups) -> Experience {
    let size = shape.iter().product::<usize>();
    let pixel = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
    let targets = (0..n).map(|i| (i % CLASSES) as u32).collect();
    let pixels = (0..n * size).map(pixel).collect();
    let base = Dataset::from_u8("noise", shape, pixels, targets, CLASSES).unwrap();
    let view = ClassificationDataset::new(base, transforms.fit(shape).unwrap().0);
    Experience::from_dataset(view, 0, "train")
}

fn near(what: &str, found: &ArrayD<f32>, wanted: &ArrayD<f32>) {
    let size = wanted.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    for (a, b) in found.iter().zip(wanted) {
        let far = (a - b).abs();
        assert!(
            far <= 1e-6 * size,
            "{what}: {a} for {b}, the largest is {size}"
        );
    }
}

/// Trains for three iterations of 7 samples with replay batches of 4, without moving the weights, and
/// does the third again as three passes, in which samples that both draws have are shown twice.
fn fused_is_three_passes<M: Module + 'static>(
    shape: [usize; 3],
    shares_rows: bool,
    model: fn(&mut Tape) -> M,
) {
    let step = Arc::new(Mutex::new(Step::default()));
    let mut tape = Tape::new(Device::Reference).unwrap();
    let network = model(&mut tape);
    let mut strategy = PaperDer::builder(tape, network, Sgd::new(0.0))
        .alpha(ALPHA)
        .beta(BETA)
        .mem_size(6)
        .train_mb_size(7)
        .batch_size_mem(4)
        .plugin(Capture(Arc::clone(&step)))
        .build()
        .unwrap();
    strategy.train(&data(shape, 21)).unwrap();
    let step = std::mem::take(&mut *step.lock().unwrap());
    assert_eq!(step.stored.len(), 4 * CLASSES);
    // Two draws of four samples of six share at least two.
    let n = step.labels.len();
    let (groups, rows): (&[usize], _) = match shares_rows {
        true => (&[], 13),
        false => (&[7, 4, 4], 15),
    };
    assert_eq!(step.groups, groups);
    assert!(if shares_rows { n <= rows } else { n == rows }, "{n} rows");

    let mut tape = Tape::new(Device::Reference).unwrap();
    let network = model(&mut tape);
    tape.load_state_dict(&step.before).unwrap();
    tape.begin(Mode::Train);
    let [c, h, w] = shape;
    let passes = [0..7, 7..11, n - 4..n];
    let logits = passes.map(|rows| {
        let x = &step.x[rows.start * c * h * w..rows.end * c * h * w];
        let x = tape.input(&[rows.len(), c, h, w], x);
        network.forward(&mut tape, x)
    });
    let current = tape.cross_entropy(logits[0], &step.labels[..7]);
    let stored = tape.input(&[4, CLASSES], &step.stored);
    let mse = tape.mse(logits[1], stored);
    let mse = tape.scale(mse, ALPHA);
    let replay = tape.cross_entropy(logits[2], &step.labels[n - 4..]);
    let replay = tape.scale(replay, BETA);
    let loss = tape.add(current, mse);
    let loss = tape.add(loss, replay);
    tape.backward(loss);

    let total = tape.item(loss);
    assert!(
        (step.loss - total).abs() <= 1e-6 * total,
        "{} for {total}",
        step.loss
    );
    for ((name, found), (_, wanted)) in step.grads.iter().zip(&grads(&tape)) {
        near(&format!("gradient of {name}"), found, wanted);
    }
    let wanted: BTreeMap<_, _> = tape.state_dict().into_iter().collect();
    assert_eq!(wanted.len(), step.after.len());
    for (name, wanted) in &wanted {
        near(name, &step.after[name], wanted);
    }
}

#[test]
fn one_step_of_an_mlp_is_three_passes() {
    fused_is_three_passes([1, 6, 6], true, |tape| {
        Mlp::new(tape, &[36, 20, 10, CLASSES])
    });
}

#[test]
fn one_step_of_a_resnet_is_three_passes_with_three_updates_in_order() {
    fused_is_three_passes([3, 8, 8], false, |tape| ResNet18::slim(tape, CLASSES));
}

fn reservoir(strategy: &Strategy) -> Vec<(u32, Vec<f32>)> {
    let Some(Buffer::Global(buffer)) = &strategy.state().storage_policy else {
        panic!("the paper's methods have the global reservoir");
    };
    let items = buffer.items().iter();
    items.map(|i| (i.source_index, i.logits.to_vec())).collect()
}

fn strategy(steps: &Arc<Mutex<Vec<Step>>>, beta: f32, er: bool) -> Strategy {
    struct All(Arc<Mutex<Vec<Step>>>);
    impl Plugin for All {
        fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
            self.0.lock().unwrap().push(Step {
                labels: s.mb_y.clone(),
                stored: s.mb_logits_stored.clone(),
                groups: s.mb_groups.clone(),
                logits: s.logits().to_vec(),
                loss: s.loss().total,
                ..Step::default()
            });
            Ok(())
        }
    }
    let mut tape = Tape::new(Device::Cpu).unwrap();
    let model = Mlp::new(&mut tape, &[36, 10, CLASSES]);
    let make = if er {
        PaperReplay::builder
    } else {
        PaperDer::builder
    };
    make(tape, model, Sgd::new(0.1))
        .beta(beta)
        .mem_size(50)
        .train_mb_size(5)
        .batch_size_mem(8)
        .plugin(All(Arc::clone(steps)))
        .build()
        .unwrap()
}

#[test]
fn replay_begins_with_the_second_iteration_and_takes_what_there_is() {
    for (beta, er, second) in [(0.5, false, 2), (0.0, false, 1), (0.5, true, 1)] {
        let steps = Arc::default();
        let mut strategy = strategy(&steps, beta, er);
        // By chance each draw may see a sample in another way, so each needs a row of its own.
        let flipped = Transform::default().random_horizontal_flip(0.5);
        let transforms = TransformGroups {
            train: flipped,
            ..TransformGroups::default()
        };
        let experience = transformed([1, 6, 6], 18, transforms);
        strategy.train(&experience).unwrap();
        let steps = steps.lock().unwrap();
        let rows: Vec<_> = steps.iter().map(|s| s.labels.len()).collect();
        // Four iterations of 5, 5, 5 and 3; the buffer holds 0, 5, 10 and 15 before them.
        assert_eq!(rows, [5, 5 + 5 * second, 5 + 8 * second, 3 + 8 * second]);
        let apart: &[usize] = match (er, second) {
            (true, _) => &[],
            (_, 2) => &[3, 8, 8],
            _ => &[3, 8, 0],
        };
        assert_eq!(steps[3].groups, apart);
    }
}

#[test]
fn a_sample_in_both_draws_is_one_row() {
    let steps = Arc::default();
    let mut strategy = strategy(&steps, 0.5, false);
    strategy.train(&data([1, 6, 6], 18)).unwrap();
    let steps = steps.lock().unwrap();
    let replayed: Vec<_> = (steps.iter().zip([5, 5, 5, 3]))
        .map(|(step, current)| step.labels.len() - current)
        .collect();
    // Twice all five, twice eight of ten, twice eight of fifteen.
    assert_eq!(replayed[..2], [0, 5]);
    assert!((8..=10).contains(&replayed[2]), "{replayed:?}");
    assert!((8..=15).contains(&replayed[3]), "{replayed:?}");
    let stored: Vec<_> = steps.iter().map(|s| s.stored.len() / CLASSES).collect();
    assert_eq!(stored, [0, 5, 8, 8]);
}

#[test]
fn the_logits_of_the_training_pass_are_stored_at_once_and_never_again() {
    let steps = Arc::default();
    let mut strategy = strategy(&steps, 0.5, false);
    strategy.train(&data([1, 6, 6], 18)).unwrap();
    let stored = reservoir(&strategy);
    assert_eq!(stored.len(), 18, "everything fits");
    let steps = steps.lock().unwrap();
    let logits: Vec<f32> = (steps.iter().zip([5, 5, 5, 3]))
        .flat_map(|(step, n)| step.logits[..n * CLASSES].to_vec())
        .collect();
    let kept: Vec<f32> = stored
        .iter()
        .flat_map(|(_, logits)| logits.clone())
        .collect();
    assert_eq!(kept, logits);
    let mut order: Vec<u32> = stored.iter().map(|(index, _)| *index).collect();
    let labels = |&i: &u32| i % CLASSES as u32;
    let seen: Vec<u32> = (steps.iter().zip([5, 5, 5, 3]))
        .flat_map(|(step, n)| step.labels[..n].to_vec())
        .collect();
    assert_eq!(order.iter().map(labels).collect::<Vec<_>>(), seen);
    order.sort_unstable();
    assert_eq!(order, (0..18).collect::<Vec<_>>());
}

#[test]
fn er_is_one_mean_over_current_and_replayed_rows() {
    let steps = Arc::default();
    let mut strategy = strategy(&steps, 0.5, true);
    strategy.train(&data([1, 6, 6], 10)).unwrap();
    let steps = steps.lock().unwrap();
    let step = &steps[1];
    assert_eq!(step.labels.len(), 10);
    let mean: f32 = (step.logits.chunks(CLASSES).zip(&step.labels))
        .map(|(row, &label)| row.iter().map(|x| x.exp()).sum::<f32>().ln() - row[label as usize])
        .sum::<f32>()
        / 10.0;
    assert!(
        (step.loss - mean).abs() <= 1e-6 * mean,
        "{} for {mean}",
        step.loss
    );
}
