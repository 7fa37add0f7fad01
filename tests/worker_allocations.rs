//! Gathering ahead allocates nothing once its memory goes round, and its threads end with the training.

#[path = "common/counting.rs"]
mod counting;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use counting::{ARMED, COUNT};
use unforget::data::{Transform, TransformGroups};
use unforget::evaluation::EvaluationPlugin;
use unforget::prelude::*;
use unforget::training::{LoaderOptions, Plugin, State};

/// Iterations that are counted together. A thread may block for the first time, and get its place in a
/// queue, in any of them; so the best stretch counts: what every step allocates is in all of them.
const STRETCH: u64 = 20;

/// The threads of this process that are loader workers; `None` where the system does not tell.
fn loaders() -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    let names = tasks.flatten().flat_map(name);
    Some(names.filter(|name| name.trim() == "loader").count())
}

/// What the stretches of the second experience allocate, and how many workers there are then; fails in
/// the middle of an epoch.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<(Vec<usize>, Option<usize>)>>);

impl Plugin for Watch {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        let at = s.clock.train_epoch_iterations;
        if s.clock.train_exp_counter == 0 || !at.is_multiple_of(STRETCH) {
            return Ok(());
        }
        ARMED.store(false, SeqCst);
        let mut found = self.0.lock().unwrap();
        found.0.push(COUNT.swap(0, SeqCst));
        if at == 8 * STRETCH {
            found.1 = loaders();
            return Err(Error::Interrupted("enough".into()));
        }
        ARMED.store(true, SeqCst);
        Ok(())
    }
}

#[test]
fn gathering_ahead_allocates_nothing_and_leaves_no_thread() {
    let data = |name: &str, n: usize| {
        let pixels = (0..n * 64).map(|p| (p * 31 % 251) as u8).collect();
        let labels = (0..n).map(|i| i as u32 % 4).collect();
        Dataset::from_u8(name, [1, 8, 8], pixels, labels, 4).unwrap()
    };
    let transform = Transform::mnist().random_crop(8, 8, 2);
    let transforms = TransformGroups::same(transform.random_rotation(-20.0, 20.0));
    let benchmark = NcBenchmark::new(data("train", 1600), data("test", 8), transforms);
    let benchmark = benchmark.n_experiences(2).build().unwrap();
    let mut tape = Tape::new(Device::Cpu).unwrap();
    let model = Mlp::new(&mut tape, &[64, 16, 4]);
    let watch = Watch::default();
    let mut strategy = Der::builder(tape, model, Sgd::new(0.01))
        .mem_size(60)
        .train_mb_size(4)
        .loader(LoaderOptions {
            num_workers: 2,
            ..LoaderOptions::default()
        })
        .evaluator(EvaluationPlugin::new())
        .plugin(watch.clone())
        .build()
        .unwrap();
    let end = strategy.train(benchmark.train_stream()).unwrap_err();
    assert!(matches!(end, Error::Interrupted(_)), "{end}");
    let (counts, workers) = watch.0.lock().unwrap().clone();
    assert_eq!(counts[1..].iter().min(), Some(&0), "{counts:?}");
    assert!(workers.is_none_or(|n| n == 2), "{workers:?} workers");
    // The system forgets a thread a moment after it was joined.
    let ended = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        loaders().is_none_or(|n| n == 0)
    });
    assert!(ended, "{:?} workers left", loaders());
}
