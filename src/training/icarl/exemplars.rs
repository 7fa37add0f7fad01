//! iCaRL's memory: the exemplars of each class, chosen by herding.

use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::{Error, Result};
use crate::snapshot::Snapshot;
use crate::template::State;

/// How often herding may pick a sample again before it gives up (as in Avalanche).
const MOST_PICKS: usize = 1000;

/// Exemplars of the classes so far; they share their pixels with the experiences.
#[derive(Clone, Debug, Default)]
pub(super) struct Exemplars {
    classes: Vec<Class>,
}

#[derive(Clone, Debug)]
struct Class {
    label: u32,
    /// The id of the experience that brought it.
    experience: usize,
    /// The place in the experience's data, ascending, and the rank of each exemplar.
    samples: Vec<(u32, u32)>,
    dataset: ClassificationDataset,
}

/// A class in a snapshot: label, experience, and the samples with their ranks.
type Kept = (u32, usize, Vec<(u32, u32)>);

impl Exemplars {
    /// The labels, in the order of arrival.
    pub fn classes(&self) -> impl Iterator<Item = u32> {
        self.classes.iter().map(|class| class.label)
    }

    /// The exemplars of each class.
    pub fn datasets(&self) -> impl Iterator<Item = (u32, ClassificationDataset)> {
        self.classes.iter().map(|class| {
            let samples: Vec<u32> = class.samples.iter().map(|(sample, _)| *sample).collect();
            (class.label, class.dataset.subset(&samples))
        })
    }

    /// Chooses exemplars of the classes of an experience, and drops those of others that are too
    /// many now. For each new class draws the seed that PyTorch's loader draws for its workers.
    pub fn add(&mut self, state: &mut State, experience: &Experience, mem_size: usize) {
        let dataset = experience.dataset();
        let targets = dataset.targets();
        let known = |label: &u32| self.classes.iter().any(|class| class.label == *label);
        let new = experience.classes_in_this_experience().iter().copied();
        let new: Vec<u32> = new.filter(|label| !known(label)).collect();
        let each = mem_size.div_ceil((self.classes.len() + new.len()).max(1));
        for class in &mut self.classes {
            class.samples.retain(|(_, rank)| (*rank as usize) < each);
        }
        for label in new {
            state.tape.generator().random_i64();
            let own: Vec<u32> = (0..targets.len() as u32)
                .filter(|&i| targets[i as usize] == label)
                .collect();
            let (features, size) = state.features(&dataset.subset(&own), false);
            let mut samples: Vec<(u32, u32)> = (herding(&features, size, each).into_iter())
                .zip(0..)
                .map(|(at, rank)| (own[at], rank))
                .collect();
            samples.sort_unstable();
            self.classes.push(Class {
                label,
                experience: experience.current_experience(),
                samples,
                dataset: dataset.clone(),
            });
        }
    }

    pub fn save(&self, out: &mut Snapshot) {
        let classes: Vec<_> = (self.classes.iter())
            .map(|c| (c.label, c.experience, &c.samples))
            .collect();
        out.put("classes", &classes);
    }

    pub fn load(from: &Snapshot, trained: &[Experience]) -> Result<Self> {
        let kept: Vec<Kept> = from.get("classes")?;
        let classes = (kept.into_iter())
            .map(|(label, id, samples)| {
                let fits = |e: &&Experience| {
                    let n = e.dataset().len();
                    let inside = samples.iter().all(|&(i, _)| (i as usize) < n);
                    e.current_experience() == id && inside
                };
                let Some(experience) = trained.iter().rfind(fits) else {
                    return Err(Error::Checkpoint(format!(
                        "the checkpoint holds exemplars of experience {id} that the benchmark does \
                         not have; give the run the same benchmark and data"
                    )));
                };
                Ok(Class {
                    label,
                    experience: id,
                    dataset: experience.dataset().clone(),
                    samples,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Exemplars { classes })
    }
}

/// A vector of length 1 in the same direction; zeros, which have none, stay zeros.
pub(super) fn normalised(row: &[f32]) -> Vec<f32> {
    let norm = row
        .iter()
        .map(|&x| f64::from(x).powi(2))
        .sum::<f64>()
        .sqrt();
    let norm = norm.max(f64::MIN_POSITIVE);
    row.iter().map(|&x| (f64::from(x) / norm) as f32).collect()
}

/// The mean of normalised rows.
fn mean(features: &[f32], size: usize) -> Vec<f64> {
    let n = (features.len() / size).max(1) as f64;
    let mut mean = vec![0.0; size];
    for row in features.chunks_exact(size) {
        for (m, x) in mean.iter_mut().zip(normalised(row)) {
            *m += f64::from(x) / n;
        }
    }
    mean
}

/// The normalised mean of the normalised features of a data set and of its mirror images.
pub(super) fn mean_feature(state: &mut State, dataset: &ClassificationDataset) -> Vec<f32> {
    let (plain, size) = state.features(dataset, false);
    let (mirrored, _) = state.features(dataset, true);
    let both = mean(&plain, size).into_iter().zip(mean(&mirrored, size));
    let sum: Vec<f32> = both.map(|(a, b)| ((a + b) / 2.0) as f32).collect();
    normalised(&sum)
}

/// The rows whose mean comes nearest to the mean of all, best first.
fn herding(features: &[f32], size: usize, count: usize) -> Vec<usize> {
    let rows: Vec<Vec<f32>> = features.chunks_exact(size).map(normalised).collect();
    let mean = mean(features, size);
    let mut wanted = mean.clone();
    let mut chosen: Vec<usize> = Vec::new();
    for _ in 0..MOST_PICKS {
        if chosen.len() == count.min(rows.len()) {
            break;
        }
        let along = |row: &[f32]| -> f64 {
            let products = row.iter().zip(&wanted).map(|(x, w)| f64::from(*x) * w);
            products.sum()
        };
        // The first of equals, as PyTorch's argmax.
        let mut best = (0, f64::NEG_INFINITY);
        for (i, row) in rows.iter().enumerate() {
            let value = along(row);
            if value > best.1 {
                best = (i, value);
            }
        }
        if !chosen.contains(&best.0) {
            chosen.push(best.0);
        }
        for ((w, m), x) in wanted.iter_mut().zip(&mean).zip(&rows[best.0]) {
            *w += m - f64::from(*x);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn herding_balances_around_the_mean() {
        // Directions at 0, 10, 80 and 90 degrees: the mean lies at 45.
        let angles = [0.0f32, 10.0, 80.0, 90.0];
        let features: Vec<f32> = (angles.iter())
            .flat_map(|a| [3.0 * a.to_radians().cos(), 3.0 * a.to_radians().sin()])
            .collect();
        let order = herding(&features, 2, 3);
        // One of the inner two, then the other one.
        assert_eq!(order.len(), 3);
        assert_eq!(order[0] + order[1], 3, "{order:?}");
        assert!([1, 2].contains(&order[0]));
        assert_eq!(herding(&features, 2, 9).len(), 4, "no more than there are");
    }
}
