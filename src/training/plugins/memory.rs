//! The episodic memory of GEM and A-GEM: some samples of each experience.

use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::{Error, Result};
use crate::rng::TorchGenerator;
use crate::snapshot::Snapshot;

/// Samples of the experiences so far. They share their pixels with the experiences.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    /// The id of the experience.
    experience: usize,
    /// Which of its samples.
    samples: Vec<u32>,
    dataset: ClassificationDataset,
}

impl Part {
    fn new(experience: &Experience, samples: Vec<u32>) -> Self {
        Part {
            experience: experience.current_experience(),
            dataset: experience.dataset().subset(&samples),
            samples,
        }
    }
}

impl Memory {
    /// Takes `count` random samples of an experience, or all if it has no more.
    pub fn store(&mut self, experience: &Experience, count: usize, generator: &mut TorchGenerator) {
        let n = experience.dataset().len();
        let mut samples: Vec<u32> = (0..n as u32).collect();
        if count < n {
            samples = generator.randperm(n);
            samples.truncate(count);
        }
        self.parts.push(Part::new(experience, samples));
    }

    /// The samples of each experience.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &ClassificationDataset> {
        self.parts.iter().map(|part| &part.dataset)
    }

    pub fn save(&self, out: &mut Snapshot) {
        let parts: Vec<_> = (self.parts.iter())
            .map(|part| (part.experience, &part.samples))
            .collect();
        out.put("memory", &parts);
    }

    pub fn load(from: &Snapshot, trained: &[Experience]) -> Result<Self> {
        let parts: Vec<(usize, Vec<u32>)> = from.get("memory")?;
        let parts = (parts.into_iter())
            .map(|(id, samples)| {
                let known = trained.iter().rfind(|e| e.current_experience() == id);
                let fits = |e: &&Experience| {
                    let n = e.dataset().len();
                    samples.iter().all(|&i| (i as usize) < n)
                };
                known.filter(fits).map_or_else(
                    || {
                        Err(Error::Checkpoint(format!(
                            "the checkpoint's memory holds samples of experience {id} that the \
                             benchmark does not have; give the run the same benchmark and data"
                        )))
                    },
                    |experience| Ok(Part::new(experience, samples.clone())),
                )
            })
            .collect::<Result<_>>()?;
        Ok(Memory { parts })
    }
}
