//! Loader workers: the bits of a run without them, the same errors, and no thread left behind.

use std::path::Path;
use std::sync::{Arc, Mutex};

use unforget::checkpoint::write_snapshot;
use unforget::data::on_disk::image_folder_on_disk;
use unforget::data::{Transform, TransformGroups};
use unforget::prelude::*;
use unforget::tape::Precision;
use unforget::training::*;

/// Notes the bits of every loss and of what was learned from, and ends the experience after so many of them.
#[derive(Clone, Default)]
struct Losses {
    bits: Arc<Mutex<Vec<u32>>>,
    stop_after: Option<usize>,
}

impl Plugin for Losses {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        let mut bits = self.bits.lock().unwrap();
        let rows = |sum: u32, x: &f32| sum.wrapping_mul(31).wrapping_add(x.to_bits());
        bits.push(s.mb_x().iter().fold(s.loss().total.to_bits(), rows));
        if self.stop_after == Some(bits.len()) {
            s.stop_training();
        }
        Ok(())
    }
}

/// Changes seed and clock in the middle of an epoch, as nobody should.
struct Meddler;

impl Plugin for Meddler {
    fn after_update(&mut self, s: &mut State) -> Result<()> {
        match s.clock.train_exp_iterations {
            2 => s.tape.manual_seed(77),
            4 => s.clock.train_iterations += 1000,
            _ => {}
        }
        Ok(())
    }
}

/// 80 images of 6 x 6 in four classes, cropped and turned at random.
fn varied() -> Benchmark {
    images(true, false)
}

/// The same as they are.
fn plain() -> Benchmark {
    images(false, false)
}

/// Cropped and turned, each experience of a task of its own.
fn of_tasks() -> Benchmark {
    images(true, true)
}

fn images(varied: bool, tasks: bool) -> Benchmark {
    let data = |name: &str, n: usize| {
        let pixels = (0..n * 36).map(|p| (p * 31 % 251) as u8).collect();
        let labels = (0..n).map(|i| i as u32 % 4).collect();
        Dataset::from_u8(name, [1, 6, 6], pixels, labels, 4).unwrap()
    };
    let eval = Transform::mnist();
    let train = match varied {
        true => eval
            .clone()
            .random_crop(6, 6, 2)
            .random_rotation(-20.0, 20.0),
        false => eval.clone(),
    };
    let transforms = TransformGroups { train, eval };
    NcBenchmark::new(data("train", 80), data("test", 30), transforms)
        .n_experiences(2)
        .return_task_id(tasks)
        .build()
        .unwrap()
}

type Build = fn(Tape, SimpleMlp, Sgd) -> StrategyBuilder;

fn builder(build: Build, input: usize, workers: usize) -> StrategyBuilder {
    let mut tape = Tape::new(Device::Cpu).unwrap();
    tape.manual_seed(3);
    let model = SimpleMlp::new(&mut tape, 4, input, 8, 1, 0.2);
    build(tape, model, Sgd::new(0.05).momentum(0.9))
        .mem_size(20)
        .batch_size_mem(4)
        .train_mb_size(7)
        .train_epochs(3)
        .eval_mb_size(4)
        .eval_every(1)
        .loader(LoaderOptions {
            num_workers: workers,
            ..LoaderOptions::default()
        })
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap().install(work)
}

/// What a run came to: the losses, and the bytes of everything that it would save.
fn outcome(mut strategy: Strategy, losses: &Losses, benchmark: &Benchmark) -> (Vec<u32>, Vec<u8>) {
    let test: &dyn Experiences = benchmark.test_stream();
    strategy
        .train_with(benchmark.train_stream(), &[test])
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    write_snapshot(&path, &strategy.save()).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let losses = losses.bits.lock().unwrap().clone();
    (losses, bytes[8 + header..].to_vec())
}

#[test]
fn any_number_of_workers_and_threads_gives_the_same_bits() {
    type Case = (&'static str, Build, fn() -> Benchmark, Option<usize>, bool);
    let cases: [Case; 8] = [
        ("der", Der::builder, varied, None, false),
        ("paper", PaperDer::builder, varied, None, false),
        // All rows are made by the tape, for which nobody works ahead.
        ("plain der", Der::builder, plain, None, false),
        ("plain paper", PaperDer::builder, plain, None, false),
        ("plain mir", Mir::builder, plain, None, false),
        // One experience of two tasks: the mini-batch is divided, the smaller task begins anew.
        ("joint", Joint::builder, of_tasks, None, false),
        ("stopped", Der::builder, varied, Some(9), false),
        ("meddled with", Der::builder, varied, None, true),
    ];
    for (name, build, images, stop_after, meddle) in cases {
        let run = |workers, threads| {
            on_threads(threads, || {
                let losses = Losses {
                    stop_after,
                    ..Losses::default()
                };
                let mut builder = builder(build, 36, workers).plugin(losses.clone());
                if meddle {
                    builder = builder.plugin(Meddler);
                }
                outcome(builder.build().unwrap(), &losses, &images())
            })
        };
        let alone = run(0, 1);
        assert!(alone.0.len() >= 24, "{name}: {} losses", alone.0.len());
        for (workers, threads) in [(1, 1), (2, 1), (5, 1), (2, 3), (0, 3)] {
            let found = run(workers, threads);
            assert!(found.0 == alone.0, "{name}: losses with {workers} workers");
            assert!(found.1 == alone.1, "{name}: state with {workers} workers");
        }
    }
}

/// Strokes on a black ground, which a first layer may multiply as the bytes that they are, in another way than
/// numbers: with bfloat16 factors two of them at a time.
#[test]
fn images_on_black_give_the_same_bits_with_workers() {
    let strokes = |n: usize| {
        let pixel = |p: usize| {
            if (p / 5).is_multiple_of(4) {
                (p * 31 % 251) as u8
            } else {
                0
            }
        };
        let pixels = (0..n * 144).map(pixel).collect();
        let labels = (0..n).map(|i| i as u32 % 4).collect();
        Dataset::from_u8("strokes", [1, 12, 12], pixels, labels, 4).unwrap()
    };
    let transforms = TransformGroups::same(Transform::mnist());
    let benchmark = NcBenchmark::new(strokes(800), strokes(300), transforms);
    let benchmark = benchmark.n_experiences(2).build().unwrap();
    for precision in [Precision::Full, Precision::Bf16] {
        let run = |workers| {
            let losses = Losses::default();
            let mut tape = Tape::new(Device::Cpu).unwrap();
            tape.set_precision(precision).unwrap();
            tape.manual_seed(3);
            let model = SimpleMlp::new(&mut tape, 4, 144, 100, 1, 0.2);
            let strategy = Der::builder(tape, model, Sgd::new(0.05))
                .mem_size(64)
                .train_mb_size(128)
                .eval_mb_size(128)
                .train_epochs(2)
                .eval_every(1)
                .loader(LoaderOptions {
                    num_workers: workers,
                    ..LoaderOptions::default()
                })
                .plugin(losses.clone());
            outcome(strategy.build().unwrap(), &losses, &benchmark)
        };
        let alone = run(0);
        assert!(alone.0.len() >= 10, "{} losses", alone.0.len());
        assert!(run(2) == alone, "{precision:?}");
    }
}

/// A folder of 24 pictures in two classes; one in the second class cannot be decoded.
fn pictures(folder: &Path) {
    for i in 0..24u32 {
        let class = folder.join(format!("class{}", i / 12));
        std::fs::create_dir_all(&class).unwrap();
        let path = class.join(format!("{i:02}.png"));
        if i == 17 {
            std::fs::write(path, "no picture").unwrap();
        } else {
            let pixel = |x, y| image::Rgb([(i * 9) as u8, (x * 40) as u8, (y * 40) as u8]);
            image::RgbImage::from_fn(4, 4, pixel).save(path).unwrap();
        }
    }
}

#[test]
fn a_picture_that_cannot_be_read_is_the_same_error_at_the_same_mini_batch() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = image_folder_on_disk(folder.path(), "pictures", [4, 4]).unwrap();
    let benchmark = NcBenchmark::new(data.clone(), data, TransformGroups::default());
    let benchmark = benchmark.n_experiences(2).shuffle(false).build().unwrap();
    let run = |workers| {
        let losses = Losses::default();
        let mut strategy = builder(Der::builder, 48, workers)
            .train_mb_size(3)
            .eval_every(None)
            .plugin(losses.clone())
            .build()
            .unwrap();
        let training = strategy.train(benchmark.train_stream()).unwrap_err();
        let evaluation = strategy.eval(benchmark.test_stream()).unwrap_err();
        let losses = losses.bits.lock().unwrap().clone();
        (losses, training.to_string(), evaluation.to_string())
    };
    let alone = run(0);
    assert!(
        alone.1.contains("17.png") && !alone.1.contains('\n'),
        "{}",
        alone.1
    );
    // The first experience in three epochs of four, and at most an epoch of the second.
    assert!((12..16).contains(&alone.0.len()), "{}", alone.0.len());
    for workers in [1, 2, 5] {
        assert_eq!(run(workers), alone, "{workers} workers");
    }
}
