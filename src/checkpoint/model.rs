//! Weights in and out, as safetensors files that PyTorch reads and writes
//! (`safetensors.torch.load_file`, `save_file`).
//!
//! Tensors carry PyTorch's names and order of dimensions, so a file goes straight into
//! `module.load_state_dict`. Floating-point tensors are f32; the batch counts of batch
//! normalisation (`num_batches_tracked`) are i64 scalars, as in PyTorch.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::ArrayD;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::{Error, Result};

/// Writes `state` and the batch counts `batches` to `path`, which is replaced in one step: a
/// reader, or a crash in between, finds the old file or the new one, never half of one.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save_model(
    path: &Path,
    state: &[(String, ArrayD<f32>)],
    batches: &[(String, u64)],
) -> Result<()> {
    let floats = state.iter().map(|(name, array)| {
        let bytes: Vec<u8> = array.iter().flat_map(|value| value.to_le_bytes()).collect();
        (name.as_str(), Dtype::F32, array.shape().to_vec(), bytes)
    });
    let counts = batches.iter().map(|(name, count)| {
        // A count beyond i64 cannot be reached; the cast cannot change a value.
        let bytes = (*count as i64).to_le_bytes().to_vec();
        (name.as_str(), Dtype::I64, vec![], bytes)
    });
    let tensors: Vec<_> = floats.chain(counts).collect();
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| Error::StateDict(format!("cannot lay out the weights: {e}")))?;
    let bytes = safetensors::serialize(views, None)
        .map_err(|e| Error::StateDict(format!("cannot lay out the weights: {e}")))?;
    write_atomically(path, &bytes)
}

/// Reads every floating-point tensor of a safetensors file, and every one of bytes (the masks of
/// growing heads). Integer scalars (batch counts) are left out: nothing computed here depends on them.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is not a whole safetensors
/// file, or holds floating-point tensors that are not f32; [`Error::NonFinite`] if a weight is NaN
/// or infinite.
pub fn load_model(path: &Path) -> Result<BTreeMap<String, ArrayD<f32>>> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    check_length(&bytes).map_err(|found| bad(path, found))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(path, e))?;
    let mut state = BTreeMap::new();
    for (name, view) in file.iter() {
        match view.dtype() {
            Dtype::F32 => {}
            Dtype::I8 => {
                let units = view.data().iter().map(|&b| f32::from(b as i8)).collect();
                let array =
                    ArrayD::from_shape_vec(view.shape(), units).map_err(|e| bad(path, e))?;
                state.insert(name.to_string(), array);
                continue;
            }
            Dtype::I64 if view.shape().is_empty() => continue,
            other => {
                return Err(Error::format(
                    path,
                    format!("tensor {name} in f32"),
                    format!("{other:?}"),
                    "convert the weights with .float() before saving them",
                ));
            }
        }
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NonFinite(format!(
                "{}: {} at position {i} of {name}; the training that made these weights diverged",
                path.display(),
                values[i]
            )));
        }
        let array = ArrayD::from_shape_vec(view.shape(), values).map_err(|e| bad(path, e))?;
        state.insert(name.to_string(), array);
    }
    Ok(state)
}

/// The first eight bytes say how long the header is; a file of another kind, or a cut one, is
/// recognised here, before anything believes that number.
pub(super) fn check_length(bytes: &[u8]) -> Result<(), String> {
    let Some(header) = bytes
        .first_chunk::<8>()
        .map(|head| u64::from_le_bytes(*head))
    else {
        return Err(format!("a file of {} bytes", bytes.len()));
    };
    if header > (bytes.len() - 8) as u64 {
        let total = bytes.len();
        return Err(format!("a header of {header} bytes in a file of {total}"));
    }
    Ok(())
}

fn bad(path: &Path, found: impl ToString) -> Error {
    Error::format(
        path,
        "a complete safetensors file",
        found,
        "save the model again, or name the model.safetensors of a finished run",
    )
}

/// Writes a file of its own name beside `path`, then renames it: of several who write `path` at the same
/// time, in whatever process or on whatever machine, one whole file stays.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    let (mut file, partial) = create_beside(path).map_err(failed)?;
    let mut write = || {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|e| {
        // Best effort: the reason to report is the first one.
        let _ = fs::remove_file(&partial);
        failed(e)
    })
}

/// A new file beside `path` that nobody else writes.
fn create_beside(path: &Path) -> std::io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = path.as_os_str().to_owned();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{number}.partial", std::process::id()));
        // The name may be taken: by a process of this number on another machine, or one that was killed.
        match File::create_new(&name) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            created => return Ok((created?, PathBuf::from(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    fn state() -> Vec<(String, ArrayD<f32>)> {
        let weight = arr2(&[[1.0f32, -2.0, 3.5], [0.0, 1e-30, 7.0]]);
        vec![
            ("fc.weight".into(), weight.clone().into_dyn()),
            // Not in standard layout: a transposed view must be written in logical order.
            ("fc.turned".into(), weight.reversed_axes().into_dyn()),
        ]
    }

    #[test]
    fn what_is_written_is_read_back_in_logical_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save_model(&path, &state(), &[("bn.num_batches_tracked".into(), 7)]).unwrap();
        let read = load_model(&path).unwrap();
        assert_eq!(
            read.into_iter().collect::<BTreeMap<_, _>>(),
            state().into_iter().collect()
        );
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let count = file.tensor("bn.num_batches_tracked").unwrap();
        assert_eq!(
            (count.dtype(), count.data()),
            (Dtype::I64, &7i64.to_le_bytes()[..])
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no partial file stays"
        );
    }

    #[test]
    fn writers_of_the_same_file_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.md");
        // What a killed process of this number would leave, in the way of every second name or so.
        for number in (0..400).step_by(2) {
            let left = format!("table.md.{}-{number}.partial", std::process::id());
            fs::write(folder.path().join(left), "half").unwrap();
        }
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_atomically(path, &[writer; 40_000]).unwrap();
                        let found = fs::read(path).unwrap();
                        assert_eq!(found.len(), 40_000);
                        assert!(found.iter().all(|byte| *byte == found[0]));
                    }
                });
            }
        });
        let names = fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 1 + 200, "no partial file is left or taken");
    }

    #[test]
    fn a_file_that_cannot_be_put_in_place_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write_atomically(&path, b"text").unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn masks_that_pytorch_saved_as_bytes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let view = TensorView::new(Dtype::I8, vec![3], &[1, 0, 1]).unwrap();
        let bytes = safetensors::serialize([("active_units", view)], None).unwrap();
        fs::write(&path, bytes).unwrap();
        let read = load_model(&path).unwrap();
        assert_eq!(
            read["active_units"],
            ndarray::arr1(&[1.0, 0.0, 1.0]).into_dyn()
        );
    }

    #[test]
    fn every_cut_of_a_file_is_an_error_and_none_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save_model(&path, &state(), &[]).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = load_model(&path).unwrap_err().to_string();
            assert!(error.contains("model.safetensors"), "{length}: {error}");
        }
        let mut huge = whole;
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(&path, &huge).unwrap();
        assert!(
            load_model(&path)
                .unwrap_err()
                .to_string()
                .contains("a header of")
        );
    }

    #[test]
    fn weights_that_are_not_numbers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let broken = vec![("w".to_string(), ndarray::arr1(&[1.0, f32::NAN]).into_dyn())];
        save_model(&path, &broken, &[]).unwrap();
        assert!(matches!(load_model(&path), Err(Error::NonFinite(_))));
    }
}
