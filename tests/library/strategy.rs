//! The criterion with replay, small buffers, data of several tasks, and what a checkpoint leaves out.

use std::sync::{Arc, Mutex};

use crate::formula::{self, Record, benchmark, model};
use unforget::prelude::*;
use unforget::training::{ClassWeights, Criterion, StrategyBuilder};

fn der() -> StrategyBuilder {
    let (tape, model) = model();
    Der::builder(tape, model, Sgd::new(0.1))
        .mem_size(10)
        .batch_size_mem(4)
        .train_mb_size(5)
        .alpha(0.2)
        .beta(0.5)
        .eval_mb_size(8)
}

fn losses(builder: StrategyBuilder) -> Vec<f32> {
    let record = Record::default();
    let mut strategy = builder.plugin(record.clone()).build().unwrap();
    strategy.train(benchmark(false).train_stream()).unwrap();
    record.get().into_iter().map(|(loss, _)| loss).collect()
}

/// Cross-entropy in other words, and a count of its calls.
struct Counted(Arc<Mutex<usize>>);

impl Criterion for Counted {
    fn loss(&self, tape: &mut Tape, logits: Var, labels: &[u32]) -> Var {
        *self.0.lock().unwrap() += 1;
        tape.cross_entropy(logits, labels)
    }
}

#[test]
fn a_criterion_is_used_for_replayed_rows_too_and_changes_nothing_if_it_is_cross_entropy() {
    let calls = Arc::default();
    let own = losses(der().criterion(Counted(Arc::clone(&calls))));
    let fused = losses(der());
    // 4 iterations without replay, then 8 with the criterion of current and of replayed rows.
    assert_eq!((own.len(), *calls.lock().unwrap()), (12, 4 + 2 * 8));
    for (i, (own, fused)) in own.iter().zip(&fused).enumerate() {
        assert!((own - fused).abs() <= 2e-6, "iteration {i}: {own}, {fused}");
    }
}

#[test]
fn class_weights_of_one_change_nothing_and_others_do() {
    let fused = losses(der());
    let ones = losses(der().criterion(ClassWeights(vec![1.0; 6])));
    for (one, fused) in ones.iter().zip(&fused) {
        assert!((one - fused).abs() <= 2e-6, "{one}, {fused}");
    }
    let uneven = losses(der().criterion(ClassWeights(vec![5.0, 1.0, 1.0, 0.2, 1.0, 1.0])));
    let differ = |i: &usize| (uneven[*i] - fused[*i]).abs() > 1e-3;
    assert!(
        (4..12).any(|i| differ(&i)),
        "the weights have no influence on replay"
    );
}

/// The number of replayed rows in each iteration.
struct Rows(Arc<Mutex<Vec<usize>>>);

impl Plugin for Rows {
    fn after_forward(&mut self, s: &mut State) -> Result<()> {
        self.0.lock().unwrap().push(s.replay_rows);
        Ok(())
    }
}

fn replayed(builder: StrategyBuilder) -> Vec<usize> {
    let rows = Arc::default();
    let mut strategy = builder.plugin(Rows(Arc::clone(&rows))).build().unwrap();
    strategy.train(benchmark(false).train_stream()).unwrap();
    let rows = rows.lock().unwrap();
    rows.clone()
}

#[test]
fn a_buffer_smaller_than_a_batch_is_replayed_whole() {
    assert_eq!(replayed(der()), [[0; 4], [4; 4], [4; 4]].concat());
    assert_eq!(
        replayed(der().mem_size(3)),
        [[0; 4], [3; 4], [3; 4]].concat()
    );
    assert_eq!(replayed(der().mem_size(0)), [0; 12]);
}

#[test]
fn tasks_in_one_experience_share_each_mini_batch() {
    // Joint training makes one experience of three tasks.
    let (tape, model) = model();
    let tasks = Arc::new(Mutex::new(Vec::new()));
    struct Tasks(Arc<Mutex<Vec<Vec<u32>>>>);
    impl Plugin for Tasks {
        fn before_forward(&mut self, s: &mut State) -> Result<()> {
            self.0.lock().unwrap().push(s.mb_task_id.clone());
            Ok(())
        }
    }
    let mut strategy = Joint::builder(tape, model, Sgd::new(0.1))
        .train_mb_size(7)
        .plugin(Tasks(Arc::clone(&tasks)))
        .build()
        .unwrap();
    strategy.train(benchmark(true).train_stream()).unwrap();
    // 20 samples of each task, 3 + 2 + 2 in a mini-batch: the second and third task need 10.
    let tasks = tasks.lock().unwrap();
    assert_eq!(tasks.len(), 10);
    for batch in tasks.iter() {
        for task in 0..3 {
            assert!(batch.contains(&task), "{batch:?} lacks task {task}");
        }
    }
    let (tape, model) = formula::model();
    let mut small = Joint::builder(tape, model, Sgd::new(0.1))
        .train_mb_size(2)
        .build()
        .unwrap();
    let error = small
        .train(benchmark(true).train_stream())
        .unwrap_err()
        .to_string();
    assert!(error.contains("at least 3"), "{error}");
}
