//! What metrics emit.

use ndarray::{Array3, ArrayD};
use serde::{Deserialize, Serialize};

/// The value of a metric.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum MetricData {
    /// A number.
    Scalar(f64),
    /// A whole number.
    Integer(i64),
    /// Numbers, such as an accuracy matrix.
    Tensor(ArrayD<f64>),
    /// A picture, `[height, width, 3]`, 8 bits a channel.
    Image(Array3<u8>),
    /// Serialised data, such as a model's weights.
    Bytes(Vec<u8>),
}

impl MetricData {
    /// The number, if it is one.
    pub fn scalar(&self) -> Option<f64> {
        match self {
            MetricData::Scalar(value) => Some(*value),
            MetricData::Integer(value) => Some(*value as f64),
            _ => None,
        }
    }
}

/// One value of one metric.
#[derive(Clone, PartialEq, Debug)]
pub struct MetricValue {
    /// The name in Avalanche's scheme,
    /// `{Name}/{train|eval}_phase/{stream}_stream/Task{label:03}/Exp{id:03}`.
    pub name: String,
    /// The value.
    pub value: MetricData,
    /// Training iterations done when it was emitted.
    pub x: u64,
}
