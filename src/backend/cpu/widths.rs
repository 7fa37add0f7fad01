//! How wide the register tiles of a product should be.

/// Most vectors in a row of a register tile.
pub(super) const MAX_VECTORS: usize = 4;

/// How to cut a row of vectors into register tiles so that a given number of rows is done soonest.
#[derive(Clone, Copy)]
pub(crate) struct Widths {
    /// The first cut for so many vectors.
    first: [u8; Widths::EXACT + 1],
    /// The cut with the least time for each vector, for longer rows.
    steady: usize,
}

impl Widths {
    /// Rows up to this many vectors are cut as well as can be.
    const EXACT: usize = 8;

    /// The plan for `rows` rows of `vectors`, when a tile of `v + 1` vectors has at most `most[v]`
    /// rows (0: there is no such tile).
    pub fn new(most: [usize; MAX_VECTORS], rows: usize, vectors: usize) -> Self {
        if (most.get(vectors.wrapping_sub(1))).is_some_and(|&most| rows <= most) {
            // What fits one tile needs no plan.
            let mut first = [1; Self::EXACT + 1];
            first[vectors] = vectors as u8;
            return Widths {
                first,
                steady: vectors,
            };
        }
        let mut cost = [u64::MAX; MAX_VECTORS + 1];
        let mut steady = 1;
        let exist = (1..).zip(most).filter(|&(_, most)| most > 0);
        for (v, most) in exist.take(vectors) {
            cost[v] = tile_cost(rows, v, most);
            if cost[v] * (steady as u64) < cost[steady] * v as u64 {
                steady = v;
            }
        }
        let mut best = [0; Self::EXACT + 1];
        let mut first = [0; Self::EXACT + 1];
        for n in 1..=Self::EXACT.min(vectors) {
            best[n] = u64::MAX;
            for v in 1..=n.min(MAX_VECTORS) {
                let total = cost[v].saturating_add(best[n - v]);
                if total < best[n] {
                    best[n] = total;
                    first[n] = v as u8;
                }
            }
        }
        Widths { first, steady }
    }

    /// The vectors of the next tile, when so many are left.
    pub fn next(&self, vectors: usize) -> usize {
        match self.first.get(vectors) {
            Some(&v) => usize::from(v),
            None => self.steady,
        }
    }
}

/// Half cycles for one term of `rows` rows of `v` vectors when a tile has at most `most` rows: two
/// multiply-adds or two loads a cycle, and four cycles before a sum can be added to again.
fn tile_cost(rows: usize, v: usize, most: usize) -> u64 {
    // Narrow divisions are several times faster.
    let (rows, v, most) = (rows as u32, v as u32, most as u32);
    let tiles = rows.div_ceil(most).max(1);
    let (low, taller) = (rows / tiles, rows % tiles);
    let one = |r: u32| u64::from((r * v).max(r + v).max(8));
    u64::from(tiles - taller) * one(low) + u64::from(taller) * one(low + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_vectors_of_many_rows_are_not_left_with_a_single_one() {
        let widths = Widths::new([14, 14, 9, 6], 384, 7);
        let mut left = 7;
        let mut cuts = Vec::new();
        while left > 0 {
            cuts.push(widths.next(left));
            left -= cuts[cuts.len() - 1];
        }
        cuts.sort_unstable();
        assert_eq!(cuts, [2, 2, 3]);
    }

    #[test]
    fn few_rows_are_wide() {
        assert_eq!(Widths::new([14, 14, 9, 6], 1, 8).next(8), 4);
    }

    #[test]
    fn only_tiles_that_exist_are_chosen() {
        for rows in [1, 5, 30] {
            let widths = Widths::new([6, 4, 0, 0], rows, 20);
            assert!((1..=20).all(|n| (1..=n.min(2)).contains(&widths.next(n))));
        }
    }
}
