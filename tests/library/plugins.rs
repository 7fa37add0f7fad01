//! Plugins beside DER and other strategies: penalties, clipping, projections, and what is refused.

use std::sync::{Arc, Mutex};

use crate::formula;
use crate::lab::{Probe, der, gradient, norm, train};
use unforget::prelude::*;
use unforget::training::*;

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
        let (probe, notes) = Probe::new(Event::AfterBackward, |s| (s.loss().total, gradient(s)));
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
