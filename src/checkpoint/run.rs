//! Whole checkpoints.
//!
//! One safetensors file. A tensor of the snapshot goes under its path, so that the weights are
//! `tape/model/NAME`, f32, in PyTorch's shape; any other value is a tensor of bytes in MessagePack,
//! whose name begins with `@`. The metadata say `format` and `version`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::model::{check_length, write_atomically};
use crate::snapshot::{Snapshot, Tensor};
use crate::training::{Experiences, Strategy};
use crate::{Error, Result};

const FORMAT: &str = "unforget checkpoint";
const VERSION: &str = "1";
/// Before the names of values that are not tensors.
const VALUE: char = '@';

/// Writes everything that the rest of the run depends on: Avalanche's `save_checkpoint`. The file
/// is replaced in one step. To be called between two calls of `train`; for checkpoints in the
/// middle of an experience see [`Keeper`](crate::training::Keeper).
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save_checkpoint(path: &Path, strategy: &Strategy) -> Result<()> {
    write_snapshot(path, &strategy.save())
}

/// Takes up a run where its checkpoint was made, if there is one: Avalanche's
/// `maybe_load_checkpoint`. Returns how many experiences had been finished (0 without a file), which
/// is the position in the stream at which to go on, also when the checkpoint was made in the middle
/// of that experience.
///
/// The strategy must be built in the same way as then, and `stream` be the same train stream.
///
/// ```
/// use unforget::checkpoint::{maybe_load_checkpoint, save_checkpoint};
/// use unforget::prelude::*;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("checkpoint.safetensors");
/// let benchmark = SplitMnist::embedded().n_experiences(5).seed(1).build()?;
/// let build = || -> Result<Strategy> {
///     let mut tape = Tape::new(Device::Cpu)?;
///     let model = Mlp::new(&mut tape, &[784, 10]);
///     Der::builder(tape, model, Sgd::new(0.03)).train_mb_size(100).build()
/// };
/// let mut strategy = build()?;
/// strategy.train(&benchmark.train_stream()[0])?;
/// save_checkpoint(&path, &strategy)?;
///
/// let mut resumed = build()?;
/// let next = maybe_load_checkpoint(&path, &mut resumed, benchmark.train_stream())?;
/// assert_eq!(next, 1);
/// # Ok::<(), unforget::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] and [`Error::Format`] for the file; [`Error::Checkpoint`] and
/// [`Error::StateDict`] if it is of another strategy, model or benchmark.
pub fn maybe_load_checkpoint(
    path: &Path,
    strategy: &mut Strategy,
    stream: &(impl Experiences + ?Sized),
) -> Result<usize> {
    if !path.exists() {
        return Ok(0);
    }
    strategy.load(&read_snapshot(path)?, stream)?;
    Ok(strategy.state().clock.train_exp_counter as usize)
}

/// Writes a snapshot; `path` is replaced in one step.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn write_snapshot(path: &Path, snapshot: &Snapshot) -> Result<()> {
    let mut tensors = Vec::new();
    flatten("", snapshot, &mut tensors);
    let views = (tensors.iter())
        .map(|(name, dtype, dims, bytes)| Ok((name, TensorView::new(*dtype, dims.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let metadata = HashMap::from([("format", FORMAT), ("version", VERSION)])
        .into_iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    let bytes = views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|e| Error::Checkpoint(format!("cannot lay out the checkpoint: {e}")))?;
    write_atomically(path, &bytes)
}

type Flat = (String, Dtype, Vec<usize>, Vec<u8>);

fn flatten(path: &str, part: &Snapshot, out: &mut Vec<Flat>) {
    for (name, bytes) in &part.values {
        let name = format!("{path}{VALUE}{name}");
        out.push((name, Dtype::U8, vec![bytes.len()], bytes.clone()));
    }
    for (name, tensor) in &part.tensors {
        let (dtype, dims, bytes) = match tensor {
            Tensor::U8(dims, values) => (Dtype::U8, dims, values.clone()),
            Tensor::F32(dims, values) => {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                (Dtype::F32, dims, bytes)
            }
        };
        out.push((format!("{path}{name}"), dtype, dims.clone(), bytes));
    }
    for (name, child) in &part.children {
        flatten(&format!("{path}{name}/"), child, out);
    }
}

/// Reads a snapshot.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is not a whole checkpoint of
/// this version.
pub fn read_snapshot(path: &Path) -> Result<Snapshot> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let bad = |found: String| {
        Error::format(
            path,
            format!("a complete {FORMAT} of version {VERSION}"),
            found,
            "name the checkpoint.safetensors of a run of this version, or start the run anew",
        )
    };
    check_length(&bytes).map_err(bad)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let stated = |key: &str| {
        let metadata = header.metadata().as_ref();
        metadata
            .and_then(|m| m.get(key))
            .cloned()
            .unwrap_or_default()
    };
    if stated("format") != FORMAT || stated("version") != VERSION {
        let found = match stated("format").as_str() {
            FORMAT => format!("version {}", stated("version")),
            _ => "another safetensors file".to_string(),
        };
        return Err(bad(found));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
    let mut root = Snapshot::default();
    for (name, view) in file.iter() {
        let mut part = &mut root;
        let mut names = name.split('/').peekable();
        let mut last = "";
        while let Some(name) = names.next() {
            if names.peek().is_some() {
                part = part.child(name);
            } else {
                last = name;
            }
        }
        let (dims, data) = (view.shape().to_vec(), view.data());
        match (view.dtype(), last.strip_prefix(VALUE)) {
            (Dtype::U8, Some(value)) => {
                part.values.insert(value.to_string(), data.to_vec());
            }
            (Dtype::U8, None) => part.put_tensor(last, Tensor::U8(dims, data.to_vec())),
            (Dtype::F32, None) => {
                let values = data.chunks_exact(4).map(|b| {
                    let bytes = [b[0], b[1], b[2], b[3]];
                    f32::from_le_bytes(bytes)
                });
                part.put_tensor(last, Tensor::F32(dims, values.collect()));
            }
            (other, _) => return Err(bad(format!("{name} of type {other:?}"))),
        }
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let mut all = Snapshot::default();
        all.put("nan", &f64::NAN.to_bits());
        let part = all.child("tape").child("model");
        part.put_tensor(
            "fc.weight",
            Tensor::F32(vec![1, 2], vec![-0.0, f32::MIN_POSITIVE]),
        );
        part.put("third", &(1.0_f64 / 3.0));
        all.put_tensor("bytes", Tensor::U8(vec![0], vec![]));
        all
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        write_snapshot(&path, &snapshot()).unwrap();
        let read = read_snapshot(&path).unwrap();
        assert_eq!(read, snapshot());
        let weight = read.at("tape").at("model");
        assert_eq!(
            weight.f32s("fc.weight").unwrap()[0].to_bits(),
            (-0.0f32).to_bits()
        );
    }

    #[test]
    fn every_cut_and_other_files_are_errors_and_none_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        write_snapshot(&path, &snapshot()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read_snapshot(&path).unwrap_err().to_string();
            assert!(error.contains("c.safetensors"), "{length}: {error}");
        }
        super::super::save_model(&path, &[], &[]).unwrap();
        let error = read_snapshot(&path).unwrap_err().to_string();
        assert!(error.contains("another safetensors file"), "{error}");
        assert!(snapshot().at("nothing").f32s("x").is_err());
        assert!(snapshot().get::<String>("nan").is_err());
    }
}
