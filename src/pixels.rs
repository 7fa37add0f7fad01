//! Where a row of a mini-batch comes from: stored bytes, and what is done to them on the way.
//!
//! A device with memory of its own keeps the bytes there and makes the rows itself; what travels at each
//! step is these few words a row. [`PixelRow::write`] is the same on the host, number for number.

use std::ops::Range;
use std::sync::Arc;

/// A part of an image, perhaps beyond its borders and perhaps mirrored left to right: any sequence of
/// crops and flips comes to one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cutout {
    /// Height and width of the image.
    pub input: [usize; 2],
    /// Height and width of the part.
    pub size: [usize; 2],
    /// The row of the image that the first row of the part shows.
    pub top: isize,
    /// The column of the image that the first column of the part shows.
    pub left: isize,
    /// Columns are counted down from `left`, not up.
    pub mirrored: bool,
    /// Rows of the image that are shown; everything else is zero.
    pub rows: Range<isize>,
    /// Columns of the image that are shown.
    pub cols: Range<isize>,
}

impl Cutout {
    /// The whole image.
    pub fn whole(input: [usize; 2]) -> Self {
        Cutout {
            input,
            size: input,
            top: 0,
            left: 0,
            mirrored: false,
            rows: 0..input[0] as isize,
            cols: 0..input[1] as isize,
        }
    }

    /// Whether the part is all of the image, as it is.
    pub fn is_whole(&self) -> bool {
        *self == Cutout::whole(self.input)
    }

    /// Of this part again a part: that of `size` from row `top` and column `left` on, zero outside.
    pub fn crop(&mut self, [top, left]: [isize; 2], size: [usize; 2]) {
        let [height, width] = self.size.map(|d| d as isize);
        let seen = match self.mirrored {
            false => self.left..self.left + width,
            true => self.left - width + 1..self.left + 1,
        };
        self.rows = common(&self.rows, &(self.top..self.top + height));
        self.cols = common(&self.cols, &seen);
        self.top += top;
        self.left += if self.mirrored { -left } else { left };
        self.size = size;
    }

    /// Mirrored left to right.
    pub fn mirror(&mut self) {
        let last = self.size[1] as isize - 1;
        self.left += if self.mirrored { -last } else { last };
        self.mirrored = !self.mirrored;
    }

    /// The position in the image that row `y` and column `x` of the part show; `None` if that is
    /// outside.
    fn source(&self, y: usize, x: usize) -> Option<usize> {
        let across = if self.mirrored {
            -(x as isize)
        } else {
            x as isize
        };
        let (row, col) = (self.top + y as isize, self.left + across);
        (self.rows.contains(&row) && self.cols.contains(&col))
            .then(|| row as usize * self.input[1] + col as usize)
    }
}

fn common(a: &Range<isize>, b: &Range<isize>) -> Range<isize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Whether two images are rearranged by the same map, or by none.
fn same_map(map: Option<&Arc<[u32]>>, other: Option<&Arc<[u32]>>) -> bool {
    match (map, other) {
        (Some(map), Some(other)) => Arc::ptr_eq(map, other),
        (map, other) => map.is_none() && other.is_none(),
    }
}

/// A row of a mini-batch, channels x height x width: for each channel the cutout of the image, whose
/// position p is the stored byte `map[p]` (black beyond the image), looked up in the channel's table.
#[derive(Clone, Debug)]
pub struct PixelRow {
    /// The bytes of a whole data set, or of one image. The same allocation is the same bytes: a device
    /// copies it once.
    pub pixels: Arc<[u8]>,
    /// Where the image's bytes begin.
    pub first: usize,
    /// The rearrangement of the positions of each channel; an entry beyond the image is a zero byte.
    pub map: Option<Arc<[u32]>>,
    /// What each byte becomes: one table for each channel, or one for all.
    pub tables: Arc<[[f32; 256]]>,
    /// What is shown of the image.
    pub cutout: Cutout,
}

/// A [`PixelRow`] that counts no references: mini-batches are made of thousands, most of which refer to the same.
#[derive(Clone, Debug)]
pub struct PixelRowRef<'a> {
    pub(crate) pixels: &'a Arc<[u8]>,
    pub(crate) first: usize,
    pub(crate) map: Option<&'a Arc<[u32]>>,
    pub(crate) tables: &'a Arc<[[f32; 256]]>,
    pub(crate) cutout: Cutout,
}

impl PixelRowRef<'_> {
    /// The row, for later.
    pub fn to_row(self) -> PixelRow {
        PixelRow {
            pixels: self.pixels.clone(),
            first: self.first,
            map: self.map.cloned(),
            tables: self.tables.clone(),
            cutout: self.cutout,
        }
    }

    /// Puts the row in the place of another, of which it leaves what is the same.
    pub(crate) fn replace(self, row: &mut PixelRow) {
        if !same_map(row.map.as_ref(), self.map) {
            row.map = self.map.cloned();
        }
        if !Arc::ptr_eq(&row.pixels, self.pixels) {
            row.pixels = self.pixels.clone();
        }
        if !Arc::ptr_eq(&row.tables, self.tables) {
            row.tables = self.tables.clone();
        }
        row.first = self.first;
        row.cutout = self.cutout;
    }
}

impl PixelRow {
    /// Writes the row to `out`.
    ///
    /// # Panics
    /// If `out` does not hold whole channels, or the image lies beyond `pixels`.
    pub fn write(&self, out: &mut [f32]) {
        let [height, width] = self.cutout.size;
        let plane = self.plane();
        let whole = self.cutout.is_whole();
        for (c, out) in out.chunks_exact_mut(height * width).enumerate() {
            let table = &self.tables[c.min(self.tables.len() - 1)];
            let image = &self.pixels[self.first + c * plane..self.first + (c + 1) * plane];
            if whole {
                look_up(table, image, self.map.as_deref(), out);
                continue;
            }
            for (at, out) in out.iter_mut().enumerate() {
                let source = self.cutout.source(at / width, at % width);
                let source = source.and_then(|p| match &self.map {
                    None => Some(p),
                    Some(map) => Some(map[p] as usize).filter(|&p| p < plane),
                });
                *out = table[usize::from(source.map_or(0, |p| image[p]))];
            }
        }
    }

    /// What the bytes of all these rows become, if that is one table and nothing is cut out of the images,
    /// which have one size: then the rows may stay bytes.
    pub fn common_table(rows: &[PixelRow]) -> Option<&Arc<[[f32; 256]]>> {
        let first = rows.first()?;
        let fits = |row: &PixelRow| {
            let same = Arc::ptr_eq(&row.tables, &first.tables) || row.tables == first.tables;
            same && row.cutout.is_whole() && row.plane() == first.plane()
        };
        (first.tables.len() == 1 && rows.iter().all(fits)).then_some(&first.tables)
    }

    /// Writes the bytes that are looked up to `out`, if nothing is cut out of the image.
    ///
    /// # Panics
    /// If `out` does not hold whole channels, or the image lies beyond `pixels`.
    pub(crate) fn write_bytes(&self, out: &mut [u8]) {
        let plane = self.plane();
        for (c, out) in out.chunks_exact_mut(plane).enumerate() {
            let image = &self.pixels[self.first + c * plane..][..plane];
            match &self.map {
                None => out.copy_from_slice(image),
                Some(map) => rearrange(image, map, out),
            }
        }
    }

    /// Whether the positions of both images are rearranged by the same map, or by none.
    pub(crate) fn is_ordered_as(&self, other: &PixelRow) -> bool {
        same_map(self.map.as_ref(), other.map.as_ref())
    }

    /// `len` numbers: the rows one after the other.
    pub fn write_all(rows: &[PixelRow], len: usize) -> Vec<f32> {
        let mut out = vec![0.0; len];
        let size = len / rows.len().max(1);
        (out.chunks_exact_mut(size.max(1)).zip(rows)).for_each(|(out, row)| row.write(out));
        out
    }

    /// Positions of the stored image.
    pub fn plane(&self) -> usize {
        self.cutout.input[0] * self.cutout.input[1]
    }
}

/// Room for an image of MNIST's size and a zero behind it.
const PADDED: usize = 1024;

/// Looks up the bytes of an image, or those in the places that `map` gives them (a zero where that is beyond
/// the image).
pub(crate) fn look_up(table: &[f32; 256], image: &[u8], map: Option<&[u32]>, out: &mut [f32]) {
    let number = |byte| table[usize::from(byte)];
    match map {
        None => (out.iter_mut().zip(image)).for_each(|(o, &b)| *o = number(b)),
        Some(map) => from_places(image, map, out, number),
    }
}

/// The bytes in the places that `map` gives them, a zero where that is beyond the image.
pub(crate) fn rearrange(image: &[u8], map: &[u32], out: &mut [u8]) {
    from_places(image, map, out, |byte| byte);
}

/// What `f` makes of the bytes in the places that `map` gives them, a zero where that is beyond the image.
fn from_places<T>(image: &[u8], map: &[u32], out: &mut [T], f: impl Fn(u8) -> T) {
    if image.len() >= PADDED {
        (out.iter_mut().zip(map)).for_each(|(o, &p)| {
            *o = f(image.get(p as usize).copied().unwrap_or(0));
        });
        return;
    }
    // Places outside read a zero behind the image: a branch there is mispredicted often enough to take a
    // fifth of the time of a whole R-MNIST run.
    let mut padded = [0; PADDED];
    padded[..image.len()].copy_from_slice(image);
    let outside = image.len() as u32;
    (out.iter_mut().zip(map)).for_each(|(o, &p)| {
        *o = f(padded[p.min(outside) as usize % PADDED]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cutout: &Cutout, image: &[u8]) -> Vec<u8> {
        let [height, width] = cutout.size;
        let places = (0..height * width).map(|at| cutout.source(at / width, at % width));
        places.map(|p| p.map_or(0, |p| image[p])).collect()
    }

    /// A 2 x 3 image; what a crop loses is not found again by the next.
    #[test]
    fn a_row_in_the_place_of_another_is_the_row() {
        let bytes = |first: u8| -> Arc<[u8]> { (first..first + 8).collect() };
        let table = |scale: f32| -> Arc<[[f32; 256]]> {
            [std::array::from_fn(|byte| byte as f32 * scale)].into()
        };
        let (pixels, tables) = ([bytes(1), bytes(101)], [table(1.0), table(0.5)]);
        let maps: [Option<Arc<[u32]>>; 3] =
            [None, Some([3, 2, 1, 0].into()), Some([1, 9, 3, 0].into())];
        let mut all = Vec::new();
        for (pixels, tables) in pixels
            .iter()
            .flat_map(|p| tables.iter().map(move |t| (p, t)))
        {
            for (first, map) in [0, 4]
                .into_iter()
                .flat_map(|f| maps.iter().map(move |m| (f, m)))
            {
                let mut mirrored = Cutout::whole([2, 2]);
                mirrored.mirror();
                for cutout in [Cutout::whole([1, 4]), mirrored] {
                    all.push(PixelRowRef {
                        pixels,
                        first,
                        map: map.as_ref(),
                        tables,
                        cutout,
                    });
                }
            }
        }
        let written = |row: &PixelRow| PixelRow::write_all(std::slice::from_ref(row), 4);
        for old in &all {
            for new in &all {
                let (mut row, want) = (old.clone().to_row(), new.clone().to_row());
                new.clone().replace(&mut row);
                assert_eq!(written(&row), written(&want), "{new:?} for {old:?}");
                assert!(row.is_ordered_as(&want) && Arc::ptr_eq(&row.pixels, &want.pixels));
            }
        }
    }

    #[test]
    fn parts_of_parts_are_parts() {
        let image = [1, 2, 3, 4, 5, 6];
        let mut cutout = Cutout::whole([2, 3]);
        assert_eq!(shown(&cutout, &image), image);
        cutout.mirror();
        assert_eq!(shown(&cutout, &image), [3, 2, 1, 6, 5, 4]);
        cutout.crop([0, 1], [2, 2]);
        assert_eq!(shown(&cutout, &image), [2, 1, 5, 4]);
        cutout.crop([-1, -1], [3, 3]);
        assert_eq!(shown(&cutout, &image), [0, 0, 0, 0, 2, 1, 0, 5, 4]);
        cutout.mirror();
        assert_eq!(shown(&cutout, &image), [0, 0, 0, 1, 2, 0, 4, 5, 0]);
        cutout.crop([5, 0], [1, 1]);
        cutout.crop([-5, 0], [3, 3]);
        assert_eq!(shown(&cutout, &image), [0; 9]);
    }

    #[test]
    fn rows_stay_bytes_where_a_lookup_is_all_there_is() {
        let row = |tables: &[[f32; 256]], map: Option<Arc<[u32]>>| PixelRow {
            pixels: [9, 1, 2, 3, 4, 5, 6].into(),
            first: 1,
            map,
            tables: tables.into(),
            cutout: Cutout::whole([1, 3]),
        };
        let table = [[2.0; 256]];
        let rows = [row(&table, None), row(&table, Some([2, 7, 0].into()))];
        assert_eq!(PixelRow::common_table(&rows), Some(&rows[0].tables));
        let mut bytes = [0; 6];
        rows[0].write_bytes(&mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6]);
        rows[1].write_bytes(&mut bytes);
        assert_eq!(bytes, [3, 0, 1, 6, 0, 4]);
        let with = |change: fn(&mut PixelRow)| {
            let mut rows = rows.clone();
            change(&mut rows[1]);
            PixelRow::common_table(&rows).is_some()
        };
        assert!(with(|_| ()));
        assert!(!with(|row| row.cutout.mirror()));
        assert!(!with(|row| row.cutout.crop([0, 1], [1, 3])));
        assert!(!with(|row| row.cutout = Cutout::whole([1, 2])));
        assert!(!with(|row| row.tables = [[3.0; 256]].into()));
        assert_eq!(PixelRow::common_table(&[row(&[[1.0; 256]; 2], None)]), None);
        assert_eq!(PixelRow::common_table(&[]), None);
    }

    #[test]
    fn bytes_are_rearranged_cut_out_and_looked_up() {
        let table = |by: f32| std::array::from_fn(|b| b as f32 * by);
        let row = PixelRow {
            pixels: [9, 9, 1, 2, 3, 4].into(),
            first: 2,
            map: Some([1, u32::MAX].into()),
            tables: [table(1.0), table(10.0)].into(),
            cutout: Cutout::whole([1, 2]),
        };
        let mut out = [0.5; 4];
        row.write(&mut out);
        assert_eq!(out, [2.0, 0.0, 40.0, 0.0]);
        let mut one_table = row;
        one_table.tables = [table(2.0)].into();
        one_table.map = None;
        one_table.cutout.mirror();
        one_table.write(&mut out);
        assert_eq!(out, [4.0, 2.0, 8.0, 6.0]);
    }
}
