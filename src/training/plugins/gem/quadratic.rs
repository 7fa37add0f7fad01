//! The quadratic programme of GEM: minimise `½·vᵀPv + qᵀv` with every `v_i ≥ least`, for a small
//! symmetric positive definite `P`.
//!
//! The active-set method of Lawson and Hanson ("Solving Least Squares Problems", 1974, chapter 23),
//! on `u = v - least ≥ 0`: unknowns enter the free set one by one, where the function falls fastest;
//! on the free set the minimum is a linear system; where its solution leaves the bounds, the step
//! stops at the first bound and that unknown leaves the set. Exact up to rounding, after finitely many
//! steps, and sure of success, because the function falls with each of them and no set comes twice.

/// The minimum; `p` is row-major.
pub(super) fn minimise(p: &[f64], q: &[f64], least: f64) -> Vec<f64> {
    let n = q.len();
    let row = |i: usize| &p[i * n..][..n];
    // In terms of u the linear part is q + P·least.
    let q: Vec<f64> = (0..n)
        .map(|i| q[i] + least * row(i).iter().sum::<f64>())
        .collect();
    let mut u = vec![0.0; n];
    let mut free: Vec<usize> = Vec::new();
    let scale = q.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    // The theory needs no limit; rounding might make two sets alternate.
    for _ in 0..10 * (n + 1) {
        let fall = |i: usize| -(q[i] + row(i).iter().zip(&u).map(|(p, u)| p * u).sum::<f64>());
        let steepest = (0..n)
            .filter(|i| !free.contains(i))
            .max_by(|&a, &b| fall(a).total_cmp(&fall(b)));
        match steepest.filter(|&i| fall(i) > 1e-13 * scale) {
            Some(i) => free.push(i),
            None => break,
        }
        loop {
            let z = solve(p, &q, &free);
            // How far the way to z leads before the first unknown meets its bound.
            let part = (free.iter().zip(&z))
                .filter(|(_, z)| **z <= 0.0)
                .map(|(&i, z)| u[i] / (u[i] - z))
                .fold(1.0, f64::min);
            for (&i, z) in free.iter().zip(&z) {
                u[i] += part * (z - u[i]);
            }
            let before = free.len();
            let blocked = |i: usize, z: f64| z <= 0.0 && u[i] <= 1e-14 * z.abs();
            let leave: Vec<usize> = (free.iter().zip(&z))
                .filter(|(i, z)| blocked(**i, **z))
                .map(|(&i, _)| i)
                .collect();
            leave.iter().for_each(|&i| u[i] = 0.0);
            free.retain(|i| !leave.contains(i));
            if free.len() == before || free.is_empty() {
                break;
            }
        }
    }
    u.iter().map(|u| u + least).collect()
}

/// Solves `P_ff·z = -q_f` on the free unknowns by Cholesky's factorisation.
fn solve(p: &[f64], q: &[f64], free: &[usize]) -> Vec<f64> {
    let (n, m) = (q.len(), free.len());
    let mut l = vec![0.0; m * m];
    for i in 0..m {
        for j in 0..=i {
            let inner: f64 = (0..j).map(|k| l[i * m + k] * l[j * m + k]).sum();
            let rest = p[free[i] * n + free[j]] - inner;
            l[i * m + j] = if i == j {
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / l[j * m + j]
            };
        }
    }
    let mut z: Vec<f64> = free.iter().map(|&i| -q[i]).collect();
    for i in 0..m {
        let inner: f64 = (0..i).map(|k| l[i * m + k] * z[k]).sum();
        z[i] = (z[i] - inner) / l[i * m + i];
    }
    for i in (0..m).rev() {
        let inner: f64 = (i + 1..m).map(|k| l[k * m + i] * z[k]).sum();
        z[i] = (z[i] - inner) / l[i * m + i];
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::TorchGenerator;

    /// `GGᵀ + 0.001·I` and `G·g` of random gradients, some of them nearly parallel.
    fn problem(n: usize, generator: &mut TorchGenerator) -> (Vec<f64>, Vec<f64>) {
        let mut number = || f64::from(generator.uniform(-1.0, 1.0));
        let mut rows: Vec<Vec<f64>> = (0..n).map(|_| (0..5).map(|_| number()).collect()).collect();
        if n > 2 {
            rows[1] = rows[0].iter().map(|x| x * (1.0 + 1e-6)).collect();
        }
        let g: Vec<f64> = (0..5).map(|_| number()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut p: Vec<f64> = Vec::new();
        for (i, a) in rows.iter().enumerate() {
            p.extend(rows.iter().map(|b| dot(a, b)));
            p[i * n + i] += 1e-3;
        }
        (p, rows.iter().map(|r| dot(r, &g)).collect())
    }

    /// The conditions of Karush, Kuhn and Tucker, which a point of a convex programme meets if and
    /// only if it is the minimum: inside the bounds; no slope but upwards at a bound, none elsewhere.
    #[test]
    fn the_minimum_meets_its_conditions() {
        let mut generator = TorchGenerator::manual_seed(7);
        let (mut bound, mut inside) = (0, 0);
        for round in 0..3000 {
            let n = 1 + round % 12;
            let (p, q) = problem(n, &mut generator);
            let least = [0.0, 0.5, 3.0][round % 3];
            let v = minimise(&p, &q, least);
            for i in 0..n {
                let slope = q[i] + (0..n).map(|j| p[i * n + j] * v[j]).sum::<f64>();
                assert!(v[i] >= least, "round {round}: {} below {least}", v[i]);
                if v[i] > least {
                    inside += 1;
                    assert!(slope.abs() <= 1e-9, "round {round}: slope {slope} inside");
                } else {
                    bound += 1;
                    assert!(slope >= -1e-9, "round {round}: slope {slope} at a bound");
                }
            }
        }
        assert!(
            bound > 1000 && inside > 1000,
            "{bound} at a bound, {inside} inside"
        );
    }

    #[test]
    fn numbers_that_are_none_do_not_hang_it() {
        let v = minimise(&[f64::NAN; 4], &[f64::NAN, -1.0], 0.0);
        assert_eq!(v.len(), 2);
    }
}
