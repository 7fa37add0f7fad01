//! Inputs that stay bytes until an operation wants numbers.
//!
//! Images are stored as bytes, a quarter of the memory of their numbers, and a linear layer can multiply them
//! as they are ([`Backend::gemm_bytes`]). For any other operation they are looked up, once.

use std::sync::Arc;

use super::{Arena, Block, Graph};
use crate::backend::{Backend, Dst, Factor, Gemm, LookUp, Src, View, ViewMut, Write};
use crate::pixels::PixelRow;

/// An input of which there are bytes.
pub(super) struct Stored {
    /// Where its numbers are, or will be.
    value: Block,
    bytes: Block,
    tables: Arc<[[f32; 256]]>,
    /// Its numbers are there.
    looked_up: bool,
}

impl<B: Backend> Arena<B> {
    /// The bytes of a value, if there are any.
    pub fn bytes(&self, value: Block) -> Option<LookUp<'_, B::Buf>> {
        let stored = self.stored.iter().find(|stored| stored.value == value)?;
        Some(LookUp {
            bytes: self.view(stored.bytes),
            table: &stored.tables[0],
        })
    }

    /// The bytes of a value of which there are no numbers.
    pub(super) fn only_bytes(&self, value: Block) -> Option<LookUp<'_, B::Buf>> {
        let awaits = |stored: &Stored| stored.value == value && !stored.looked_up;
        (self.stored.iter().any(awaits)).then(|| self.bytes(value))?
    }

    /// The first `len` numbers of a value as the left factor of a product.
    pub fn factor(&self, value: Block, len: usize) -> Factor<'_, B::Buf> {
        match self.bytes(value) {
            Some(bytes) => Factor::Bytes(bytes),
            None => Factor::Numbers(self.range(value, 0, len)),
        }
    }
}

/// `C = A·B` or `C += A·B`, where A is a value that may be bytes: [`Backend::gemm_bytes`] or, if that will
/// not, [`Backend::gemm`].
pub(crate) fn multiply<B: Backend>(
    backend: &B,
    arena: &Arena<B>,
    mut c: Dst<'_, B>,
    a: Block,
    b: Src<'_, B>,
    dims: Gemm,
    write: Write,
) {
    let done = (arena.bytes(a))
        .is_some_and(|bytes| backend.gemm_bytes(c.reborrow(), bytes, b, dims, write));
    if done {
        return;
    }
    let len = dims.m * dims.k;
    match arena.only_bytes(a) {
        None => backend.gemm(c, arena.range(a, 0, len), b, dims, write),
        Some(bytes) => {
            let buf = looked_up(backend, bytes, len);
            let (buf, offset) = (&buf, 0);
            backend.gemm(c, View { buf, offset, len }, b, dims, write);
        }
    }
}

/// The numbers of bytes, in memory of their own.
fn looked_up<B: Backend>(backend: &B, bytes: LookUp<'_, B::Buf>, len: usize) -> B::Buf {
    let memory = backend.alloc(len);
    let mut buf = memory.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)));
    let whole = ViewMut {
        buf: &mut buf,
        offset: 0,
        len,
    };
    backend.look_up(whole, bytes);
    buf
}

impl<B: Backend> Graph<B> {
    /// Takes the rows as the bytes of `value`; false, and nothing done, if they must become numbers.
    pub(super) fn keep_bytes(&mut self, value: Block, rows: &[PixelRow]) -> bool {
        let len = self.arena.view(value).len;
        let (Some(tables), Some(room)) = (PixelRow::common_table(rows), B::bytes_len(len)) else {
            return false;
        };
        let (bytes, mut lent) = self.output(room);
        (self.backend).gather_bytes(lent.view(), rows, len / rows.len());
        self.arena.restore(lent);
        self.arena.stored.push(Stored {
            value,
            bytes,
            tables: tables.clone(),
            looked_up: false,
        });
        true
    }

    /// Makes numbers of the bytes of a value, if it has none yet.
    pub(super) fn look_up(&mut self, value: Block) {
        if self.arena.only_bytes(value).is_none() {
            return;
        }
        let mut lent = self.arena.lend(value);
        if let Some(bytes) = self.arena.bytes(value) {
            self.backend.look_up(lent.view(), bytes);
        }
        self.arena.restore(lent);
        for stored in &mut self.arena.stored {
            stored.looked_up |= stored.value == value;
        }
    }

    /// The numbers of a value of which there are only bytes.
    pub(super) fn read_bytes(&self, value: Block) -> Option<Vec<B::Elem>> {
        let bytes = self.arena.only_bytes(value)?;
        let (len, offset) = (self.arena.view(value).len, 0);
        let buf = &looked_up(&self.backend, bytes, len);
        let mut out = vec![B::Elem::default(); len];
        (self.backend).download(View { buf, offset, len }, &mut out);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::backend::reference::Reference;
    use crate::backend::{Elem, SgdStep};
    use crate::graph::{Mode, ParamId, ParamLayout, Var};
    use crate::pixels::Cutout;
    use crate::shape::Shape;

    const SIZE: usize = 130;
    const UNITS: usize = 33;

    /// Five images, most of them black.
    fn rows() -> Vec<PixelRow> {
        let pixels: Arc<[u8]> = (0..5 * SIZE)
            .map(|i| if i % 7 == 3 { (i % 256) as u8 } else { 0 })
            .collect();
        let tables: Arc<[[f32; 256]]> = [std::array::from_fn(|b| b as f32 / 255.0 - 0.25)].into();
        let row = |i: usize| PixelRow {
            pixels: pixels.clone(),
            first: i * SIZE,
            map: None,
            tables: tables.clone(),
            cutout: Cutout::whole([1, SIZE]),
        };
        (0..5).map(row).collect()
    }

    fn number<B: Backend>(i: usize) -> B::Elem {
        B::Elem::from_f64((i * 37 % 101) as f64 / 50.0 - 1.0)
    }

    /// A step that has begun, with the weight of a layer and the images, as bytes or as numbers.
    fn begun<B: Backend>(backend: B, bytes: bool) -> (Graph<B>, ParamId, Var) {
        let mut graph = Graph::new(backend).unwrap();
        let init: Vec<_> = (0..SIZE * UNITS).map(number::<B>).collect();
        let layout = ParamLayout::Linear {
            inputs: SIZE,
            outputs: UNITS,
        };
        let weight = graph.parameter("weight", layout, &init);
        graph.begin(Mode::Train);
        let shape = Shape::new(&[5, SIZE]);
        let x = match bytes {
            true => graph.pixels(shape, &[], &rows()),
            false => {
                let values = PixelRow::write_all(&rows(), 5 * SIZE);
                graph.input(shape, &B::Elem::from_f32s(&values), false)
            }
        };
        (graph, weight, x)
    }

    /// Numbers of the layer's output, of the gradient of its weight, and of its weight after a step; and whether
    /// the input was bytes to the end. `each` is called with graph and input before and after the layer.
    fn layer<B: Backend>(
        backend: B,
        bytes: bool,
        each: impl Fn(&mut Graph<B>, Var),
    ) -> ([Vec<f64>; 3], bool) {
        let (mut graph, weight, x) = begun(backend, bytes);
        let flat = graph.flatten(x);
        each(&mut graph, x);
        let y = graph.linear(flat, weight, None);
        each(&mut graph, x);
        let targets: Vec<_> = (0..5 * UNITS).map(number::<B>).collect();
        let target = graph.input(Shape::new(&[5, UNITS]), &targets, false);
        let loss = graph.mse(y, target);
        graph.backward(loss);
        let wide = |values: Vec<B::Elem>| values.into_iter().map(B::Elem::to_f64).collect();
        let gradient = graph
            .params
            .read_grad(&graph.backend, &graph.arena, weight)
            .unwrap();
        let still = graph.arena.only_bytes(graph.peek(x).value).is_some();
        let y = graph.read(y);
        graph.sgd(SgdStep {
            lr: 0.1,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            first: true,
        });
        let weight = graph.params.read(&graph.backend, weight);
        ([y, gradient, weight].map(wide), still)
    }

    #[test]
    fn a_layer_gives_the_same_numbers_for_bytes() {
        fn check<B: Backend>(backend: impl Fn() -> B) {
            let (want, still) = layer(backend(), false, |_, _| ());
            assert!(!still);
            let (of_bytes, still) = layer(backend(), true, |_, _| ());
            assert!(still, "numbers were made");
            assert_eq!(of_bytes, want);
        }
        check(Reference::<f64>::default);
        check(Cpu::default);
    }

    #[test]
    fn whoever_wants_numbers_gets_them() {
        let want = PixelRow::write_all(&rows(), 5 * SIZE);
        let (numbers, _) = layer(Cpu::default(), false, |_, _| ());
        let read = |graph: &mut Graph<Cpu>, x| {
            assert_eq!(graph.read(x), want);
            assert_eq!(graph.host(x), None);
        };
        let by_reading = layer(Cpu::default(), true, read);
        assert_eq!(by_reading, (numbers.clone(), true));
        let use_it = |graph: &mut Graph<Cpu>, x| {
            let twice = graph.scale(x, 2.0);
            let doubled: Vec<f32> = want.iter().map(|x| 2.0 * x).collect();
            assert_eq!(graph.read(twice), doubled);
            assert_eq!(graph.host(x), Some(&want[..]));
        };
        assert_eq!(layer(Cpu::default(), true, use_it), (numbers, false));
    }

    /// The second gradient of a weight is added to the first.
    #[test]
    fn two_layers_may_share_a_weight_and_bytes() {
        let gradient = |bytes: bool| {
            let (mut graph, weight, x) = begun(Cpu::default(), bytes);
            let [once, again] = [(); 2].map(|()| graph.linear(x, weight, None));
            let twice = graph.scale(again, 2.0);
            let y = graph.add(once, twice);
            let target = graph.input(Shape::new(&[5, UNITS]), &[0.5; 5 * UNITS], false);
            let loss = graph.mse(y, target);
            graph.backward(loss);
            (graph.params).read_grad(&graph.backend, &graph.arena, weight)
        };
        assert_eq!(gradient(true), gradient(false));
    }

    /// A step knows nothing of the bytes of the step before.
    #[test]
    fn a_new_step_has_no_bytes() {
        let mut graph = Graph::new(Cpu::default()).unwrap();
        graph.begin(Mode::Train);
        graph.pixels(Shape::new(&[5, SIZE]), &[], &rows());
        graph.begin(Mode::Train);
        let values = vec![0.5; 5 * SIZE];
        let x = graph.input(Shape::new(&[5, SIZE]), &values, false);
        assert_eq!(graph.read(x), values);
    }
}
