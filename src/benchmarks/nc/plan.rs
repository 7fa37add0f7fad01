//! In which order the classes come, how many at a time, and under which labels.

use std::collections::BTreeMap;

use super::NcBenchmark;
use crate::benchmarks::check_n_experiences;
use crate::rng::TorchGenerator;
use crate::{Error, Result};

/// How labels are renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remapping {
    None,
    FromFirstExperience,
    InEachExperience,
}

impl NcBenchmark {
    /// Which renumbering the options ask for.
    pub(super) fn remapping(&self) -> Result<Remapping> {
        match (self.from_zero_from_first_exp, self.from_zero_in_each_exp) {
            (false, false) => Ok(Remapping::None),
            (true, false) => Ok(Remapping::FromFirstExperience),
            (false, true) => Ok(Remapping::InEachExperience),
            (true, true) => Err(Error::config(
                "class_ids_from_zero_in_each_exp",
                "false where class_ids_from_zero_from_first_exp is true",
                "both",
            )),
        }
    }

    /// The classes of each experience in the order in which they are met; `by_dataset` holds those of
    /// each data set.
    pub(super) fn plan(&self, by_dataset: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
        if self.one_dataset_per_exp {
            return self.datasets_in_order(by_dataset);
        }
        let order = self.class_order(by_dataset.concat())?;
        let mut rest = order.as_slice();
        let mut classes = Vec::new();
        for count in self.classes_per_experience(order.len())? {
            let (these, others) = rest.split_at(count);
            classes.push(these.to_vec());
            rest = others;
        }
        Ok(classes)
    }

    /// Each data set an experience, in a drawn order.
    fn datasets_in_order(&self, by_dataset: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
        let n = by_dataset.len();
        let clash = [
            ("per_exp_classes", !self.per_exp_classes.is_empty()),
            ("fixed_class_order", self.fixed_class_order.is_some()),
            ("first_exp_with_half_classes", self.half_classes_first),
        ];
        if let Some((name, _)) = clash.into_iter().find(|(_, given)| *given) {
            let expected = "not given where one_dataset_per_exp is";
            return Err(Error::config(name, expected, "both"));
        }
        if let Some(given) = self.n_experiences.filter(|&given| given != n) {
            let expected = format!("{n}, one for each data set");
            return Err(Error::config("n_experiences", expected, given));
        }
        let mut order: Vec<u32> = (0..n as u32).collect();
        if self.shuffle {
            order = TorchGenerator::manual_seed(self.seed).randperm(n);
        }
        Ok((order.iter().map(|&i| by_dataset[i as usize].clone())).collect())
    }

    /// The original labels in the order in which they are met.
    fn class_order(&self, classes: Vec<u32>) -> Result<Vec<u32>> {
        if let Some(order) = &self.fixed_class_order {
            let mut rest = classes.clone();
            for class in order {
                let Some(at) = rest.iter().position(|c| c == class) else {
                    return Err(Error::config(
                        "fixed_class_order",
                        format!("each class of the training data ({classes:?}) at most once"),
                        format!("{class} in {order:?}"),
                    ));
                };
                rest.remove(at);
            }
            if order.is_empty() {
                return Err(Error::config(
                    "fixed_class_order",
                    "at least one class",
                    "none",
                ));
            }
            return Ok(order.clone());
        }
        if !self.shuffle {
            return Ok(classes);
        }
        let permutation = TorchGenerator::manual_seed(self.seed).randperm(classes.len());
        Ok(permutation
            .into_iter()
            .map(|i| classes[i as usize])
            .collect())
    }

    /// The number of classes of each experience.
    fn classes_per_experience(&self, n_classes: usize) -> Result<Vec<usize>> {
        let n = check_n_experiences(self.n_experiences)?;
        if n > n_classes {
            let expected = format!("at most the number of classes, {n_classes}");
            return Err(Error::config("n_experiences", expected, n));
        }
        let half = BTreeMap::from([(0, n_classes / 2)]);
        let fixed = match (self.half_classes_first, self.per_exp_classes.is_empty()) {
            (false, _) => &self.per_exp_classes,
            (true, true) => &half,
            (true, false) => {
                let expected = "not given where first_exp_with_half_classes is";
                return Err(Error::config("per_exp_classes", expected, "both"));
            }
        };
        let wrong = |expected: String| {
            Err(Error::config(
                "per_exp_classes",
                expected,
                format!("{fixed:?}"),
            ))
        };
        if fixed.keys().any(|&id| id >= n) || fixed.values().any(|&count| count == 0) {
            return wrong(format!("experiences 0 to {} with at least 1 class", n - 1));
        }
        let taken = fixed
            .values()
            .try_fold(0usize, |sum, &count| sum.checked_add(count));
        let Some(rest) = taken.and_then(|taken| n_classes.checked_sub(taken)) else {
            return wrong(format!("at most {n_classes} classes together"));
        };
        let others = n - fixed.len();
        if others == 0 && rest != 0 {
            return wrong(format!("all {n_classes} classes in the {n} experiences"));
        }
        let fits = rest.is_multiple_of(others.max(1)) || self.uneven;
        if others != 0 && (rest < others || !fits) {
            return Err(Error::config(
                "n_experiences",
                format!("a number of experiences that divides {rest} classes equally"),
                match fixed.len() {
                    0 => n.to_string(),
                    _ if self.half_classes_first => format!("{others} experiences after the first"),
                    _ => format!("{others} experiences left by per_exp_classes"),
                },
            ));
        }
        let equal = rest.checked_div(others).unwrap_or(0);
        let mut larger = rest.checked_rem(others).unwrap_or(0);
        Ok((0..n)
            .map(|id| match fixed.get(&id) {
                Some(&count) => count,
                None => {
                    let more = usize::from(larger > 0);
                    larger -= more;
                    equal + more
                }
            })
            .collect())
    }
}

/// For each experience, the label that the learner sees for each original class.
pub(super) fn labels(classes: &[Vec<u32>], remapping: Remapping) -> Vec<BTreeMap<u32, u32>> {
    let mut first = 0;
    let mut labels = Vec::with_capacity(classes.len());
    for classes in classes {
        labels.push(match remapping {
            Remapping::None => classes.iter().map(|&class| (class, class)).collect(),
            Remapping::FromFirstExperience => classes.iter().copied().zip(first..).collect(),
            Remapping::InEachExperience => classes.iter().copied().zip(0..).collect(),
        });
        first += classes.len() as u32;
    }
    labels
}
