//! Early stopping beside DER: when it stops, and what it brings back.

use crate::formula;
use crate::lab::{Probe, der};
use unforget::prelude::*;
use unforget::tape::Weights;
use unforget::training::*;

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
