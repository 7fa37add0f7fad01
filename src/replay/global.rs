//! The paper's buffer: one uniform sample of everything that was ever offered.

use super::Item;
use crate::data::ClassificationDataset;
use crate::rng::TorchGenerator;

/// One reservoir for the whole stream, blind to classes and experiences, as the authors of Dark
/// Experience Replay fill it after every iteration (Vitter's algorithm R; section 4 of the paper).
///
/// With `n` samples offered before, the next one goes to slot `n` while there are free slots; then a
/// number uniform in `{0, …, n}` is drawn, and the sample goes to that slot if there is one, or is
/// dropped. Every sample offered is kept with the probability `mem_size / offered`. A sample that is
/// offered again (in the next epoch) counts and is stored again.
///
/// All draws come from the generator given, 63 bits each, reduced by a remainder; at the 25 million
/// samples of the longest benchmark this is uniform to within 3·10⁻¹².
#[derive(Clone, Debug)]
pub struct GlobalReservoir {
    mem_size: usize,
    balanced: bool,
    offered: u64,
    items: Vec<Item>,
    /// How many items there are of each class.
    counts: Vec<usize>,
}

impl GlobalReservoir {
    /// An empty buffer for `mem_size` samples.
    pub fn new(mem_size: usize) -> Self {
        GlobalReservoir {
            mem_size,
            balanced: false,
            offered: 0,
            items: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// With `true`, Balanced Reservoir Sampling (Buzzega et al., "Rethinking Experience Replay: a Bag
    /// of Tricks", ICPR 2020): a sample is accepted with the same probability, but replaces a random
    /// one of the class that has most (the lowest of several), not a random one of all.
    pub fn balanced(self, balanced: bool) -> Self {
        GlobalReservoir { balanced, ..self }
    }

    /// The reservoir after `offered` samples, of which it holds `items`.
    pub(super) fn holding(self, items: Vec<Item>, offered: u64) -> Self {
        let mut counts = Vec::new();
        items.iter().for_each(|item| count(&mut counts, item));
        GlobalReservoir {
            items,
            offered,
            counts,
            ..self
        }
    }

    pub(super) fn is_balanced(&self) -> bool {
        self.balanced
    }

    /// How many samples it may hold.
    pub fn mem_size(&self) -> usize {
        self.mem_size
    }

    /// How many samples have been offered.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The samples, slot by slot.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Offers the samples `indices` of `dataset`, in order. `logits` holds a row of the given width
    /// for each index (not for each sample of the data set). Only samples that stay are copied.
    pub fn update(
        &mut self,
        dataset: &ClassificationDataset,
        indices: &[u32],
        logits: Option<(&[f32], usize)>,
        generator: &mut TorchGenerator,
    ) {
        for (row, &i) in indices.iter().enumerate() {
            let Some(slot) = slot(self.offered, self.mem_size, generator) else {
                self.offered += 1;
                continue;
            };
            self.offered += 1;
            let i = i as usize;
            let logits = logits.map_or(&[][..], |(l, width)| &l[row * width..(row + 1) * width]);
            let item = Item {
                raw: dataset.raw(i),
                target: dataset.target(i),
                task_label: dataset.task_label(i),
                logits: logits.into(),
                key: 0.0,
                source_index: dataset.source_index(i),
                transforms: dataset.transforms(i).clone(),
            };
            self.put(slot, item, generator);
        }
    }

    fn put(&mut self, slot: usize, item: Item, generator: &mut TorchGenerator) {
        if slot == self.items.len() {
            count(&mut self.counts, &item);
            self.items.push(item);
            return;
        }
        let slot = if self.balanced {
            self.slot_of_fullest_class(generator)
        } else {
            slot
        };
        count(&mut self.counts, &item);
        let old = std::mem::replace(&mut self.items[slot], item);
        self.counts[old.target as usize] -= 1;
    }

    fn slot_of_fullest_class(&self, generator: &mut TorchGenerator) -> usize {
        let most = self.counts.iter().copied().max().unwrap_or(0);
        let class = self.counts.iter().position(|&n| n == most).unwrap_or(0);
        let chosen = below(generator, most as u64) as usize;
        let of_class = |item: &&Item| item.target as usize == class;
        let slots = (0..).zip(&self.items).filter(|(_, item)| of_class(item));
        slots.map(|(slot, _)| slot).nth(chosen).unwrap_or(0)
    }

    /// Draws `min(count, stored)` different slots, each subset equally likely, into `out`, whose
    /// content is replaced. Every call is independent of those before.
    pub fn draw(&self, count: usize, generator: &mut TorchGenerator, out: &mut Vec<u32>) {
        let n = self.items.len();
        let count = count.min(n);
        out.clear();
        out.extend(0..n as u32);
        for i in 0..count {
            let other = below(generator, (n - i) as u64) as usize;
            out.swap(i, i + other);
        }
        out.truncate(count);
    }
}

/// Where a sample goes before which `offered` were offered; `None`: it is dropped.
fn slot(offered: u64, mem_size: usize, generator: &mut TorchGenerator) -> Option<usize> {
    let slot = if offered < mem_size as u64 {
        offered
    } else {
        below(generator, offered + 1)
    };
    (slot < mem_size as u64).then_some(slot as usize)
}

/// Counts `item` with its class.
fn count(counts: &mut Vec<usize>, item: &Item) {
    let class = item.target as usize;
    if counts.len() <= class {
        counts.resize(class + 1, 0);
    }
    counts[class] += 1;
}

/// A number below `n`.
fn below(generator: &mut TorchGenerator, n: u64) -> u64 {
    generator.random_i64() as u64 % n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, TransformGroups};

    /// `(count - expected)² / variance`, summed: chi-square for many rare inclusions.
    fn chi_square(kept: &[u32], expected: f64, variance: f64) -> f64 {
        kept.iter()
            .map(|&k| (f64::from(k) - expected).powi(2) / variance)
            .sum()
    }

    type Rule = fn(u64, usize, &mut TorchGenerator) -> Option<usize>;

    /// Chi-square of how often each of `n` samples is kept, `n - 1` degrees of freedom.
    fn inclusion(rule: Rule, n: usize, runs: u32) -> f64 {
        let mem_size = 4;
        let mut generator = TorchGenerator::manual_seed(11);
        let mut kept = vec![0_u32; n];
        for _ in 0..runs {
            let mut slots = [0; 4];
            for i in 0..n {
                if let Some(at) = rule(i as u64, mem_size, &mut generator) {
                    slots[at] = i;
                }
            }
            slots.iter().for_each(|&i| kept[i] += 1);
        }
        let p = mem_size as f64 / n as f64;
        let expected = f64::from(runs) * p;
        chi_square(&kept, expected, expected * (1.0 - p)) * (n - 1) as f64 / n as f64
    }

    #[test]
    fn each_of_a_thousand_samples_is_kept_with_the_same_probability() {
        // Outside of 864..1143 once in a thousand on either side.
        let chi = inclusion(slot, 1000, 10_000);
        assert!((864.0..=1143.0).contains(&chi), "chi-square {chi}");
        // Drawing from one number too few or too many starves or favours those that came first,
        // which shows where they are a large part; beyond 31.3 once in a thousand.
        let chi = inclusion(slot, 12, 10_000);
        assert!(chi <= 31.3, "chi-square {chi}");
        let off_by_one: [Rule; 2] = [
            |n, m, g| Some(if n < m as u64 { n } else { below(g, n) } as usize).filter(|&s| s < m),
            |n, m, g| {
                Some(if n < m as u64 { n } else { below(g, n + 2) } as usize).filter(|&s| s < m)
            },
        ];
        for wrong in off_by_one {
            let chi = inclusion(wrong, 12, 10_000);
            assert!(chi > 31.3, "chi-square {chi} of a wrong rule");
        }
    }

    fn dataset(targets: &[u32]) -> ClassificationDataset {
        let pixels = (0..targets.len()).map(|i| (i % 256) as u8).collect();
        let base = Dataset::from_u8("test", [1, 1, 1], pixels, targets.to_vec(), 100).unwrap();
        ClassificationDataset::new(base, TransformGroups::default())
    }

    #[test]
    fn slots_are_filled_in_order_and_hold_the_row_of_their_sample() {
        let data = dataset(&[5, 6, 7, 8]);
        let mut buffer = GlobalReservoir::new(3);
        let generator = &mut TorchGenerator::manual_seed(1);
        let untouched = generator.clone();
        buffer.update(&data, &[2, 0], Some((&[0.1, 0.2, 0.3, 0.4], 2)), generator);
        assert_eq!(
            *generator, untouched,
            "nothing is drawn while there is room"
        );
        let stored: Vec<_> = (buffer.items().iter())
            .map(|item| (item.target, item.source_index, item.logits.to_vec()))
            .collect();
        assert_eq!(stored, [(7, 2, vec![0.1, 0.2]), (5, 0, vec![0.3, 0.4])]);
        buffer.update(&data, &[0, 1, 2, 3, 0, 1], None, generator);
        assert_eq!((buffer.items().len(), buffer.offered()), (3, 8));
        let mut empty = GlobalReservoir::new(0);
        empty.update(&data, &[0, 1], None, generator);
        assert!(empty.items().is_empty());
    }

    #[test]
    fn draws_have_no_repetition_and_every_pair_is_equally_likely() {
        let mut buffer = GlobalReservoir::new(6);
        let generator = &mut TorchGenerator::manual_seed(2);
        buffer.update(&dataset(&[0; 6]), &[0, 1, 2, 3, 4, 5], None, generator);
        let (runs, mut seen, mut out) = (30_000_u32, vec![0_u32; 36], Vec::new());
        for _ in 0..runs {
            buffer.draw(2, generator, &mut out);
            seen[(out[0] * 6 + out[1]) as usize] += 1;
        }
        let (same, pairs): (Vec<_>, Vec<_>) = (0..36).partition(|i| i / 6 == i % 6);
        assert!(same.iter().all(|&i| seen[i] == 0), "{seen:?}");
        let pairs: Vec<u32> = pairs.iter().map(|&i| seen[i]).collect();
        let expected = f64::from(runs) / 30.0;
        // 29 degrees of freedom; beyond 58.3 once in a thousand.
        let chi = chi_square(&pairs, expected, expected);
        assert!(chi <= 58.3, "chi-square {chi}");
        buffer.draw(10, generator, &mut out);
        out.sort_unstable();
        assert_eq!(out, [0, 1, 2, 3, 4, 5], "no more than there are");
    }

    #[test]
    fn a_balanced_reservoir_takes_from_the_fullest_class() {
        let data = dataset(&[[0; 300].as_slice(), &[1; 100], &[2; 100]].concat());
        let all: Vec<u32> = (0..500).collect();
        let generator = &mut TorchGenerator::manual_seed(3);
        let mut mean = |balanced| {
            let mut sum = [0; 3];
            for _ in 0..50 {
                let mut buffer = GlobalReservoir::new(30).balanced(balanced);
                buffer.update(&data, &all, None, generator);
                for (class, sum) in sum.iter_mut().enumerate() {
                    let items = buffer.items().iter();
                    let count = items.filter(|i| i.target as usize == class).count();
                    assert_eq!(buffer.counts.get(class).map_or(0, |&n| n), count);
                    *sum += count;
                }
            }
            sum.map(|sum| sum as f64 / 50.0)
        };
        let plain = mean(false);
        assert!((plain[1] - 6.0).abs() <= 1.0, "{plain:?}");
        // The 100 ones are offered as numbers 301 to 400 and accepted with 30 over that: 8.6 of
        // them, none of which is lost again; so are 6.7 of the twos.
        let balanced = mean(true);
        let expected = [14.7, 8.6, 6.7];
        for (found, expected) in balanced.into_iter().zip(expected) {
            assert!((found - expected).abs() <= 1.0, "{balanced:?}");
        }
    }
}
