//! Metrics and loggers brought together.

use std::collections::BTreeMap;

use super::{At, Logger, Metric, accuracy_metrics, loss_metrics};
use crate::benchmarks::Experience;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};
use crate::{Error, Result};

/// The values of a metric over the run: training iterations and values.
pub type History = (Vec<u64>, Vec<MetricData>);

/// Avalanche's `EvaluationPlugin`: calls every metric at every point of the loop, publishes the
/// values in [`State::last_metrics`] (which may be cleared: `reset_last_metrics` there), keeps them
/// all if asked to, and hands them to the loggers.
///
/// ```
/// use unforget::evaluation::{At, EvaluationPlugin, accuracy_metrics, loss_metrics};
///
/// let evaluator = EvaluationPlugin::new()
///     .metrics(accuracy_metrics(&[At::Epoch, At::Experience, At::Stream]))
///     .metrics(loss_metrics(&[At::Epoch]));
/// assert!(evaluator.get_all_metrics().is_empty());
/// ```
pub struct EvaluationPlugin {
    metrics: Vec<Box<dyn Metric>>,
    loggers: Vec<Box<dyn Logger>>,
    /// False suspends all metrics and loggers.
    pub active: bool,
    /// Whether all values are kept, not only the last of each metric (Avalanche's `collect_all`).
    pub collect_all: bool,
    /// Whether it is an error to evaluate a part of a stream (Avalanche's `strict_checks`).
    pub strict_checks: bool,
    all: BTreeMap<String, History>,
    values: Vec<MetricValue>,
}

impl Default for EvaluationPlugin {
    /// Accuracy and loss of epochs, experiences and streams, as in Avalanche's `default_evaluator`;
    /// without its logger, because a library prints only what it is asked to print.
    fn default() -> Self {
        let at = [At::Epoch, At::Experience, At::Stream];
        EvaluationPlugin::new()
            .metrics(accuracy_metrics(&at))
            .metrics(loss_metrics(&at))
    }
}

impl EvaluationPlugin {
    /// No metrics and no loggers yet.
    pub fn new() -> Self {
        EvaluationPlugin {
            metrics: Vec::new(),
            loggers: Vec::new(),
            active: true,
            collect_all: true,
            strict_checks: false,
            all: BTreeMap::new(),
            values: Vec::new(),
        }
    }

    /// Adds metrics.
    pub fn metrics(mut self, metrics: impl IntoIterator<Item = Box<dyn Metric>>) -> Self {
        self.metrics.extend(metrics);
        self
    }

    /// Adds one metric.
    pub fn metric(mut self, metric: impl Metric + 'static) -> Self {
        self.metrics.push(Box::new(metric));
        self
    }

    /// Adds a logger.
    pub fn logger(mut self, logger: impl Logger + 'static) -> Self {
        self.loggers.push(Box::new(logger));
        self
    }

    /// Whether all values are kept (default), or only the last of each metric.
    pub fn collect_all(mut self, collect_all: bool) -> Self {
        self.collect_all = collect_all;
        self
    }

    /// Whether every evaluation must be of a whole stream, so that metrics of the stream mean the same
    /// each time (default no). A single experience of a longer stream is refused too, which Avalanche lets
    /// pass.
    pub fn strict_checks(mut self, strict_checks: bool) -> Self {
        self.strict_checks = strict_checks;
        self
    }

    /// Every value of every metric so far; empty unless they are kept.
    pub fn get_all_metrics(&self) -> &BTreeMap<String, History> {
        &self.all
    }

    pub(crate) fn on(&mut self, event: Event, s: &mut State) -> Result<()> {
        if !self.active {
            return Ok(());
        }
        if event == Event::BeforeEval && self.strict_checks {
            check_whole(&s.current_eval_stream)?;
        }
        // Outcomes that are on a device are counted later.
        let later = event == Event::AfterEvalIteration && s.tape.has_own_memory();
        self.call(event, s, |metric| !(later && metric.is_of_outcomes()));
        (self.loggers.iter_mut()).try_for_each(|logger| logger.on(event, s, &self.values))
    }

    /// [`AfterEvalIteration`](Event::AfterEvalIteration) for the metrics of outcomes, when `s` shows one that
    /// has come from a device. What they emit, which none of ours does here, goes to the loggers as well.
    pub(crate) fn count_outcome(&mut self, s: &mut State) -> Result<()> {
        if !self.active {
            return Ok(());
        }
        let event = Event::AfterEvalIteration;
        self.call(event, s, |metric| metric.is_of_outcomes());
        match self.values.is_empty() {
            true => Ok(()),
            false => {
                (self.loggers.iter_mut()).try_for_each(|logger| logger.on(event, s, &self.values))
            }
        }
    }

    /// Calls some of the metrics, and publishes what they emit.
    fn call(&mut self, event: Event, s: &mut State, which: impl Fn(&dyn Metric) -> bool) {
        self.values.clear();
        for metric in self.metrics.iter_mut().filter(|m| which(m.as_ref())) {
            metric.on(event, s, &mut self.values);
        }
        for MetricValue { name, value, x } in &self.values {
            s.last_metrics.insert(name.clone(), value.clone());
            if self.collect_all {
                let (xs, values) = self.all.entry(name.clone()).or_default();
                xs.push(*x);
                values.push(value.clone());
            }
        }
    }

    pub(crate) fn save(&self, out: &mut Snapshot) {
        for (i, metric) in self.metrics.iter().enumerate() {
            metric.save(out.child(&format!("metric{i}")));
        }
        for (i, logger) in self.loggers.iter().enumerate() {
            logger.save(out.child(&format!("logger{i}")));
        }
        if self.collect_all {
            out.put("all", &self.all);
        }
    }

    pub(crate) fn load(&mut self, from: &Snapshot) -> Result<()> {
        for (i, metric) in self.metrics.iter_mut().enumerate() {
            metric.load(from.at(&format!("metric{i}")))?;
        }
        for (i, logger) in self.loggers.iter_mut().enumerate() {
            logger.load(from.at(&format!("logger{i}")))?;
        }
        if self.collect_all {
            self.all = from.get("all")?;
        }
        Ok(())
    }
}

/// That a list of experiences is a whole stream.
fn check_whole(list: &[Experience]) -> Result<()> {
    let Some(first) = list.first() else {
        return Ok(());
    };
    match first.stream_length() {
        Some(length) if length != list.len() => Err(Error::config(
            "strict_checks",
            format!(
                "all {length} experiences of the stream {}",
                first.stream_name()
            ),
            format!("{} to evaluate", list.len()),
        )),
        _ => Ok(()),
    }
}
