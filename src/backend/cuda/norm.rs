//! Batch normalisation.

use super::driver::Buffer;
use super::kernels::Kernel;
use super::sequence::Arg;
use super::{Cuda, args, int};
use crate::backend::{BatchNorm, BatchNormBackward, Upstream, View, ViewMut, Write};
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
            let c_arg = int(c);
            let args = args![
                &y, x, residual, mean, inv_std, gamma, beta, c_arg, borders, relu
            ];
            self.each_four(Kernel::NormApply, portion.rows * c, args);
        }
    }

    pub(super) fn norm_train_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        images: Images,
        groups: &[usize],
        write: Write,
    ) {
        let c = images.c;
        for (i, (first, portion)) in portions(images, groups).into_iter().enumerate() {
            let write = if i == 0 { write } else { Write::Add };
            self.norm_backward(&args, &portion, first * c, false, write);
        }
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
        let (c, borders) = (int(c), &rows.numbers);
        let args = args![
            &y, x, residual, &mean, &inv_std, gamma, beta, c, borders, relu
        ];
        self.each_four(Kernel::NormApply, x.len, args);
    }

    pub(super) fn norm_eval_backward(
        &self,
        args: BatchNormBackward<'_, Buffer>,
        c: usize,
        write: Write,
    ) {
        let rows = Groups::new(0, &[args.x.len / c.max(1)], 1);
        self.norm_backward(&args, &rows, 0, true, write);
    }

    /// The backward pass of some groups, whose statistics begin at `first`.
    fn norm_backward(
        &self,
        args: &BatchNormBackward<'_, Buffer>,
        groups: &Groups,
        first: usize,
        eval: bool,
        write: Write,
    ) {
        let (x, y, gamma) = (args.x, args.y, args.gamma);
        // Each thread reads its numbers of `dy` before it writes to their places.
        let (mut dx, mut dresidual) = (address(&args.dx), address(&args.dresidual));
        let dy = match &args.dy {
            Upstream::Kept(dy) => *dy,
            Upstream::BecomesInput(dy) => {
                dx = Some((from(dy, 0), Write::Set));
                from(dy, 0)
            }
            Upstream::BecomesResidual(dy) => {
                dresidual = Some((from(dy, 0), Write::Set));
                from(dy, 0)
            }
        };
        let c = gamma.len;
        let (mean, inv_std) = (after(args.mean, first), after(args.inv_std, first));
        let (parts, borders) = (self.parts(groups, c), &groups.numbers);
        self.with_scratch(groups.count * parts * 2 * c, 0, |sums, _| {
            let (c_arg, parts) = (int(c), int(parts));
            let args_of_sums = args![sums, x, dy, y, mean, inv_std, c_arg, borders];
            self.launch_parts(Kernel::NormBackwardSums, groups, c, args_of_sums);
            let merge = args![sums, &args.dgamma_dbeta, c_arg, borders, parts, write];
            self.each(Kernel::NormBackwardMerge, c, merge);
            if dx.is_none() && dresidual.is_none() {
                return;
            }
            let of = |given: Option<(View<'_, Buffer>, Write)>| given.map_or(Write::Set, |g| g.1);
            let (add, add_residual) = (of(dx), of(dresidual));
            let (dx, dresidual) = (dx.map(|g| g.0), dresidual.map(|g| g.0));
            let apply = args![
                dx,
                dresidual,
                x,
                dy,
                y,
                gamma,
                mean,
                inv_std,
                sums,
                c_arg,
                borders,
                parts,
                eval,
                add,
                add_residual
            ];
            self.each_four(Kernel::NormBackwardApply, groups.rows * c, apply);
        });
    }
}

/// A destination's place, and how it is written.
fn address<'a>(dst: &'a Option<(ViewMut<'_, Buffer>, Write)>) -> Option<(View<'a, Buffer>, Write)> {
    dst.as_ref().map(|(view, write)| (from(view, 0), *write))
}
