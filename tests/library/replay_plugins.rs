//! Replay beside other strategies, and methods that choose what they replay.

use std::sync::{Arc, Mutex};

use crate::formula;
use crate::lab::{Probe, der, gradient, sgd, train};
use unforget::prelude::*;
use unforget::replay::{Buffer, ClassBalancedBuffer};
use unforget::training::*;

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

/// Of three tasks one after the other the buffer holds two at last: 7 samples are 4 and 3 of them, and of the
/// 2 samples that a task has in a small buffer no more.
#[test]
fn replay_can_be_divided_over_the_tasks() {
    let replayed = |mem_size: usize, replay: ReplayPlugin| {
        let policy = Buffer::ClassBalanced(ClassBalancedBuffer::new(mem_size));
        let (probe, notes) = Probe::new(Event::AfterForward, |s| {
            let of = |task| s.mb_task_id[5..].iter().filter(|&&t| t == task).count();
            [of(0), of(1), of(2)]
        });
        let (tape, model) = formula::model();
        let mut strategy = Naive::builder(tape, model, sgd())
            .train_mb_size(5)
            .plugin(replay.storage_policy(policy))
            .plugin(probe)
            .build()
            .unwrap();
        strategy
            .train(formula::benchmark(true).train_stream())
            .unwrap();
        let notes = notes.lock().unwrap();
        notes.clone()
    };
    let balanced = || ReplayPlugin::default().task_balanced(true);
    let notes = replayed(24, balanced().batch_size_mem(7));
    assert_eq!(notes[..4], [[0; 3]; 4]);
    assert_eq!(notes[4..8], [[7, 0, 0]; 4]);
    assert_eq!(notes[8..], [[4, 3, 0]; 4]);
    let notes = replayed(4, balanced().batch_size_mem(7));
    assert_eq!(notes[8..], [[2, 2, 0]; 4]);
    let plain = replayed(24, ReplayPlugin::default().batch_size_mem(7));
    assert!(plain[8..].iter().any(|n| n[0] != 4), "by chance {plain:?}");

    let (tape, model) = formula::model();
    let few = balanced().batch_size_mem(1);
    let mut strategy = Naive::builder(tape, model, sgd())
        .plugin(few)
        .build()
        .unwrap();
    let error = strategy
        .train(formula::benchmark(true).train_stream())
        .unwrap_err()
        .to_string();
    assert!(error.contains("at least 2"), "{error}");
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
        let replay = f64::from(s.loss().replay);
        let want = self.expected.unwrap_or(0.0);
        assert!(
            (replay - want).abs() <= 1e-5,
            "expected {want}, found {replay}"
        );
        assert!((s.loss().total - s.loss().current - s.loss().replay).abs() <= 1e-5);
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
