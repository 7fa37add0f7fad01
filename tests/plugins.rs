//! Plugins beside DER and other strategies: what each of them promises, seen from outside.

#[path = "common/formula.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod formula;

use std::sync::{Arc, Mutex};

use unforget::prelude::*;
use unforget::replay::{Buffer, ClassBalancedBuffer};
use unforget::tape::Weights;
use unforget::training::*;

/// Notes something of the state at one point of the loop.
struct Probe<T>(Arc<Mutex<Vec<T>>>, Event, fn(&mut State) -> T);

impl<T: Send> Probe<T> {
    fn new(event: Event, look: fn(&mut State) -> T) -> (Self, Arc<Mutex<Vec<T>>>) {
        let notes = Arc::default();
        (Probe(Arc::clone(&notes), event, look), notes)
    }

    fn note(&mut self, at: Event, s: &mut State) -> Result<()> {
        if self.1 == at {
            self.0.lock().unwrap().push((self.2)(s));
        }
        Ok(())
    }
}

impl<T: Send> Plugin for Probe<T> {
    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.note(Event::BeforeTrainingIteration, s)
    }
    fn after_forward(&mut self, s: &mut State) -> Result<()> {
        self.note(Event::AfterForward, s)
    }
    fn after_backward(&mut self, s: &mut State) -> Result<()> {
        self.note(Event::AfterBackward, s)
    }
    fn before_update(&mut self, s: &mut State) -> Result<()> {
        self.note(Event::BeforeUpdate, s)
    }
    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        self.note(Event::AfterTrainingExp, s)
    }
    fn after_eval(&mut self, s: &mut State) -> Result<()> {
        self.note(Event::AfterEval, s)
    }
}

fn sgd() -> Sgd {
    Sgd::new(0.1).momentum(0.9)
}

fn der() -> StrategyBuilder {
    let (tape, model) = formula::model();
    Der::builder(tape, model, sgd())
        .mem_size(10)
        .batch_size_mem(4)
        .train_mb_size(5)
        .train_epochs(2)
        .eval_mb_size(8)
}

fn train(builder: StrategyBuilder) -> Strategy {
    let mut strategy = builder.build().unwrap();
    let benchmark = formula::benchmark(false);
    for experience in benchmark.train_stream().iter() {
        let test: &dyn Experiences = benchmark.test_stream();
        strategy.train_with(experience, &[test]).unwrap();
    }
    strategy
}

fn gradient(s: &mut State) -> Vec<f32> {
    let mut out = Vec::new();
    s.tape.gradients(&mut out);
    out
}

fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// A penalty of value 3 whose gradient is 0.5 everywhere.
struct Push;

impl Plugin for Push {
    fn before_backward(&mut self, s: &mut State) -> Result<()> {
        let n = s.tape.parameter_count();
        s.add_penalty(1.0, &vec![0.25; n]);
        s.add_penalty(2.0, &vec![0.25; n]);
        Ok(())
    }
}

#[test]
fn penalties_reach_loss_and_gradient_once_and_before_after_backward() {
    let first = |builder: StrategyBuilder| {
        let (probe, notes) = Probe::new(Event::AfterBackward, |s| (s.loss.total, gradient(s)));
        train(builder.train_epochs(1).plugin(probe));
        notes.lock().unwrap().swap_remove(0)
    };
    let (plain, pushed) = (first(der()), first(der().plugin(Push)));
    assert!(((pushed.0 - plain.0) - 3.0).abs() <= 1e-6);
    for (plain, pushed) in plain.1.iter().zip(&pushed.1) {
        assert!(((pushed - plain) - 0.5).abs() <= 1e-6, "{plain} {pushed}");
    }
}

#[test]
fn clipping_limits_the_gradient_after_everything_else() {
    let run = |clip: GradientClipping| {
        let (probe, notes) = Probe::new(Event::BeforeUpdate, gradient);
        train(der().plugin(Push).plugin(clip).plugin(probe));
        let notes = notes.lock().unwrap();
        notes.clone()
    };
    let norms: Vec<f64> = run(GradientClipping::norm(0.3))
        .iter()
        .map(|g| norm(g))
        .collect();
    assert!(norms.iter().all(|n| (n - 0.3).abs() <= 1e-5), "{norms:?}");
    let all = run(GradientClipping::value(0.2)).concat();
    assert!(all.iter().all(|g| g.abs() <= 0.2) && all.contains(&0.2));
    let free = run(GradientClipping::norm(1e6));
    assert!(free.iter().all(|g| norm(g) > 1.0), "no limit, no change");
}

/// Gradients of the memory's samples, taken by hand from the whole of the first experience.
#[test]
fn a_projected_gradient_does_not_point_against_the_memory() {
    let cosine = |plugin: Option<Box<dyn FnOnce(StrategyBuilder) -> StrategyBuilder>>| {
        let against = Arc::new(Mutex::new(Vec::<f64>::new()));
        struct Watch(Arc<Mutex<Vec<f64>>>, Vec<f32>);
        impl Plugin for Watch {
            fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
                self.1.clear();
                if s.clock.train_exp_counter == 1 {
                    let benchmark = formula::benchmark(false);
                    let data = benchmark.train_stream()[0].dataset().clone();
                    let x: Vec<f32> = data
                        .images(unforget::data::Group::Train)
                        .into_iter()
                        .collect();
                    s.tape.begin(Mode::Train);
                    let x = s.tape.input(&[data.len(), 6, 1, 1], &x);
                    let y = s.model.forward(&mut s.tape, x);
                    let loss = s.tape.cross_entropy(y, &data.targets());
                    s.tape.backward(loss);
                    s.tape.gradients(&mut self.1);
                }
                Ok(())
            }
            fn before_update(&mut self, s: &mut State) -> Result<()> {
                let g = gradient(s);
                let dot: f64 = (g.iter().zip(&self.1))
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                if !self.1.is_empty() {
                    self.0
                        .lock()
                        .unwrap()
                        .push(dot / (norm(&g) * norm(&self.1)));
                }
                Ok(())
            }
        }
        let mut builder = der();
        if let Some(add) = plugin {
            builder = add(builder);
        }
        train(builder.plugin(Watch(Arc::clone(&against), Vec::new())));
        let against = against.lock().unwrap();
        assert_eq!(against.len(), 8);
        against.iter().copied().fold(f64::INFINITY, f64::min)
    };
    let free = cosine(None);
    assert!(free < -0.1, "DER alone goes against the memory: {free}");
    let agem = cosine(Some(Box::new(|b| b.plugin(Agem::new(20, 20)))));
    assert!(agem >= -1e-5, "{agem}");
    // The ridge of the quadratic programme leaves a trace: the gradients of the memory are short.
    let gem = cosine(Some(Box::new(|b| b.plugin(Gem::new(20, 0.0)))));
    assert!(gem >= -2e-2, "{gem}");
}

#[test]
fn replay_comes_on_top_of_ders_own() {
    let policy = Buffer::ClassBalanced(ClassBalancedBuffer::new(12));
    let replay = ReplayPlugin::new(12)
        .storage_policy(policy)
        .batch_size_mem(3);
    let (probe, notes) = Probe::new(Event::AfterForward, |s| {
        (s.mb_y.len(), s.replay_rows, s.mb_y.clone())
    });
    train(der().plugin(replay).plugin(probe));
    let notes = notes.lock().unwrap();
    let sizes: Vec<(usize, usize)> = notes.iter().map(|n| (n.0, n.1)).collect();
    assert_eq!(sizes[..8], [(5, 0); 8]);
    assert_eq!(sizes[8..], [(12, 4); 16]);
    // Classes 2 and 5, then 3 and 0, then 1 and 4: replayed rows are of earlier ones, and the buffer
    // is looked at anew in each experience.
    let replayed = |rows: &[(usize, usize, Vec<u32>)]| {
        let labels = rows.iter().flat_map(|n| n.2[9..].to_vec());
        labels.collect::<std::collections::BTreeSet<u32>>()
    };
    assert_eq!(replayed(&notes[8..16]), [2, 5].into());
    assert_eq!(replayed(&notes[16..24]), [0, 2, 3, 5].into());
}

/// The paper's method stores what it trains on after each step; samples that plugins look at or add
/// are not among that.
#[test]
fn the_papers_reservoir_takes_current_samples_only() {
    let indices = |add: fn(StrategyBuilder) -> StrategyBuilder| {
        let (probe, notes) = Probe::new(Event::AfterTrainingExp, |s| {
            let buffer = s.storage_policy.as_ref().unwrap();
            let key = |i: &unforget::replay::Item| (i.source_index, i.target);
            buffer.iter().map(key).collect::<Vec<_>>()
        });
        let (tape, model) = formula::model();
        let builder = PaperDer::builder(tape, model, sgd()).mem_size(100);
        train(add(builder.train_mb_size(5)).plugin(probe));
        let mut last = notes.lock().unwrap().pop().unwrap();
        assert!(last.iter().all(|&(i, target)| i % 6 == target));
        last.sort_unstable();
        last
    };
    let all: Vec<(u32, u32)> = (0..60).map(|i| (i, i % 6)).collect();
    assert_eq!(indices(|b| b), all);
    assert_eq!(indices(|b| b.plugin(Agem::new(5, 5))), all);
    assert_eq!(
        indices(|b| b.plugin(ReplayPlugin::new(9).batch_size_mem(3))),
        all
    );
}

#[test]
fn gdumb_trains_on_its_buffer_from_the_initial_weights() {
    let gdumb = GDumb::new(6);
    let (probe, notes) = Probe::new(Event::BeforeTrainingIteration, |s| {
        let mut values = Vec::new();
        s.tape.parameters_flat(&mut values);
        let seen = s
            .adapted_dataset
            .as_ref()
            .map_or(0, ClassificationDataset::len);
        (s.clock.train_exp_iterations, seen, values)
    });
    let (tape, model) = formula::model();
    let builder = gdumb.builder(tape, model, sgd());
    train(builder.train_mb_size(5).plugin(probe));
    let notes = notes.lock().unwrap();
    let starts: Vec<_> = notes.iter().filter(|n| n.0 == 0).collect();
    assert_eq!(starts.len(), 3);
    assert!(starts.iter().all(|n| n.1 == 6 && n.2 == starts[0].2));
    assert_ne!(notes[1].2, starts[0].2);
}

/// Finds out by itself which stored samples a step with the current mini-batch would harm most, and
/// what their loss is now.
#[derive(Default)]
struct Interference {
    expected: Option<f64>,
    gradient: Vec<f32>,
    checked: Arc<Mutex<usize>>,
}

fn losses(s: &mut State, x: &[f32], labels: &[u32]) -> Vec<f64> {
    s.tape.begin(Mode::Eval);
    let x = s.tape.input(&[labels.len(), 6, 1, 1], x);
    let y = s.model.forward(&mut s.tape, x);
    let rows = s.tape.value(y).into_owned();
    let rows = rows.outer_iter().zip(labels);
    rows.map(|(row, &label)| {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        sum.ln() - f64::from(row[label as usize])
    })
    .collect()
}

impl Plugin for Interference {
    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.expected = None;
        let current = s
            .experience
            .as_ref()
            .unwrap()
            .classes_in_this_experience()
            .to_vec();
        let buffer = s.storage_policy.as_ref().unwrap();
        let old: Vec<_> = buffer
            .iter()
            .filter(|i| !current.contains(&i.target))
            .cloned()
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        let mut x = vec![0.0; 6 * old.len()];
        for (item, x) in old.iter().zip(x.chunks_exact_mut(6)) {
            item.write_sample(unforget::data::Group::Train, None, x);
        }
        let labels: Vec<u32> = old.iter().map(|item| item.target).collect();
        let before = losses(s, &x, &labels);
        let batch: Vec<f32> = s.mb_x().iter().copied().collect();
        s.tape.begin(Mode::Train);
        let input = s.tape.input(&[s.mb_y.len(), 6, 1, 1], &batch);
        let y = s.model.forward(&mut s.tape, input);
        let loss = s.tape.cross_entropy(y, &s.mb_y);
        s.tape.backward(loss);
        let g = gradient(s);
        let mut values = Vec::new();
        s.tape.parameters_flat(&mut values);
        let step: Vec<f32> = values
            .iter()
            .zip(&g)
            .map(|(w, g)| w - s.optimizer.lr * g)
            .collect();
        s.tape.set_parameters_flat(&step);
        let after = losses(s, &x, &labels);
        s.tape.set_parameters_flat(&values);
        let mut order: Vec<usize> = (0..old.len()).collect();
        order.sort_by(|&a, &b| (after[b] - before[b]).total_cmp(&(after[a] - before[a])));
        self.expected = Some(order[..4].iter().map(|&i| before[i]).sum::<f64>() / 4.0);
        let most: Vec<f32> = (order[..4].iter())
            .flat_map(|&i| x[i * 6..(i + 1) * 6].to_vec())
            .collect();
        let labels: Vec<u32> = order[..4].iter().map(|&i| labels[i]).collect();
        s.tape.begin(Mode::Train);
        let input = s.tape.input(&[4, 6, 1, 1], &most);
        let y = s.model.forward(&mut s.tape, input);
        let loss = s.tape.cross_entropy(y, &labels);
        s.tape.backward(loss);
        self.gradient = gradient(s).iter().zip(&g).map(|(a, b)| a + b).collect();
        Ok(())
    }

    fn after_backward(&mut self, s: &mut State) -> Result<()> {
        let replay = f64::from(s.loss.replay);
        let want = self.expected.unwrap_or(0.0);
        assert!(
            (replay - want).abs() <= 1e-5,
            "expected {want}, found {replay}"
        );
        assert!((s.loss.total - s.loss.current - s.loss.replay).abs() <= 1e-5);
        if self.expected.is_some() {
            *self.checked.lock().unwrap() += 1;
            for (got, want) in gradient(s).iter().zip(&self.gradient) {
                assert!(
                    (got - want).abs() <= 1e-5,
                    "gradient {got}, expected {want}"
                );
            }
        }
        Ok(())
    }
}

#[test]
fn mir_replays_what_a_step_would_harm_most() {
    let oracle = Interference::default();
    let checked = Arc::clone(&oracle.checked);
    let (tape, model) = formula::model();
    let builder = Mir::builder(tape, model, sgd())
        .mem_size(30)
        .batch_size_mem(4)
        .train_mb_size(5)
        .train_epochs(2);
    let strategy = train(builder.plugin(oracle));
    assert_eq!(strategy.name(), "mir");
    assert_eq!(*checked.lock().unwrap(), 16, "both experiences with a past");
}

/// Publishes a made-up course of a metric: what the evaluator would after each evaluation.
struct Course(Vec<f64>, usize);

impl Plugin for Course {
    fn after_eval(&mut self, s: &mut State) -> Result<()> {
        let name = "Quality/eval_phase/test_stream/Task000".to_string();
        s.last_metrics.insert(
            name,
            MetricData::Scalar(self.0[self.1.min(self.0.len() - 1)]),
        );
        self.1 += 1;
        Ok(())
    }
}

/// Trains one experience of `epochs` under a course of the metric; gives the epochs trained, the
/// parameters at each evaluation and at the end.
fn stopped(course: &[f64], epochs: usize, early: EarlyStopping) -> (u64, Vec<Vec<f32>>, Vec<f32>) {
    let (probe, notes) = Probe::new(Event::AfterEval, |s| {
        let mut values = Vec::new();
        s.tape.parameters_flat(&mut values);
        values
    });
    let mut strategy = der()
        .train_epochs(epochs)
        .eval_every(1)
        .plugin(Course(course.to_vec(), 0))
        .plugin(probe)
        .plugin(early.metric("Quality"))
        .build()
        .unwrap();
    let benchmark = formula::benchmark(false);
    let test: &dyn Experiences = benchmark.test_stream();
    strategy
        .train_with(&benchmark.train_stream()[0], &[test])
        .unwrap();
    let mut end = Vec::new();
    strategy.state().tape.parameters_flat(&mut end);
    let notes = notes.lock().unwrap().clone();
    (strategy.state().clock.train_exp_epochs, notes, end)
}

#[test]
fn early_stopping_waits_and_brings_back_the_best() {
    // Evaluation 0 is before training; the best is after the second epoch.
    let course = [0.1, 0.2, 0.6, 0.5, 0.4, 0.9];
    let (epochs, seen, end) = stopped(&course, 10, EarlyStopping::new(2, "test_stream"));
    assert_eq!(epochs, 4);
    assert_eq!(end, seen[2]);
    assert_eq!(
        seen.len(),
        6,
        "and the experience ends with an evaluation of it"
    );
    assert_eq!(seen[5], seen[2]);

    let falling = course.map(|x| 1.0 - x);
    let (epochs, seen, end) = stopped(&falling, 10, EarlyStopping::new(2, "test").minimize());
    assert_eq!((epochs, end), (4, seen[2].clone()));

    let (epochs, ..) = stopped(
        &[0.1, 0.5, 0.52, 0.54, 0.56],
        10,
        EarlyStopping::new(2, "test").margin(0.1),
    );
    assert_eq!(epochs, 3, "small steps are no improvement");
}

#[test]
fn the_best_comes_back_when_training_ends_by_itself() {
    let (epochs, seen, end) = stopped(&[0.1, 0.6, 0.5, 0.4], 3, EarlyStopping::new(5, "test"));
    assert_eq!(epochs, 3);
    assert_eq!(end, seen[1]);
    assert_eq!(seen.len(), 5);
    // The last epoch is looked at, too.
    let (_, seen, end) = stopped(&[0.1, 0.6, 0.5, 0.7], 3, EarlyStopping::new(5, "test"));
    assert_eq!(end, seen[3]);
    assert_eq!(
        seen.len(),
        4,
        "nothing has changed since, so nothing is evaluated again"
    );
}

#[test]
fn der_stores_the_logits_of_the_best_model() {
    let early = EarlyStopping::new(5, "test").metric("Quality");
    let (probe, notes) = Probe::new(Event::AfterTrainingExp, |s| {
        let weights: Weights = s.tape.weights();
        let buffer = s.storage_policy.as_ref().expect("DER's buffer");
        let item = buffer.item(0).clone();
        let mut x = vec![0.0; 6];
        item.write_sample(unforget::data::Group::Eval, None, &mut x);
        let logits = s.tape.with_weights(&weights, |tape| {
            tape.begin(Mode::Eval);
            let x = tape.input(&[1, 6, 1, 1], &x);
            let y = s.model.forward(tape, x);
            tape.value(y).iter().copied().collect::<Vec<f32>>()
        });
        (item.logits.to_vec(), logits)
    });
    let strategy = der().eval_every(1).train_epochs(3);
    let course = Course(vec![0.1, 0.6, 0.5, 0.4], 0);
    let mut strategy = strategy
        .plugin(course)
        .plugin(early)
        .plugin(probe)
        .build()
        .unwrap();
    let benchmark = formula::benchmark(false);
    let test: &dyn Experiences = benchmark.test_stream();
    strategy
        .train_with(&benchmark.train_stream()[0], &[test])
        .unwrap();
    let notes = notes.lock().unwrap();
    for (stored, now) in notes[0].0.iter().zip(&notes[0].1) {
        assert!((stored - now).abs() <= 1e-6, "{:?}", notes[0]);
    }
}

#[test]
fn early_stopping_says_what_it_lacks() {
    let benchmark = formula::benchmark(false);
    let run = |early: EarlyStopping, every: Option<usize>| {
        let mut strategy = der().eval_every(every).plugin(early).build().unwrap();
        let error = strategy.train(&benchmark.train_stream()[0]).unwrap_err();
        error.to_string()
    };
    let error = run(EarlyStopping::new(1, "valid"), Some(1));
    assert!(
        error.contains("stream \"valid\"") && error.contains("eval_every"),
        "{error}"
    );
    let error = run(EarlyStopping::new(1, "train"), None);
    assert!(error.contains("eval_every"), "{error}");
    let error = run(EarlyStopping::new(0, "train"), Some(1));
    assert!(error.contains("patience"), "{error}");
}

#[test]
fn impossible_settings_are_refused_before_training() {
    let benchmark = formula::benchmark(false);
    let refuses = |builder: StrategyBuilder, name: &str| {
        let error = (builder.build().unwrap())
            .train(&benchmark.train_stream()[0])
            .unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    };
    let nan = f32::NAN;
    refuses(der().plugin(Ewc::new(nan)), "ewc-lambda");
    let online = EwcMode::Online { decay_factor: -1.0 };
    refuses(der().plugin(Ewc::new(1.0).mode(online)), "decay-factor");
    refuses(der().plugin(Lwf::new(1.0, 0.0)), "temperature");
    refuses(der().plugin(Lwf::new(nan, 1.0)), "alpha");
    refuses(der().plugin(Mas::new(-1.0, 0.5)), "lambda-reg");
    refuses(der().plugin(SynapticIntelligence::new(nan)), "si-lambda");
    refuses(der().plugin(Agem::new(1, 0)), "sample-size");
    refuses(der().plugin(Gem::new(0, 0.5)), "patterns-per-exp");
    refuses(der().plugin(Gem::new(1, nan)), "memory-strength");
    refuses(der().plugin(GradientClipping::norm(nan)), "max-norm");
    refuses(
        der().plugin(ReplayPlugin::new(5).batch_size_mem(0)),
        "batch-size-mem",
    );
    for (schedule, name) in [
        (
            Schedule::Step {
                step_size: 0,
                gamma: 0.5,
            },
            "step-size",
        ),
        (Schedule::Exponential { gamma: f64::NAN }, "gamma"),
        (
            Schedule::Cosine {
                t_max: 0,
                eta_min: 0.0,
            },
            "t-max",
        ),
        (Schedule::Plateau(Plateau::new(1.5, 1)), "factor"),
    ] {
        refuses(der().plugin(LrScheduler::new(schedule)), name);
    }
}

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
        (s.mb_y.len(), finite && s.loss.total.is_finite(), running)
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

/// Stops in the last epoch of the first experience.
struct Stop;

impl Plugin for Stop {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if s.clock.train_exp_counter == 0 && s.clock.train_exp_iterations == 5 {
            s.stop_training();
        }
        Ok(())
    }
}

/// In Avalanche nobody clears the flag, and the next experience of the same call is skipped.
#[test]
fn stopping_in_the_last_epoch_concerns_this_experience_only() {
    let (probe, notes) = Probe::new(Event::AfterTrainingExp, |s| s.clock.train_exp_iterations);
    let mut strategy = der().plugin(Stop).plugin(probe).build().unwrap();
    strategy
        .train(formula::benchmark(false).train_stream())
        .unwrap();
    assert_eq!(*notes.lock().unwrap(), [6, 8, 8]);
}
