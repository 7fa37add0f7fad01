//! The oracle itself against numbers worked out by hand: all other backends are judged by it.

use super::*;
use crate::backend::ROW_LOSS_COLUMNS;
use crate::shape::Window;

const ORACLE: Reference<f64> = Reference(PhantomData);

fn src(buf: &Vec<f64>) -> View<'_, Vec<f64>> {
    View {
        buf,
        offset: 0,
        len: buf.len(),
    }
}

fn dst(buf: &mut Vec<f64>) -> ViewMut<'_, Vec<f64>> {
    let len = buf.len();
    ViewMut {
        buf,
        offset: 0,
        len,
    }
}

#[track_caller]
fn assert_near(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    let near = got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 1e-7);
    assert!(near, "got {got:?}, expected {want:?}");
}

/// An image of one sample, with channels last: channel 0 counts 1, 2, 3, ..; channel 1 is ten times it.
fn image(h: usize, w: usize) -> (Images, Vec<f64>) {
    let pixels = (1..=h * w).map(|i| i as f64);
    (
        Images { n: 1, c: 2, h, w },
        pixels.flat_map(|i| [i, 10.0 * i]).collect(),
    )
}

#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let error = ORACLE.alloc(usize::MAX).unwrap_err();
    assert!(matches!(error, Error::Device(_)), "{error}");
}

#[test]
fn products_of_all_four_orders() {
    let (a, a_t) = (
        vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0],
    );
    let (b, b_t) = (
        vec![1.0, 0.0, 2.0, 1.0, 0.0, 3.0],
        vec![1.0, 2.0, 0.0, 0.0, 1.0, 3.0],
    );
    for (a, a_transposed) in [(&a, false), (&a_t, true)] {
        for (b, b_transposed) in [(&b, false), (&b_t, true)] {
            let dims = Gemm {
                m: 2,
                n: 2,
                k: 3,
                a_transposed,
                b_transposed,
            };
            let mut c = vec![100.0; 4];
            ORACLE.gemm(dst(&mut c), src(a), src(b), dims, Write::Add);
            assert_eq!(c, [105.0, 111.0, 114.0, 123.0]);
        }
    }
}

#[test]
fn a_convolution_skips_the_taps_outside() {
    let (input, x) = image(2, 2);
    let conv = Conv {
        input,
        out_c: 1,
        kernel: [2, 1],
        stride: [1, 2],
        padding: [1, 0],
    };
    // Kernel row 0 weighs the channels by 1 and 0, kernel row 1 by 0 and 2.
    let w = vec![1.0, 0.0, 0.0, 2.0];
    let mut y = vec![0.0; 3];
    ORACLE.conv2d(dst(&mut y), src(&x), src(&w), conv);
    // Rows of the image in the first column are 1 and 3: (·, 1), (1, 3), (3, ·).
    assert_eq!(y, [20.0, 1.0 + 60.0, 3.0]);

    let dy = vec![1.0, 2.0, 3.0];
    let mut dx = vec![0.5; 8];
    ORACLE.conv2d_backward_data(dst(&mut dx), src(&dy), src(&w), conv, Write::Add);
    assert_eq!(dx, [2.5, 2.5, 0.5, 0.5, 3.5, 4.5, 0.5, 0.5]);
    let mut dw = vec![f64::NAN; 4];
    ORACLE.conv2d_backward_weight(dst(&mut dw), src(&x), src(&dy), conv, Write::Set);
    assert_eq!(dw, [2.0 + 9.0, 110.0, 1.0 + 6.0, 70.0]);
}

#[test]
fn pooling_takes_the_first_largest_and_the_full_divisor() {
    let (input, mut x) = image(2, 3);
    x[4] = 2.0; // channel 0 of the first row: 1, 2, 2
    let rows = Window::Fixed {
        kernel: 1,
        stride: 1,
        padding: 0,
    };
    let cols = Window::Fixed {
        kernel: 2,
        stride: 2,
        padding: 1,
    };
    let pool = Pool { input, rows, cols };
    let (mut y, dy) = (vec![0.0; 8], vec![1.0; 8]);
    ORACLE.max_pool(dst(&mut y), src(&x), pool);
    assert_eq!(y, [1.0, 10.0, 2.0, 30.0, 4.0, 40.0, 6.0, 60.0]);
    let mut dx = vec![f64::NAN; 12];
    ORACLE.max_pool_backward(dst(&mut dx), src(&x), src(&y), src(&dy), pool, Write::Set);
    assert_eq!(
        dx,
        [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    );
    ORACLE.avg_pool(dst(&mut y), src(&x), pool);
    assert_eq!(y, [0.5, 5.0, 2.0, 25.0, 2.0, 20.0, 5.5, 55.0]);

    let whole = Window::Adaptive { out: 1 };
    let pool = Pool {
        input,
        rows: whole,
        cols: whole,
    };
    let (mut y, dy) = (vec![0.0; 2], vec![6.0, 12.0]);
    ORACLE.avg_pool(dst(&mut y), src(&x), pool);
    assert_near(&y, &[20.0 / 6.0, 35.0]);
    ORACLE.avg_pool_backward(dst(&mut dx), src(&dy), pool, Write::Set);
    assert_eq!(dx, [1.0, 2.0].repeat(6));
}

#[test]
fn batch_norm_keeps_groups_apart() {
    let images = Images {
        n: 4,
        c: 1,
        h: 1,
        w: 1,
    };
    let x = vec![1.0, 3.0, 8.0, 7.0];
    let (gamma, beta) = (vec![2.0], vec![10.0]);
    let (mut y, mut running) = (vec![0.0; 4], vec![0.0, 1.0]);
    let (mut mean, mut inv_std) = (vec![0.0; 3], vec![0.0; 3]);
    let args = BatchNorm {
        y: dst(&mut y),
        mean: dst(&mut mean),
        inv_std: dst(&mut inv_std),
        running: dst(&mut running),
        x: src(&x),
        gamma: src(&gamma),
        beta: src(&beta),
        residual: None,
        relu: false,
    };
    // A group of two, of one (no variance: beta, and no update), and of one more.
    ORACLE.batch_norm(args, images, &[2, 1, 1], 3.0, 0.5);
    assert_near(&y, &[9.0, 11.0, 10.0, 10.0]);
    assert_near(&mean, &[2.0, 8.0, 7.0]);
    assert_near(&inv_std[..1], &[0.5]); // 1 / sqrt(1 + 3)
    // Biased variance 1 in the output, unbiased 2 in the running statistics.
    assert_near(&running, &[1.0, 1.5]);
}

#[test]
fn the_row_loss_is_the_weighted_sum_of_its_terms() {
    let dims = RowLoss {
        n: 3,
        c: 2,
        current_start: 1,
        current_end: 2,
    };
    let logits = vec![0.0, 0.0, 3.0, 3.0, 5.0, 1.0];
    let table = [
        [0.0, 2.0, 0.5, 1.0], // both terms; stored logits of width 1
        [1.0, 1.0, 0.0, 0.0], // current
        [0.0, 0.0, 1.0, 2.0], // distance only
    ];
    let table: Vec<f64> = table.concat();
    assert_eq!(table.len(), 3 * ROW_LOSS_COLUMNS);
    let targets = vec![2.0, f64::NAN, f64::NAN, f64::NAN, 4.0, 4.0];
    let (mut terms, mut probs) = (vec![0.0; 4], vec![0.0; 6]);
    ORACLE.row_loss(
        dst(&mut terms),
        dst(&mut probs),
        src(&logits),
        src(&table),
        Some(src(&targets)),
        dims,
    );
    let ln2 = std::f64::consts::LN_2;
    assert_near(
        &terms,
        &[3.0 * ln2 + 12.0, ln2, 0.5 * 4.0 + 1.0 + 9.0, 2.0 * ln2],
    );
    let (dl, mut dx) = (vec![10.0], vec![1.0; 6]);
    ORACLE.row_loss_backward(
        dst(&mut dx),
        src(&probs),
        src(&logits),
        src(&table),
        Some(src(&targets)),
        src(&dl),
        dims,
        Write::Add,
    );
    assert_near(&dx, &[1.0 - 10.0 - 20.0, 11.0, 6.0, -4.0, 21.0, -59.0]);
}

#[test]
fn sgd_follows_pytorch() {
    // Two steps of torch.optim.SGD(lr=0.1, momentum=0.5, weight_decay=0.1, nesterov=True) from p = 1
    // with gradients 1 and 2, by hand: d = 1.1, v = 1.1, p = 1 - 0.1·1.65 = 0.835; then
    // d = 2.0835, v = 2.6335, p = 0.835 - 0.1·(2.0835 + 1.31675) = 0.494975.
    let mut step = SgdStep {
        lr: 0.1,
        momentum: 0.5,
        dampening: 0.0,
        weight_decay: 0.1,
        nesterov: true,
        first: true,
    };
    let (mut p, mut v) = (vec![1.0], vec![f64::NAN]);
    for (grad, expected) in [(vec![1.0], 0.835), (vec![2.0], 0.494975)] {
        ORACLE.sgd(dst(&mut p), src(&grad), dst(&mut v), step);
        assert_near(&p, &[expected]);
        step.first = false;
    }
}
