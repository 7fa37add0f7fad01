//! Buffers in and out of a snapshot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::reservoir::Item;
use super::{Buffer, ClassBalancedBuffer, ExperienceBalancedBuffer, GlobalReservoir, Reservoir};
use crate::benchmarks::Experience;
use crate::data::{RawSample, TransformGroups};
use crate::error::{Error, Result};
use crate::snapshot::{Snapshot, Tensor};

/// The different transforms of the experiences trained on, in the order of first appearance: a
/// stored sample names its transforms by their place here, because transforms are code.
pub(crate) struct TransformTable(Vec<Arc<TransformGroups>>);

impl TransformTable {
    pub fn of(experiences: &[Experience]) -> Self {
        let mut table: Vec<Arc<TransformGroups>> = Vec::new();
        for dataset in experiences.iter().map(Experience::dataset) {
            for i in 0..dataset.len() {
                let transforms = dataset.transforms(i);
                if !table.iter().any(|known| Arc::ptr_eq(known, transforms)) {
                    table.push(Arc::clone(transforms));
                }
            }
        }
        TransformTable(table)
    }

    fn place(&self, item: &Item) -> u32 {
        let place = (self.0.iter()).position(|known| Arc::ptr_eq(known, &item.transforms));
        place.expect("stored samples come from the experiences trained on") as u32
    }
}

/// How the samples of a buffer are grouped.
#[derive(Serialize, Deserialize)]
enum Layout {
    ClassBalanced {
        mem_size: usize,
        seen: Vec<u32>,
        /// Class, capacity, samples.
        groups: Vec<(u32, usize, usize)>,
    },
    ExperienceBalanced {
        mem_size: usize,
        /// Capacity, samples.
        groups: Vec<(usize, usize)>,
    },
    Global {
        mem_size: usize,
        balanced: bool,
        offered: u64,
    },
}

/// A damaged file must not ask for a list of four billion classes.
const MAX_CLASSES: u32 = 1 << 24;

/// What an item has besides pixels and logits.
#[derive(Serialize, Deserialize)]
struct Label {
    target: u32,
    task_label: u32,
    key: f32,
    source_index: u32,
    transforms: u32,
    logits: usize,
}

impl Buffer {
    pub(crate) fn save(&self, out: &mut Snapshot, table: &TransformTable) {
        let layout = match self {
            Buffer::ClassBalanced(b) => Layout::ClassBalanced {
                mem_size: b.mem_size,
                seen: b.seen.clone(),
                groups: (b.groups.iter())
                    .map(|(class, r)| (*class, r.capacity(), r.items().len()))
                    .collect(),
            },
            Buffer::ExperienceBalanced(b) => Layout::ExperienceBalanced {
                mem_size: b.mem_size,
                groups: (b.groups.iter())
                    .map(|r| (r.capacity(), r.items().len()))
                    .collect(),
            },
            Buffer::Global(b) => Layout::Global {
                mem_size: b.mem_size(),
                balanced: b.is_balanced(),
                offered: b.offered(),
            },
        };
        out.put("layout", &layout);
        save_items(self.iter(), out, table);
    }

    pub(crate) fn load(from: &Snapshot, table: &TransformTable) -> Result<Self> {
        let mut items = load_items(from, table)?.into_iter();
        let mut fill = |capacity, len| Reservoir::of(items.by_ref().take(len).collect(), capacity);
        Ok(match from.get("layout")? {
            Layout::ClassBalanced {
                mem_size,
                seen,
                groups,
            } => Buffer::ClassBalanced(ClassBalancedBuffer {
                mem_size,
                seen,
                groups: (groups.into_iter())
                    .map(|(class, capacity, len)| (class, fill(capacity, len)))
                    .collect(),
            }),
            Layout::ExperienceBalanced { mem_size, groups } => {
                Buffer::ExperienceBalanced(ExperienceBalancedBuffer {
                    mem_size,
                    groups: (groups.into_iter())
                        .map(|(capacity, len)| fill(capacity, len))
                        .collect(),
                })
            }
            Layout::Global {
                mem_size,
                balanced,
                offered,
            } => {
                let reservoir = GlobalReservoir::new(mem_size).balanced(balanced);
                Buffer::Global(reservoir.holding(items.collect(), offered))
            }
        })
    }
}

/// Writes samples: bytes as bytes, `[n, pixels]`, so that the file is no larger than the buffer.
fn save_items<'a>(
    items: impl Iterator<Item = &'a Item>,
    out: &mut Snapshot,
    table: &TransformTable,
) {
    let (mut labels, mut logits, mut bytes, mut floats) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for item in items {
        match &item.raw {
            RawSample::U8(pixels) => bytes.extend_from_slice(pixels),
            RawSample::F32(pixels) => floats.extend_from_slice(pixels),
        }
        logits.extend_from_slice(&item.logits);
        labels.push(Label {
            target: item.target,
            task_label: item.task_label,
            key: item.key,
            source_index: item.source_index,
            transforms: table.place(item),
            logits: item.logits.len(),
        });
    }
    out.put("labels", &labels);
    out.put_tensor("logits", Tensor::F32(vec![logits.len()], logits));
    let rows = |len: usize| vec![labels.len(), len / labels.len().max(1)];
    if floats.is_empty() {
        out.put_tensor("pixels", Tensor::U8(rows(bytes.len()), bytes));
    } else {
        out.put_tensor("pixels", Tensor::F32(rows(floats.len()), floats));
    }
}

/// Reads what [`save_items`] wrote.
fn load_items(from: &Snapshot, table: &TransformTable) -> Result<Vec<Item>> {
    let labels: Vec<Label> = from.get("labels")?;
    let bad = || Error::Checkpoint("the checkpoint's buffer does not fit its own lists".into());
    let pixels: Vec<RawSample> = match from.bytes("pixels") {
        Ok(bytes) => {
            let size = (bytes.len() / labels.len().max(1)).max(1);
            let rows = bytes.chunks_exact(size);
            rows.map(|row| RawSample::U8(row.into())).collect()
        }
        Err(_) => {
            let floats = from.f32s("pixels")?;
            let size = (floats.len() / labels.len().max(1)).max(1);
            let rows = floats.chunks_exact(size);
            rows.map(|row| RawSample::F32(row.into())).collect()
        }
    };
    let mut logits = from.f32s("logits")?;
    let fits = |label: &Label| label.target < MAX_CLASSES;
    if !labels.iter().all(fits)
        || pixels.len() != labels.len()
        || logits.len() != labels.iter().map(|l| l.logits).sum::<usize>()
    {
        return Err(bad());
    }
    (labels.into_iter().zip(pixels))
        .map(|(label, raw)| {
            let (own, rest) = logits.split_at(label.logits);
            logits = rest;
            let transforms = table.0.get(label.transforms as usize).ok_or_else(bad)?;
            Ok(Item {
                raw,
                target: label.target,
                task_label: label.task_label,
                logits: own.into(),
                key: label.key,
                source_index: label.source_index,
                transforms: Arc::clone(transforms),
            })
        })
        .collect()
}
