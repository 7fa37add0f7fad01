//! Where one case runs on one backend: makes inputs, guards outputs, records results.

use crate::backend::{Backend, Elem, SpatialLayout, View, ViewMut, Write};
use crate::shape::Images;
use std::fmt::Debug;

/// What surrounds every tensor; a kernel that strays changes it.
const CANARY: f64 = -7.25e17;
/// Numbers before a tensor: an odd count, so that no kernel can rely on alignment, or one that leaves it
/// at a multiple of 32 bytes, so that kernels for such tensors run too.
const FRONTS: [usize; 2] = [5, 8];
/// Numbers after a tensor, more than one vector register.
const BACK: usize = 19;

/// A result to be compared: numbers in row order, and how far they may be off.
pub(super) struct Output {
    pub(super) name: &'static str,
    pub(super) values: Vec<f64>,
    /// Terms of the sums behind each number.
    pub(super) terms: usize,
    /// The magnitude of those terms.
    pub(super) scale: f64,
}

/// A tensor on the backend, between canaries.
pub(super) struct Tensor<B: Backend> {
    buf: B::Buf,
    /// Numbers before it.
    front: usize,
    len: usize,
    /// Set when the tensor is spatial: host numbers are then in row order.
    images: Option<Images>,
}

impl<B: Backend> Tensor<B> {
    pub(super) fn src(&self) -> View<'_, B::Buf> {
        View {
            buf: &self.buf,
            offset: self.front,
            len: self.len,
        }
    }

    pub(super) fn dst(&mut self) -> ViewMut<'_, B::Buf> {
        ViewMut {
            buf: &mut self.buf,
            offset: self.front,
            len: self.len,
        }
    }

    /// Where host number `at` lies on the device.
    fn place(&self, at: usize) -> usize {
        let Some(images) = self.images else { return at };
        let Images { c, h, w, .. } = images;
        let (sample, channel, pixel) = (at / images.sample(), at / (h * w) % c, at % (h * w));
        SpatialLayout::new(images, B::BATCH_BLOCK).index(sample, pixel / w, pixel % w) + channel
    }
}

/// One backend with one case on it. The same case draws the same numbers on every backend.
pub(super) struct Lab<'a, B: Backend> {
    pub(super) backend: &'a B,
    case: &'a dyn Debug,
    /// A bit for each tensor: whether it lies at a multiple of 32 bytes.
    aligned: u32,
    /// Tensors so far.
    made: u32,
    state: u64,
    pub(super) outputs: Vec<Output>,
}

impl<'a, B: Backend> Lab<'a, B> {
    pub(super) fn new(backend: &'a B, case: &'a dyn Debug) -> Self {
        // Of four cases one has all tensors at odd places, one has none, and two have a single one.
        let name = format!("{case:?}");
        let mixed = name
            .bytes()
            .fold(7_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
        let single = 1 << (mixed >> 9 & 15);
        Lab {
            backend,
            case,
            aligned: [0, !0, !single, !single][mixed as usize >> 7 & 3],
            made: 0,
            state: 1,
            outputs: Vec::new(),
        }
    }

    /// A number in `[-1, 1)` that f32 holds exactly (SplitMix64, upper 24 bits).
    pub(super) fn number(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    }

    /// Numbers in `[-1, 1)`.
    pub(super) fn noise(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| self.number()).collect()
    }

    /// A tensor of given numbers.
    pub(super) fn given(&mut self, values: &[f64]) -> Tensor<B> {
        self.make(values, None)
    }

    /// A spatial tensor of given numbers, in row order.
    pub(super) fn given_images(&mut self, values: &[f64], images: Images) -> Tensor<B> {
        self.make(values, Some(images))
    }

    /// A tensor of noise.
    pub(super) fn input(&mut self, len: usize) -> Tensor<B> {
        let values = self.noise(len);
        self.make(&values, None)
    }

    /// A spatial tensor of noise.
    pub(super) fn input_images(&mut self, images: Images) -> Tensor<B> {
        let values = self.noise(images.len());
        self.make(&values, Some(images))
    }

    /// A destination: full of NaN if it is to be set, of noise if it is to be added to.
    pub(super) fn output(&mut self, len: usize, write: Write) -> Tensor<B> {
        let values = self.before(len, write);
        self.make(&values, None)
    }

    /// A spatial destination.
    pub(super) fn output_images(&mut self, images: Images, write: Write) -> Tensor<B> {
        let values = self.before(images.len(), write);
        self.make(&values, Some(images))
    }

    fn before(&mut self, len: usize, write: Write) -> Vec<f64> {
        match write {
            Write::Set => vec![f64::NAN; len],
            Write::Add => self.noise(len),
        }
    }

    fn make(&mut self, values: &[f64], images: Option<Images>) -> Tensor<B> {
        let len = values.len();
        let front = FRONTS[(self.aligned >> (self.made % 32) & 1) as usize];
        self.made += 1;
        let total = front + len + BACK;
        let buf = self
            .backend
            .alloc(total)
            .expect("memory for a small tensor");
        assert!(B::capacity(&buf) >= total);
        let mut tensor = Tensor {
            buf,
            front,
            len,
            images,
        };
        let mut host = vec![B::Elem::from_f64(CANARY); total];
        for (at, &value) in values.iter().enumerate() {
            host[tensor.front + tensor.place(at)] = B::Elem::from_f64(value);
        }
        let everything = ViewMut {
            buf: &mut tensor.buf,
            offset: 0,
            len: total,
        };
        self.backend.upload(everything, &host);
        tensor
    }

    /// The numbers of a tensor in row order.
    ///
    /// # Panics
    /// If a canary around it has changed.
    #[track_caller]
    pub(super) fn read(&self, tensor: &Tensor<B>) -> Vec<f64> {
        let front = tensor.front;
        let total = front + tensor.len + BACK;
        let mut host = vec![B::Elem::default(); total];
        self.backend.download(
            View {
                buf: &tensor.buf,
                offset: 0,
                len: total,
            },
            &mut host,
        );
        let canary = B::Elem::from_f64(CANARY);
        let changed = |at: &usize| host[*at] != canary;
        let outside = (0..front).chain(front + tensor.len..total).find(changed);
        if let Some(at) = outside {
            let distance = at as isize - front as isize;
            let (case, len) = (self.case, tensor.len);
            panic!("{case:?}: wrote at {distance} of a destination of {len} numbers");
        }
        (0..tensor.len)
            .map(|at| host[tensor.front + tensor.place(at)].to_f64())
            .collect()
    }

    /// Records a result whose numbers are sums of `terms` terms of magnitude 1.
    #[track_caller]
    pub(super) fn record(&mut self, name: &'static str, tensor: &Tensor<B>, terms: usize) {
        self.record_scaled(name, tensor, terms, 1.0);
    }

    /// Records the result of a matrix product over `terms` terms. They may be added one by one in
    /// f32, where each addition rounds the sum so far: four times the usual room.
    #[track_caller]
    pub(super) fn record_product(&mut self, name: &'static str, tensor: &Tensor<B>, terms: usize) {
        self.record_scaled(name, tensor, terms, 4.0);
    }

    /// Records a result whose numbers are sums of `terms` terms of magnitude `scale`.
    #[track_caller]
    pub(super) fn record_scaled(
        &mut self,
        name: &'static str,
        tensor: &Tensor<B>,
        terms: usize,
        scale: f64,
    ) {
        let values = self.read(tensor);
        self.outputs.push(Output {
            name,
            values,
            terms,
            scale,
        });
    }

    /// Records a result that may hold NaN and infinities; they are compared as if they were numbers.
    #[track_caller]
    pub(super) fn record_nans(&mut self, name: &'static str, tensor: &Tensor<B>) {
        let kind = |x: f64| match x {
            _ if x.is_nan() => 100.0,
            _ if x.is_infinite() => 10.0 * x.signum(),
            _ => x,
        };
        let values = self.read(tensor).into_iter().map(kind).collect();
        self.outputs.push(Output {
            name,
            values,
            terms: 1,
            scale: 1.0,
        });
    }
}
