//! A run that was cut anywhere goes on as if nothing had happened.

use crate::devices;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use unforget::checkpoint::{read_snapshot, write_snapshot};
use unforget::data::{Transform, TransformGroups};
use unforget::evaluation::{At, EvaluationPlugin, accuracy_metrics, loss_metrics};
use unforget::nn::with_incremental_head;
use unforget::prelude::*;
use unforget::snapshot::Snapshot;
use unforget::training::*;

/// Lowers the learning rate a little after every iteration, and keeps count of it.
#[derive(Default)]
struct Fading {
    steps: u32,
}

impl Plugin for Fading {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.steps += 1;
        s.optimizer.lr = 0.05 / (1.0 + 0.01 * self.steps as f32);
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("steps", &self.steps);
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.steps = from.get("steps")?;
        Ok(())
    }
}

/// Notes the bits of every loss, whether the run is cut afterwards or not.
struct Losses(Arc<Mutex<Vec<u32>>>);

impl Plugin for Losses {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.0.lock().unwrap().push(s.loss().total.to_bits());
        Ok(())
    }
}

/// Takes a snapshot after so many iterations, and ends the run there.
struct CutAfter(u64, Arc<Mutex<Option<Snapshot>>>);

impl Keeper for CutAfter {
    fn due(&mut self, s: &State) -> bool {
        s.clock.train_iterations == self.0
    }

    fn keep(&mut self, snapshot: Snapshot) -> Result<()> {
        *self.1.lock().unwrap() = Some(snapshot);
        Err(Error::Interrupted("cut".into()))
    }
}

type Build = fn(Tape, SimpleMlp, Sgd) -> unforget::training::StrategyBuilder;

struct Lab {
    device: Device,
    benchmark: Benchmark,
    build: Build,
    growing: bool,
    seed: u64,
    workers: usize,
}

/// What a run came to: losses, and the bytes of everything it would save (bytes, because a logit that
/// is not stored is NaN, which equals nothing).
#[derive(PartialEq)]
struct Outcome {
    losses: Vec<u32>,
    state: Vec<u8>,
}

impl Lab {
    fn new(build: Build) -> Self {
        // Classes are i mod 10, pixels a pattern of their own for each.
        let data = |name: &str, n: usize| {
            let pixel = |i: usize| ((i / 784 % 10 + 3) * (i % 784) % 251) as u8;
            let pixels = (0..n * 784).map(pixel).collect();
            let labels = (0..n).map(|i| i as u32 % 10).collect();
            Dataset::from_u8(name, [1, 28, 28], pixels, labels, 10).unwrap()
        };
        let transforms = TransformGroups {
            train: Transform::mnist()
                .random_crop(28, 28, 3)
                .random_horizontal_flip(0.5),
            eval: Transform::mnist(),
        };
        let benchmark = NcBenchmark::new(data("train", 150), data("test", 20), transforms)
            .n_experiences(5)
            .seed(3)
            .build()
            .unwrap();
        Lab {
            device: Device::Cpu,
            benchmark,
            build,
            growing: false,
            seed: 5,
            workers: 0,
        }
    }

    fn strategy(&self, losses: &Arc<Mutex<Vec<u32>>>, keeper: Option<CutAfter>) -> Strategy {
        let mut tape = Tape::new(self.device).unwrap();
        tape.manual_seed(self.seed);
        let mut model = SimpleMlp::new(&mut tape, 10, 784, 8, 1, 0.3);
        if self.growing {
            model = with_incremental_head(&mut tape, model, 2);
        }
        let at = [At::Epoch, At::Stream];
        let evaluator = EvaluationPlugin::new()
            .metrics(accuracy_metrics(&at))
            .metrics(loss_metrics(&at));
        let builder = (self.build)(tape, model, Sgd::new(0.05).momentum(0.9))
            .mem_size(30)
            .train_mb_size(6)
            .batch_size_mem(7)
            .train_epochs(2)
            .eval_mb_size(20)
            .eval_every(1)
            .peval_mode(PevalMode::Epoch)
            .evaluator(evaluator)
            .loader(LoaderOptions {
                num_workers: self.workers,
                ..LoaderOptions::default()
            })
            .plugin(Fading::default())
            .plugin(Losses(Arc::clone(losses)));
        match keeper {
            Some(keeper) => builder.keeper(keeper),
            None => builder,
        }
        .build()
        .unwrap()
    }

    fn go_on(&self, mut strategy: Strategy, losses: &Arc<Mutex<Vec<u32>>>) -> Result<Outcome> {
        let test = self.benchmark.test_stream();
        let next = strategy.state().clock.train_exp_counter as usize;
        for experience in self.benchmark.train_stream().iter().skip(next) {
            strategy.train_with(experience, &[test])?;
        }
        Ok(Outcome {
            losses: losses.lock().unwrap().clone(),
            state: bytes(&strategy.save()),
        })
    }

    fn whole(&self) -> Outcome {
        let losses = Arc::default();
        self.go_on(self.strategy(&losses, None), &losses).unwrap()
    }

    /// Cut after `steps`, written to a file, read, and continued.
    fn cut(&self, steps: u64, folder: &Path) -> Outcome {
        let (losses, kept) = (Arc::default(), Arc::default());
        let strategy = self.strategy(&losses, Some(CutAfter(steps, Arc::clone(&kept))));
        let end = self.go_on(strategy, &losses);
        assert!(
            matches!(end, Err(Error::Interrupted(_))),
            "step {steps} is not reached"
        );
        let path = folder.join("c.safetensors");
        write_snapshot(&path, &kept.lock().unwrap().take().unwrap()).unwrap();
        let mut again = self.strategy(&losses, None);
        let snapshot = read_snapshot(&path).unwrap();
        again
            .load(&snapshot, self.benchmark.train_stream())
            .unwrap();
        self.go_on(again, &losses).unwrap()
    }
}

fn bytes(snapshot: &Snapshot) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    write_snapshot(&path, snapshot).unwrap();
    // The metadata are written in any order, the tensors behind them are not.
    let bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}

#[test]
fn cut_after_any_step_der_ends_bit_for_bit_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    // 200 points: every step of four runs with momentum, a schedule, dropout, augmentation and two
    // loader workers, which are ahead by up to four mini-batches wherever the run is cut.
    pool.unwrap().install(|| {
        for seed in 5..9 {
            let mut lab = Lab::new(Der::builder);
            lab.seed = seed;
            let whole = lab.whole();
            assert_eq!(whole.losses.len(), 50);
            lab.workers = 2;
            assert!(lab.whole() == whole, "seed {seed}: workers change nothing");
            for steps in 1..=whole.losses.len() as u64 {
                assert!(
                    lab.cut(steps, folder.path()) == whole,
                    "seed {seed}, cut after step {steps}"
                );
            }
        }
    });
}

#[test]
fn so_does_a_run_on_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    for device in devices::in_f32().into_iter().skip(1) {
        for build in [Der::builder as Build, PaperDer::builder] {
            let mut lab = Lab::new(build);
            lab.device = device;
            let whole = lab.whole();
            for steps in [1, 10, 11, 37] {
                assert!(
                    lab.cut(steps, folder.path()) == whole,
                    "cut after step {steps}"
                );
            }
        }
    }
}

#[test]
fn so_do_the_other_strategies() {
    let folder = tempfile::tempdir().unwrap();
    for build in [
        Naive::builder as Build,
        Cumulative::builder,
        Replay::builder,
        PaperDer::builder,
        PaperReplay::builder,
    ] {
        let lab = Lab::new(build);
        let whole = lab.whole();
        for steps in [1, 7, 11, 23, 38, whole.losses.len() as u64] {
            assert!(
                lab.cut(steps, folder.path()) == whole,
                "cut after step {steps}"
            );
        }
    }
}

/// Each plugin with state, alone or beside DER.
const PLUGINS: [(&str, Build); 17] = [
    ("ewc", |t, m, s| Ewc::new(5.0).builder(t, m, s)),
    ("ewc online", |t, m, s| {
        let online = EwcMode::Online { decay_factor: 0.5 };
        Der::builder(t, m, s).plugin(Ewc::new(5.0).mode(online))
    }),
    ("lwf", |t, m, s| {
        Der::builder(t, m, s).plugin(Lwf::default())
    }),
    ("mas", |t, m, s| Mas::new(0.1, 0.5).builder(t, m, s)),
    ("si", |t, m, s| {
        Der::builder(t, m, s).plugin(SynapticIntelligence::new(50.0))
    }),
    ("a-gem", |t, m, s| Agem::new(9, 8).builder(t, m, s)),
    ("gem", |t, m, s| {
        Der::builder(t, m, s).plugin(Gem::new(5, 0.5))
    }),
    ("gdumb", |t, m, s| GDumb::new(25).builder(t, m, s)),
    ("from scratch", |t, m, s| {
        FromScratchTraining::default().builder(t, m, s)
    }),
    ("replay", |t, m, s| {
        Der::builder(t, m, s).plugin(ReplayPlugin::new(20).batch_size_mem(4))
    }),
    ("clipping", |t, m, s| {
        Der::builder(t, m, s).plugin(GradientClipping::norm(0.5))
    }),
    ("cosine", |t, m, s| {
        let cosine = LrScheduler::new(Schedule::Cosine {
            t_max: 4,
            eta_min: 0.01,
        });
        Naive::builder(t, m, s).plugin(cosine.step_granularity(StepGranularity::Iteration))
    }),
    ("plateau", |t, m, s| {
        let plateau = LrScheduler::new(Schedule::Plateau(Plateau::new(0.5, 0)));
        Naive::builder(t, m, s).plugin(plateau.metric(SchedulerMetric::ValLoss).reset_lr(false))
    }),
    ("early stopping", |t, m, s| {
        let early = EarlyStopping::new(2, "test").metric("Loss_Stream");
        Der::builder(t, m, s)
            .plugin(early.minimize())
            .train_epochs(4)
    }),
    ("er-ace", ErAce::builder),
    ("mir", Mir::builder),
    ("icarl", Icarl::builder),
];

#[test]
fn so_do_all_plugins() {
    let folder = tempfile::tempdir().unwrap();
    for (name, build) in PLUGINS {
        let lab = Lab::new(build);
        let whole = lab.whole();
        let n = whole.losses.len() as u64;
        for steps in (1..n).step_by(7).chain([10, 20, n]) {
            let cut = lab.cut(steps, folder.path());
            assert!(cut == whole, "{name}: cut after step {steps} of {n}");
        }
    }
}

#[test]
fn so_do_heads_that_grow() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(Der::builder);
    lab.growing = true;
    let whole = lab.whole();
    for steps in [1, 9, 11, 12, 27, 42] {
        assert!(
            lab.cut(steps, folder.path()) == whole,
            "cut after step {steps}"
        );
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let der = Lab::new(Der::builder);
    let losses = Arc::default();
    let mut strategy = der.strategy(&losses, None);
    strategy.train(&der.benchmark.train_stream()[0]).unwrap();
    let snapshot = strategy.save();
    let refused = |lab: &Lab, stream: &Stream| {
        let mut strategy = lab.strategy(&losses, None);
        strategy.load(&snapshot, stream).unwrap_err().to_string()
    };
    let train = der.benchmark.train_stream();
    for other in [Naive::builder as Build, PaperDer::builder] {
        let error = refused(&Lab::new(other), train);
        assert!(error.contains("the strategy der "), "{error}");
    }
    let error = refused(&der, &train.slice(1..5));
    assert!(error.contains("experience 0"), "{error}");
}

/// The command of a run that takes some hundred milliseconds.
fn unforget(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unforget"));
    command
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn killed_programs_are_resumed_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let line =
        "train --train-epochs 4 --momentum 0.9 --lr 0.003 --checkpoint-every 29 --quiet --out";
    assert!(
        unforget(here, &format!("{line} whole"))
            .status()
            .unwrap()
            .success()
    );
    let finished = (0..60).any(|attempt| {
        let line = match here.join("cut/config.toml").exists() {
            true => "train --quiet --resume cut".to_string(),
            false => {
                // Killed before there was anything to go on from.
                let _ = fs::remove_dir_all(here.join("cut"));
                format!("{line} cut")
            }
        };
        let mut child = unforget(here, &line).spawn().unwrap();
        // Killed a little later every time, so that the run comes to its end on any machine.
        std::thread::sleep(Duration::from_millis(60 + 40 * attempt));
        let _ = child.kill();
        child.wait().unwrap().success()
    });
    assert!(finished, "the run never came to its end");
    let tables = ["training_results.csv", "eval_results.csv", "metrics.csv"];
    for file in tables
        .into_iter()
        .chain(["model.safetensors", "config.toml"])
    {
        let read = |run: &str| {
            let text = fs::read(here.join(run).join(file)).unwrap();
            String::from_utf8_lossy(&text).replace("whole/", "cut/")
        };
        assert!(read("cut") == read("whole"), "{file} differs");
    }
    // Times differ, but not the length of a record.
    let events = |run: &str| -> Vec<u64> {
        let files = fs::read_dir(here.join(run).join("tensorboard")).unwrap();
        files
            .map(|f| f.unwrap().metadata().unwrap().len())
            .collect()
    };
    assert_eq!(events("cut"), events("whole"));
    let lines = |run: &str| -> Vec<String> {
        let text = fs::read_to_string(here.join(run).join("metrics.jsonl")).unwrap();
        text.lines()
            .filter(|l| !l.contains("summary"))
            .map(String::from)
            .collect()
    };
    assert_eq!(lines("cut"), lines("whole"));
}
