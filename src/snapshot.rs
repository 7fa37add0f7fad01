//! What a run needs to go on after it was cut: a tree of named values, filled by everything that
//! carries state (model, optimizer, buffer, plugins, metrics) and written by [`crate::checkpoint`].

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A tensor of a snapshot, in PyTorch's order.
#[derive(Clone, PartialEq, Debug)]
pub enum Tensor {
    /// 32-bit floating point: dimensions and values.
    F32(Vec<usize>, Vec<f32>),
    /// Bytes: dimensions and values.
    U8(Vec<usize>, Vec<u8>),
}

/// Named values and tensors, and named parts that hold more of them.
///
/// ```
/// use unforget::snapshot::Snapshot;
///
/// let mut all = Snapshot::default();
/// all.child("schedule").put("steps", &7_u64);
/// assert_eq!(all.at("schedule").get::<u64>("steps")?, 7);
/// assert!(all.at("schedule").get::<u64>("epochs").is_err());
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// Values in MessagePack: exact for every number, NaN included.
    pub(crate) values: BTreeMap<String, Vec<u8>>,
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) children: BTreeMap<String, Snapshot>,
}

impl Snapshot {
    /// The part called `name`, empty if it is new. The name has no slash.
    pub fn child(&mut self, name: &str) -> &mut Snapshot {
        self.children.entry(name.to_string()).or_default()
    }

    /// The part called `name`; an empty one if there is none, because what has no state writes none.
    pub fn at(&self, name: &str) -> &Snapshot {
        static EMPTY: Snapshot = Snapshot {
            values: BTreeMap::new(),
            tensors: BTreeMap::new(),
            children: BTreeMap::new(),
        };
        self.children.get(name).unwrap_or(&EMPTY)
    }

    /// Keeps a value.
    ///
    /// # Panics
    /// If the type's own serialisation fails, which derived ones do not.
    pub fn put(&mut self, name: &str, value: &impl Serialize) {
        let bytes = rmp_serde::to_vec_named(value).expect("a value that can be serialised");
        self.values.insert(name.to_string(), bytes);
    }

    /// A value that was [`put`](Self::put).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is missing or of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.values.get(name).ok_or_else(|| missing(name))?;
        rmp_serde::from_slice(bytes).map_err(|e| {
            Error::Checkpoint(format!(
                "the checkpoint's \"{name}\" cannot be read ({e}); was it written by another \
                 version of unforget?"
            ))
        })
    }

    /// Keeps a tensor.
    ///
    /// # Panics
    /// If the dimensions do not multiply to the number of values.
    #[track_caller]
    pub fn put_tensor(&mut self, name: &str, tensor: Tensor) {
        let (dims, len) = match &tensor {
            Tensor::F32(dims, values) => (dims, values.len()),
            Tensor::U8(dims, values) => (dims, values.len()),
        };
        assert_eq!(dims.iter().product::<usize>(), len, "snapshot: {name}");
        self.tensors.insert(name.to_string(), tensor);
    }

    /// The values of a 32-bit floating-point tensor.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is missing or of another type.
    pub fn f32s(&self, name: &str) -> Result<&[f32]> {
        match self.tensors.get(name) {
            Some(Tensor::F32(_, values)) => Ok(values),
            _ => Err(missing(name)),
        }
    }

    /// The values of a tensor of bytes.
    ///
    /// # Errors
    /// As for [`f32s`](Self::f32s).
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        match self.tensors.get(name) {
            Some(Tensor::U8(_, values)) => Ok(values),
            _ => Err(missing(name)),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::Checkpoint(format!(
        "the checkpoint lacks \"{name}\"; was it written by a run with other options or plugins?"
    ))
}
