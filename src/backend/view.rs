//! Parts of a buffer.

/// Read access to `len` numbers of a buffer, from `offset`.
#[derive(Debug)]
pub struct View<'a, Buf> {
    /// The buffer.
    pub buf: &'a Buf,
    /// The first number.
    pub offset: usize,
    /// How many numbers.
    pub len: usize,
}

impl<Buf> Clone for View<'_, Buf> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Buf> Copy for View<'_, Buf> {}

/// Write access to `len` numbers of a buffer, from `offset`.
#[derive(Debug)]
pub struct ViewMut<'a, Buf> {
    /// The buffer.
    pub buf: &'a mut Buf,
    /// The first number.
    pub offset: usize,
    /// How many numbers.
    pub len: usize,
}

impl<Buf> ViewMut<'_, Buf> {
    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, Buf> {
        ViewMut {
            buf: self.buf,
            offset: self.offset,
            len: self.len,
        }
    }
}

impl<'a, Buf> From<ViewMut<'a, Buf>> for View<'a, Buf> {
    /// What has been written, to be read.
    fn from(written: ViewMut<'a, Buf>) -> Self {
        View {
            buf: written.buf,
            offset: written.offset,
            len: written.len,
        }
    }
}
