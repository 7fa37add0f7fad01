//! Varied images: the same for any number of threads, new for every step, fresh at every replay.

use std::sync::{Arc, Mutex};

use unforget::data::{Group, Transform, TransformGroups};
use unforget::nn::Mlp;
use unforget::prelude::*;
use unforget::rng::{CounterKey, Purpose};
use unforget::training::{Plugin, State};

/// 24 colour images of 8 x 8 in four classes; no two pixels of an image are equal.
fn images() -> Dataset {
    let pixels = (0..24 * 192).map(|p| ((p % 192) + (p / 192)) as u8);
    let targets = (0..24).map(|i| i % 4).collect();
    Dataset::from_u8("images", [3, 8, 8], pixels.collect(), targets, 4).unwrap()
}

fn transforms() -> TransformGroups {
    let eval = Transform::cifar10();
    TransformGroups {
        train: eval
            .clone()
            .random_crop(8, 8, 2)
            .random_horizontal_flip(0.5),
        eval,
    }
}

fn key(step: u64, sample: u32) -> CounterKey {
    CounterKey {
        seed: 5,
        purpose: Purpose::Augmentation,
        step,
        sample,
    }
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap().install(work)
}

#[test]
fn rows_depend_on_their_key_only() {
    let view = ClassificationDataset::new(images(), transforms());
    // Enough of them that every thread takes some.
    let samples: Vec<usize> = (0..2400).map(|row| row % 24).collect();
    let gather = |threads, step, group| {
        on_threads(threads, || {
            let mut out = vec![0.0; samples.len() * 192];
            view.gather(&samples, group, key(step, 0), &mut out);
            out
        })
    };
    let first = gather(1, 7, Group::Train);
    for threads in [2, 3, 4] {
        assert!(
            gather(threads, 7, Group::Train) == first,
            "{threads} threads"
        );
    }
    let mut row = vec![0.0; 192];
    view.gather(&[13], Group::Train, key(7, 37), &mut row);
    assert_eq!(row, first[37 * 192..38 * 192], "row 37 alone");
    assert_ne!(
        row,
        first[13 * 192..14 * 192],
        "the same image in another row"
    );
    assert!(gather(1, 8, Group::Train) != first, "another step");
    let plain = view.images(Group::Eval);
    let evaluated = gather(2, 7, Group::Eval);
    assert_eq!(&evaluated[..24 * 192], plain.as_slice().unwrap());
}

/// How many rows of a mini-batch were replayed, and its pixels, replayed rows first.
type Batch = (usize, Vec<f32>);

/// Keeps every mini-batch.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<Batch>>>);

impl Plugin for Watch {
    fn after_forward(&mut self, state: &mut State) -> unforget::Result<()> {
        let pixels = state.mb_x().iter().copied().collect();
        self.0.lock().unwrap().push((state.replay_rows, pixels));
        Ok(())
    }
}

/// Every mini-batch of a run of DER over two experiences and the final accuracy.
fn run(threads: usize, seed: u64) -> (Vec<Batch>, EvalResult) {
    on_threads(threads, || {
        let benchmark = NcBenchmark::new(images(), images(), transforms());
        let benchmark = benchmark.n_experiences(2).build().unwrap();
        let mut tape = Tape::new(Device::Cpu).unwrap();
        tape.manual_seed(seed);
        let model = Mlp::new(&mut tape, &[192, 16, 4]);
        let watch = Watch::default();
        let mut strategy = Der::builder(tape, model, Sgd::new(0.1))
            .mem_size(1)
            .batch_size_mem(1)
            .train_mb_size(12)
            .train_epochs(6)
            .eval_mb_size(8)
            .plugin(watch.clone())
            .build()
            .unwrap();
        strategy.train(benchmark.train_stream()).unwrap();
        let result = strategy.eval(benchmark.test_stream()).unwrap();
        (std::mem::take(&mut *watch.0.lock().unwrap()), result)
    })
}

#[test]
fn a_run_is_the_same_on_any_number_of_threads() {
    let (first, result) = run(1, 3);
    assert_eq!(first.len(), 12);
    for threads in [2, 4] {
        let (batches, again) = run(threads, 3);
        assert!(batches == first, "{threads} threads");
        assert_eq!(again, result);
    }
    assert!(run(1, 4).0 != first, "another seed, other images");
}

#[test]
fn a_replayed_sample_is_varied_afresh() {
    let (batches, _) = run(1, 3);
    let replayed: Vec<&[f32]> = (batches.iter())
        .flat_map(|(rows, pixels)| pixels[..rows * 192].chunks(192))
        .collect();
    assert_eq!(replayed.len(), 6, "the one stored sample in six iterations");
    let mut views = replayed.clone();
    views.sort_by(|a, b| a.partial_cmp(b).unwrap());
    views.dedup();
    // Of the 50 views of one image, six draws show more than two.
    assert!(views.len() > 2, "{} views", views.len());
    let black = (0.0 - 0.4914) / 0.2023;
    assert!(
        views.iter().any(|view| view.contains(&black)),
        "a crop reaches outside"
    );
}
