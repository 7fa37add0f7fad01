//! The model after each experience.

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::Metric;
use super::name::{emit, experience_part, stream_metric_name};
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `WeightCheckpoint`: after each training experience all parameters and running
/// statistics, as the bytes of a safetensors file under PyTorch's names (there a pickled module).
///
/// Name: `WeightCheckpoint/train_phase/train_stream/Exp000`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightCheckpoint;

impl Metric for WeightCheckpoint {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let (Event::AfterTrainingExp, Some(experience)) = (event, &s.experience) else {
            return;
        };
        let state = s.tape.state_dict();
        let raw: Vec<(&str, &[usize], Vec<u8>)> = (state.iter())
            .map(|(name, values)| {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                (name.as_str(), values.shape(), bytes)
            })
            .collect();
        let views = raw.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
            (name, view.expect("four bytes a number"))
        });
        match safetensors::serialize(views, None) {
            Ok(bytes) => {
                let stem = stream_metric_name("WeightCheckpoint", s);
                let part = experience_part(experience.current_experience());
                emit(out, s, format!("{stem}{part}"), MetricData::Bytes(bytes));
            }
            Err(error) => log::warn!("the weights cannot be laid out: {error}"),
        }
    }
}
