//! Reading the golden files and comparing with them.

use approx::abs_diff_ne;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::PathBuf;
use unforget::ndarray::ArrayD;

/// Times PyTorch's own f32 error that a result may be off.
const MARGIN: f64 = 8.0;
/// The least error granted, in units of the largest magnitude: two roundings to f32.
const FLOOR: f64 = 1.2e-7;

/// The path of a golden file.
fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name]
        .iter()
        .collect()
}

/// The bytes of a golden file.
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|e| panic!("tests/golden/{name}: {e}"))
}

/// A safetensors file of numbers with its JSON metadata.
pub struct Golden<'a> {
    tensors: SafeTensors<'a>,
    pub meta: Value,
}

impl<'a> Golden<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).expect("a safetensors header");
        let meta = &header.metadata().as_ref().expect("metadata")["golden"];
        Golden {
            tensors: SafeTensors::deserialize(bytes).expect("a safetensors file"),
            meta: serde_json::from_str(meta).expect("JSON"),
        }
    }

    /// The keys of the file.
    pub fn keys(&self) -> Vec<String> {
        self.tensors.names().iter().map(|s| s.to_string()).collect()
    }

    /// The tensor `key`, if there is one.
    pub fn find(&self, key: &str) -> Option<ArrayD<f32>> {
        let view = self.tensors.tensor(key).ok()?;
        assert_eq!(view.dtype(), Dtype::F32, "{key}");
        let values = (view.data().chunks_exact(4))
            .map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")))
            .collect();
        Some(ArrayD::from_shape_vec(view.shape(), values).expect("a full tensor"))
    }

    /// The tensor `key`.
    pub fn get(&self, key: &str) -> ArrayD<f32> {
        self.find(key).unwrap_or_else(|| panic!("{key} is missing"))
    }

    /// The integers `key`.
    pub fn labels(&self, key: &str) -> Vec<u32> {
        let view = self.tensors.tensor(key).expect("labels");
        assert_eq!(view.dtype(), Dtype::I64, "{key}");
        (view.data().chunks_exact(8))
            .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32)
            .collect()
    }
}

/// The numbers of `a` in row-major order.
pub fn flat(a: &ArrayD<f32>) -> Vec<f32> {
    a.iter().copied().collect()
}

/// Compares with a golden tensor. `deviation` is the error of PyTorch's own f32 run in units of the
/// tensor's largest magnitude.
#[track_caller]
pub fn check(what: &str, got: &ArrayD<f32>, want: &ArrayD<f32>, deviation: f64) {
    assert_eq!(got.shape(), want.shape(), "{what}: shape");
    let scale = want.iter().fold(1e-3, |m, x| f64::from(x.abs()).max(m));
    let tolerance = MARGIN * deviation.max(FLOOR) * scale;
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        // "Not equal" is true of NaN too.
        if abs_diff_ne!(f64::from(g), f64::from(w), epsilon = tolerance) {
            panic!("{what}: number {i} is {g:e}, PyTorch has {w:e}, tolerance {tolerance:e}");
        }
    }
}

/// Compares one number.
#[track_caller]
pub fn check_number(what: &str, got: f32, want: &ArrayD<f32>, deviation: f64) {
    let got = ArrayD::from_elem(want.shape(), got);
    check(what, &got, want, deviation);
}

/// 64-bit FNV-1a of the little-endian bytes of `a`, in hexadecimal.
pub fn fnv1a64(a: &ArrayD<f32>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in a.iter().flat_map(|x| x.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    format!("{hash:016x}")
}
