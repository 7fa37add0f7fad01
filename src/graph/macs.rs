//! How much arithmetic a forward pass takes.

use super::Graph;
use super::node::{Op, Var};
use crate::backend::Backend;

/// Multiplications with an addition in the linear layers, convolutions and matrix products of a
/// forward pass. Everything else (normalisation, activation, pooling) is left out, as is usual.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MultiplyAdds {
    /// `out·in` for each row of a linear layer, `C_out·H·W·C_in·k_h·k_w` for each image of a
    /// convolution.
    pub all: u64,
    /// The same without the input channels of convolutions, `C_out·H·W·k_h·k_w`: Avalanche's count.
    pub without_input_channels: u64,
}

impl<B: Backend> Graph<B> {
    /// Counts what was recorded in this step up to `output`, over all samples.
    #[track_caller]
    pub fn multiply_adds(&self, output: Var) -> MultiplyAdds {
        self.peek(output);
        let mut sum = MultiplyAdds::default();
        for node in &self.nodes[..=output.index as usize] {
            let (inner, channels) = match node.op {
                Op::Linear { x, .. } | Op::MatMul(x, _) => (self.peek(x).shape.dim(1), 1),
                Op::Conv2d { conv, .. } => (conv.kernel[0] * conv.kernel[1], conv.input.c),
                _ => continue,
            };
            let each = node.shape.len() as u64 * inner as u64;
            sum.all += each * channels as u64;
            sum.without_input_channels += each;
        }
        sum
    }
}
