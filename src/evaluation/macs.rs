//! How much arithmetic a sample takes.

use super::name::{emit, metric_name};
use super::{At, Metric, Span, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `MAC_metrics`: multiply-adds of the forward pass of one sample, in linear layers
/// (`out·in`) and convolutions (`C_out·H·W·C_in·k_h·k_w`); a floating-point operation count is about
/// twice that.
///
/// Names: `MAC_MB`, `MAC_Epoch`, `MAC_Exp`. Avalanche's formula for convolutions forgets the input
/// channels; its number is emitted as `MAC_Avalanche_MB` and so on. Avalanche sends a sample of its
/// own through the model, which in training also changes batch statistics; here the last mini-batch
/// of the stretch is counted as it was recorded.
///
/// # Panics
/// For other stretches.
#[track_caller]
pub fn mac_metrics(at: &[At]) -> Vec<Box<dyn Metric>> {
    only(
        "mac_metrics",
        at,
        &[At::Minibatch, At::Epoch, At::Experience],
    );
    (at.iter())
        .map(|&at| {
            Box::new(Macs {
                names: ["MAC", "MAC_Avalanche"].map(|base| at.named("", base)),
                span: Span::new(at),
                counts: [0, 0],
            }) as Box<dyn Metric>
        })
        .collect()
}

struct Macs {
    names: [String; 2],
    span: Span,
    counts: [u64; 2],
}

impl Metric for Macs {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if let (true, Some(output)) = (now.counts, s.mb_output) {
            let macs = s.tape.multiply_adds(output);
            let samples = s.mb_y.len().max(1) as u64;
            self.counts = [macs.all, macs.without_input_channels].map(|n| n / samples);
        }
        if now.emits {
            for (name, count) in self.names.iter().zip(self.counts) {
                let name = metric_name(name, s, self.span.at().of_experience());
                emit(out, s, name, MetricData::Integer(count as i64));
            }
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("counts", &self.counts);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.counts = from.get("counts")?;
        Ok(())
    }
}
