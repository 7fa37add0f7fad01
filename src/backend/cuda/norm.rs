//! Batch normalisation.

use super::driver::Buffer;
use super::kernels::Kernel;
use super::sequence::Arg;
use super::{Cuda, args, int};
use crate::backend::{BatchNorm, BatchNormBackward, View, ViewMut, Write};
use crate::shape::Images;

/// Most groups of one launch: `MAX_GROUPS` in `kernels/norm.cu`. More take several.
const MAX_GROUPS: usize = 8;

/// Rows that one block takes before it is worth dividing them.
const ROWS: usize = 256;

/// `Groups` of `kernels/norm.cu`: how many, and their borders in rows.
struct Groups {
    numbers: [i32; MAX_GROUPS + 2],
    count: usize,
    /// Rows of the largest group.
    most: usize,
    /// Rows of all groups.
    rows: usize,
}

impl Groups {
    fn new(first: usize, sizes: &[usize], pixels: usize) -> Self {
        let mut numbers = [0; MAX_GROUPS + 2];
        numbers[0] = int(sizes.len());
        numbers[1] = int(first);
        let mut end = first;
        for (size, border) in sizes.iter().zip(&mut numbers[2..]) {
            end += size * pixels;
            *border = int(end);
        }
        Groups {
            numbers,
            count: sizes.len(),
            most: sizes.iter().max().map_or(0, |size| size * pixels),
            rows: end - first,
        }
    }
}

/// `groups` in portions of at most [`MAX_GROUPS`], each with the number of its first group; one empty
/// portion if there is no group.
fn portions(images: Images, groups: &[usize]) -> Vec<(usize, Groups)> {
    let (mut first, mut out) = (0, Vec::new());
    for (i, sizes) in groups.chunks(MAX_GROUPS).enumerate() {
        let portion = Groups::new(first, sizes, images.pixels());
        first += portion.rows;
        out.push((i * MAX_GROUPS, portion));
    }
    if out.is_empty() {
        out.push((0, Groups::new(0, &[], 0)));
    }
    out
}

/// The numbers of a view from `by` on.
fn from<'a>(view: &'a ViewMut<'_, Buffer>, by: usize) -> View<'a, Buffer> {
    View {
        buf: view.buf,
        offset: view.offset + by,
        len: view.len.saturating_sub(by),
    }
}

fn after(view: View<'_, Buffer>, by: usize) -> View<'_, Buffer> {
    View {
        offset: view.offset + by,
        len: view.len.saturating_sub(by),
        ..view
    }
}

impl Cuda {
    /// Into how many parts the rows of each group are divided.
    fn parts(&self, groups: &Groups, c: usize) -> usize {
        let blocks = c.div_ceil(32) * groups.count;
        let idle = 2 * self.driver.processors / blocks.max(1);
        groups.most.div_ceil(ROWS).min(idle).max(1)
    }

    /// A launch of a kernel that takes columns by the 32 and parts of groups.
    fn launch_parts(&self, kernel: Kernel, groups: &Groups, c: usize, args: &[Arg<'_>]) {
        let grid = [c.div_ceil(32), self.parts(groups, c), groups.count];
        self.driver.launch(kernel, grid, [32, 8, 1], args);
    }

    pub(super) fn norm_train(
        &self,
        args: BatchNorm<'_, Buffer>,
        images: Images,
        groups: &[usize],
        eps: f32,
        momentum: f32,
    ) {
        let c = images.c;
        let BatchNorm {
            y,
            mean,
            inv_std,
            running,
            x,
            gamma,
            beta,
            residual,
            relu,
        } = args;
        for (first, portion) in portions(images, groups) {
            let (parts, borders) = (self.parts(&portion, c), &portion.numbers);
            let (mean, inv_std) = (from(&mean, first * c), from(&inv_std, first * c));
            self.with_scratch(portion.count * parts * 3 * c, 0, |moments, _| {
                let args = args![moments, x, int(c), borders];
                self.launch_parts(Kernel::NormMoments, &portion, c, args);
                let (c_arg, parts) = (int(c), int(parts));
                let args = args![
                    mean, inv_std, &running, moments, c_arg, borders, parts, eps, momentum
                ];
                self.each(Kernel::NormStatistics, c, args);
            });
            let args = args![&y, x, mean, inv_std, gamma, beta, int(c), borders];
            self.each(Kernel::NormApply, portion.rows * c, args);
        }
        self.finish_norm(&y, residual, relu);
    }

    /// Adds the residual and applies the ReLU.
    fn finish_norm(&self, y: &ViewMut<'_, Buffer>, residual: Option<View<'_, Buffer>>, relu: bool) {
        let n = y.len;
        if let Some(residual) = residual {
            let args = args![y, residual, 1.0, n as i64, Write::Add];
            self.each(Kernel::ScaleAdd, n, args);
        }
        if relu {
            self.each(Kernel::ReluForward, n, args![y, from(y, 0), n as i64]);
        }
    }

    /// Gives `work` the gradient of what the ReLU and the residual were applied to, and writes that
    /// of the residual.
    fn before_relu(
        &self,
        args: &BatchNormBackward<'_, Buffer>,
        work: impl FnOnce(View<'_, Buffer>),
    ) {
        let n = args.dy.len;
        let mut masked = self.masked.borrow_mut();
        let dy = match args.y {
            None => args.dy,
            Some(y) => {
                if masked.len() < n {
                    let bigger = self.driver.alloc(n.next_power_of_two());
                    *masked = bigger.unwrap_or_else(|e| std::panic::resume_unwind(Box::new(e)));
                }
                let dy = ViewMut {
                    buf: &mut *masked,
                    offset: 0,
                    len: n,
                };
                let args = args![&dy, y, args.dy, n as i64, Write::Set];
                self.each(Kernel::ReluBackward, n, args);
                View {
                    buf: &*masked,
                    offset: 0,
                    len: n,
                }
            }
        };
        if let Some((dresidual, write)) = &args.dresidual {
            let args = args![dresidual, dy, 1.0, n as i64, *write];
            self.each(Kernel::ScaleAdd, n, args);
        }
        work(dy);
    }

    pub(super) fn norm_train_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        images: Images,
        groups: &[usize],
        write: Write,
    ) {
        let c = images.c;
        self.before_relu(&args, |dy| {
            let portions = portions(images, groups);
            for (i, (first, portion)) in portions.into_iter().enumerate() {
                let write = if i == 0 { write } else { Write::Add };
                self.norm_backward(&args, dy, &portion, first * c, false, write);
            }
        });
    }

    pub(super) fn norm_eval(&self, args: BatchNorm<'_, Buffer>, c: usize, eps: f32) {
        let BatchNorm {
            y,
            mean,
            inv_std,
            running,
            x,
            gamma,
            beta,
            residual,
            relu,
        } = args;
        let statistics = args![&mean, &inv_std, &running, int(c), eps];
        self.each(Kernel::NormRunning, c, statistics);
        let rows = Groups::new(0, &[x.len / c.max(1)], 1);
        let args = args![&y, x, &mean, &inv_std, gamma, beta, int(c), &rows.numbers];
        self.each(Kernel::NormApply, x.len, args);
        self.finish_norm(&y, residual, relu);
    }

    pub(super) fn norm_eval_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        c: usize,
        write: Write,
    ) {
        let rows = Groups::new(0, &[args.x.len / c.max(1)], 1);
        self.before_relu(&args, |dy| {
            self.norm_backward(&args, dy, &rows, 0, true, write)
        });
    }

    /// The backward pass of some groups, whose statistics begin at `first`.
    fn norm_backward(
        &self,
        args: &BatchNormBackward<'_, Buffer>,
        dy: View<'_, Buffer>,
        groups: &Groups,
        first: usize,
        eval: bool,
        write: Write,
    ) {
        let (x, gamma, c) = (args.x, args.gamma, args.gamma.len);
        let (mean, inv_std) = (after(args.mean, first), after(args.inv_std, first));
        let (parts, borders) = (self.parts(groups, c), &groups.numbers);
        self.with_scratch(groups.count * parts * 2 * c, 0, |sums, _| {
            let (c_arg, parts) = (int(c), int(parts));
            let args_of_sums = args![sums, x, dy, mean, inv_std, c_arg, borders];
            self.launch_parts(Kernel::NormBackwardSums, groups, c, args_of_sums);
            let merge = args![sums, &args.dgamma_dbeta, c_arg, borders, parts, write];
            self.each(Kernel::NormBackwardMerge, c, merge);
            let Some((dx, write)) = &args.dx else { return };
            let apply = args![
                dx, x, dy, gamma, mean, inv_std, sums, c_arg, borders, parts, eval, *write
            ];
            self.each(Kernel::NormBackwardApply, groups.rows * c, apply);
        });
    }
}
