//! Inputs that stay bytes until an operation wants numbers.
//!
//! Images are stored as bytes, a quarter of the memory of their numbers, and a linear layer can multiply them
//! as they are ([`Backend::gemm_bytes`]). For any other operation they are looked up, once.

use std::sync::Arc;

use super::{Arena, Block, Graph};
use crate::backend::{Backend, LookUp, View, ViewMut};
use crate::pixels::PixelRow;

/// The inputs of a step of which there are bytes.
#[derive(Default)]
pub(crate) struct Stored(Vec<Input>);

/// An input of which there are bytes.
struct Input {
    /// Where its numbers are, or will be.
    value: Block,
    bytes: Block,
    tables: Arc<[[f32; 256]]>,
    /// Its numbers are there.
    looked_up: bool,
}

impl Stored {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The bytes of a value, if there are any.
    pub fn bytes<'a, B: Backend>(
        &'a self,
        arena: &'a Arena<B>,
        value: Block,
    ) -> Option<LookUp<'a, B::Buf>> {
        let input = self.0.iter().find(|input| input.value == value)?;
        Some(LookUp {
            bytes: arena.view(input.bytes),
            table: &input.tables[0],
        })
    }

    /// The bytes of a value of which there are no numbers.
    fn only_bytes<'a, B: Backend>(
        &'a self,
        arena: &'a Arena<B>,
        value: Block,
    ) -> Option<LookUp<'a, B::Buf>> {
        self.awaits(value)
            .then(|| self.bytes(arena, value))
            .flatten()
    }

    /// Whether there are bytes of a value, but no numbers.
    pub(super) fn awaits(&self, value: Block) -> bool {
        let awaits = |input: &Input| input.value == value && !input.looked_up;
        self.0.iter().any(awaits)
    }
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
        self.stored.0.push(Input {
            value,
            bytes,
            tables: tables.clone(),
            looked_up: false,
        });
        true
    }

    /// Makes numbers of the bytes of a value, if it has none yet.
    pub(super) fn look_up(&mut self, value: Block) {
        if !self.stored.awaits(value) {
            return;
        }
        let mut lent = self.arena.lend(value);
        if let Some(bytes) = self.stored.bytes(&self.arena, value) {
            self.backend.look_up(lent.view(), bytes);
        }
        self.arena.restore(lent);
        for input in &mut self.stored.0 {
            input.looked_up |= input.value == value;
        }
    }

    /// The numbers of a value of which there are only bytes.
    pub(super) fn looked_up(&self, value: Block) -> Option<Vec<B::Elem>> {
        let bytes = self.stored.only_bytes(&self.arena, value)?;
        let len = self.arena.view(value).len;
        let memory = self.backend.alloc(len);
        let mut buf = memory.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)));
        let whole = ViewMut {
            buf: &mut buf,
            offset: 0,
            len,
        };
        self.backend.look_up(whole, bytes);
        let mut out = vec![B::Elem::default(); len];
        let whole = View {
            buf: &buf,
            offset: 0,
            len,
        };
        self.backend.download(whole, &mut out);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Elem;
    use crate::backend::cpu::Cpu;
    use crate::backend::reference::Reference;
    use crate::graph::{Mode, ParamLayout, Var};
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

    /// Numbers of the layer's output and of the gradients of its weight, and whether the input was bytes to
    /// the end; `each` is called with graph and input before and after the layer.
    fn layer<B: Backend>(
        backend: B,
        bytes: bool,
        each: impl Fn(&mut Graph<B>, Var),
    ) -> (Vec<f64>, Vec<f64>, bool) {
        let mut graph = Graph::new(backend).unwrap();
        let number = |i: usize| B::Elem::from_f64((i * 37 % 101) as f64 / 50.0 - 1.0);
        let init: Vec<_> = (0..SIZE * UNITS).map(number).collect();
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
        let flat = graph.flatten(x);
        each(&mut graph, x);
        let y = graph.linear(flat, weight, None);
        each(&mut graph, x);
        let targets: Vec<_> = (0..5 * UNITS).map(number).collect();
        let target = graph.input(Shape::new(&[5, UNITS]), &targets, false);
        let loss = graph.mse(y, target);
        graph.backward(loss);
        let wide = |values: Vec<B::Elem>| values.into_iter().map(B::Elem::to_f64).collect();
        let gradient = graph.params.read_grad(&graph.backend, weight).unwrap();
        let still = graph.stored.awaits(graph.peek(x).value);
        (wide(graph.read(y)), wide(gradient), still)
    }

    #[test]
    fn a_layer_gives_the_same_numbers_for_bytes() {
        fn check<B: Backend>(backend: impl Fn() -> B) {
            let (y, gradient, still) = layer(backend(), false, |_, _| ());
            assert!(!still);
            let (of_bytes, gradient_of_bytes, still) = layer(backend(), true, |_, _| ());
            assert!(still, "numbers were made");
            assert_eq!((y, gradient), (of_bytes, gradient_of_bytes));
        }
        check(Reference::<f64>::default);
        check(Cpu::default);
    }

    #[test]
    fn whoever_wants_numbers_gets_them() {
        let want = PixelRow::write_all(&rows(), 5 * SIZE);
        let (y, gradient, _) = layer(Cpu::default(), false, |_, _| ());
        let read = |graph: &mut Graph<Cpu>, x| {
            assert_eq!(graph.read(x), want);
            assert_eq!(graph.host(x), None);
        };
        let by_reading = layer(Cpu::default(), true, read);
        assert_eq!(by_reading, (y.clone(), gradient.clone(), true));
        let use_it = |graph: &mut Graph<Cpu>, x| {
            let twice = graph.scale(x, 2.0);
            let doubled: Vec<f32> = want.iter().map(|x| 2.0 * x).collect();
            assert_eq!(graph.read(twice), doubled);
            assert_eq!(graph.host(x), Some(&want[..]));
        };
        assert_eq!(layer(Cpu::default(), true, use_it), (y, gradient, false));
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
