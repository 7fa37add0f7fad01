//! The order of all callbacks and the times of periodic evaluations beside Avalanche's.

use crate::recorded;
use crate::ten_classes;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use unforget::prelude::*;
use unforget::training::PevalMode;

type Heard = Arc<Mutex<Vec<String>>>;

/// Notes the name of every callback.
struct Trace(Heard);

/// Notes the counters at every evaluation.
struct Watch(Arc<Mutex<Vec<[u64; 3]>>>);

macro_rules! hear {
    ($($name:ident)*) => {
        impl Plugin for Trace {
            $(fn $name(&mut self, _: &mut State) -> Result<()> {
                self.0.lock().unwrap().push(stringify!($name).to_string());
                Ok(())
            })*
        }
    };
}

hear! {
    before_training before_train_dataset_adaptation after_train_dataset_adaptation
    before_training_exp before_training_epoch before_training_iteration before_forward
    after_forward before_backward after_backward before_update after_update
    after_training_iteration after_training_epoch after_training_exp after_training
    before_eval before_eval_dataset_adaptation after_eval_dataset_adaptation before_eval_exp
    before_eval_iteration before_eval_forward after_eval_forward after_eval_iteration
    after_eval_exp after_eval
}

impl Plugin for Watch {
    fn before_eval(&mut self, s: &mut State) -> Result<()> {
        let clock = s.clock;
        let counters = [
            clock.train_exp_counter,
            clock.train_exp_epochs,
            clock.train_exp_iterations,
        ];
        self.0.lock().unwrap().push(counters);
        Ok(())
    }
}

/// Stops the training of the first experience after an iteration.
struct StopAt(u64);

impl Plugin for StopAt {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if s.clock.train_iterations == self.0 {
            s.stop_training();
        }
        Ok(())
    }
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().expect("a list").iter();
    texts
        .map(|text| text.as_str().expect("a text").to_string())
        .collect()
}

#[test]
fn callbacks_come_in_avalanches_order() {
    let heard = Heard::default();
    let benchmark = ten_classes::benchmark();
    let (train, test) = (benchmark.train_stream(), benchmark.test_stream());
    let mut strategy = ten_classes::strategy()
        .train_mb_size(10)
        .train_epochs(2)
        .eval_every(1)
        .plugin(Trace(Arc::clone(&heard)))
        .build()
        .unwrap();
    strategy
        .train_with(&train.slice(0..2), &[&test.slice(0..1)])
        .unwrap();
    heard.lock().unwrap().push("eval".to_string());
    strategy.eval(&test.slice(0..2)).unwrap();
    let want = texts(&recorded::golden("callbacks.json")["trace"]);
    assert_eq!(*heard.lock().unwrap(), want);
}

/// The counters (experiences trained, epochs, iterations) at every evaluation while two experiences
/// are trained; mini-batches of ten samples are two iterations an epoch.
fn schedule(
    every: impl Into<Option<usize>>,
    mode: PevalMode,
    epochs: usize,
    plugin: impl Plugin + 'static,
) -> Vec<[u64; 3]> {
    let seen = Arc::default();
    let benchmark = ten_classes::benchmark();
    let (train, test) = (benchmark.train_stream(), benchmark.test_stream());
    let mut strategy = ten_classes::strategy()
        .train_mb_size(10)
        .train_epochs(epochs)
        .eval_every(every)
        .peval_mode(mode)
        .plugin(Watch(Arc::clone(&seen)))
        .plugin(plugin)
        .build()
        .unwrap();
    strategy
        .train_with(&train.slice(0..2), &[&test.slice(0..1)])
        .unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn periodic_evaluations_come_when_avalanche_has_them() {
    let golden = recorded::golden("callbacks.json");
    let schedules = golden["schedules"].as_array().unwrap();
    let mut different = Vec::new();
    for case in schedules {
        let every = case["eval_every"].as_i64().unwrap();
        let mode = match case["peval_mode"].as_str().unwrap() {
            "experience" => PevalMode::Experience,
            "epoch" => PevalMode::Epoch,
            _ => PevalMode::Iteration,
        };
        let epochs = case["epochs"].as_u64().unwrap() as usize;
        let want: Vec<[u64; 3]> = serde_json::from_value(case["evaluations"].clone()).unwrap();
        let got = schedule(usize::try_from(every).ok(), mode, epochs, StopAt(u64::MAX));
        if got != want {
            different.push((every, mode, epochs, got));
        }
    }
    // In Avalanche eval_every has no influence in this mode: an evaluation after each experience.
    let experiences = (2, PevalMode::Experience, 2, vec![[0, 0, 0], [0, 2, 4]]);
    assert_eq!(different, [experiences]);
    assert!(schedules.len() > 10);
}

#[test]
fn a_stopped_experience_is_evaluated_and_the_next_one_is_trained() {
    // Stopped in the second of three epochs. Avalanche has decided beforehand that the last epoch
    // will be evaluated, and would evaluate no more.
    let stopped = schedule(2, PevalMode::Epoch, 3, StopAt(2));
    let next = [[1, 0, 2], [1, 2, 6]];
    assert_eq!(
        stopped,
        [&[[0, 0, 0], [0, 0, 2], [0, 2, 3]], &next[..]].concat()
    );
    // Stopped in the last epoch: Avalanche would skip the second experience.
    let stopped = schedule(0, PevalMode::Epoch, 3, StopAt(4));
    assert_eq!(stopped, [[0, 0, 0], [0, 3, 5], [1, 3, 6]]);
}
