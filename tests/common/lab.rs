//! DER on the small run by formula, with an eye on one point of the loop.

use std::sync::{Arc, Mutex};

use crate::formula;
use unforget::prelude::*;
use unforget::training::*;

/// Notes something of the state at one point of the loop.
pub struct Probe<T>(Arc<Mutex<Vec<T>>>, Event, fn(&mut State) -> T);

impl<T: Send> Probe<T> {
    pub fn new(event: Event, look: fn(&mut State) -> T) -> (Self, Arc<Mutex<Vec<T>>>) {
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

pub fn sgd() -> Sgd {
    Sgd::new(0.1).momentum(0.9)
}

pub fn der() -> StrategyBuilder {
    let (tape, model) = formula::model();
    Der::builder(tape, model, sgd())
        .mem_size(10)
        .batch_size_mem(4)
        .train_mb_size(5)
        .train_epochs(2)
        .eval_mb_size(8)
}

pub fn train(builder: StrategyBuilder) -> Strategy {
    let mut strategy = builder.build().unwrap();
    let benchmark = formula::benchmark(false);
    for experience in benchmark.train_stream().iter() {
        let test: &dyn Experiences = benchmark.test_stream();
        strategy.train_with(experience, &[test]).unwrap();
    }
    strategy
}

pub fn gradient(s: &mut State) -> Vec<f32> {
    let mut out = Vec::new();
    s.tape.gradients(&mut out);
    out
}

pub fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}
