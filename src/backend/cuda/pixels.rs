//! Stored pixels in the GPU's memory, and rows of mini-batches made from them.
//!
//! Bytes go there when a row first asks for them: a data set as a whole, a sample of a replay buffer into
//! a slot among others of its size. They stay while anybody on the host still has them.

use super::driver::{Buffer, Driver};
use super::kernels::Kernel;
use super::sequence::Arg;
use super::{BLOCK, Cuda, args, int};
use crate::backend::ViewMut;
use crate::pixels::PixelRow;
use std::collections::HashMap;
use std::sync::Arc;

/// More bytes than that have memory of their own.
const LARGEST_SLOT: usize = 1 << 16;

/// Slots that are allocated at a time.
const SLOTS: usize = 256;

/// A row of the table as the kernel has it, in words of 32 bits: `Row` of `kernels/pixels.cu`.
const WORDS: usize = 16;

/// Most blocks along the second axis of a grid.
const MAX_GRID: usize = 65_535;

/// What rows refer to: the same allocation is the same bytes.
#[derive(Clone)]
enum Kept {
    Pixels(Arc<[u8]>),
    Map(Arc<[u32]>),
    Tables(Arc<[[f32; 256]]>),
}

impl Kept {
    /// Whether nobody else has them.
    fn is_last(&self) -> bool {
        let owners = match self {
            Kept::Pixels(pixels) => Arc::strong_count(pixels),
            Kept::Map(map) => Arc::strong_count(map),
            Kept::Tables(tables) => Arc::strong_count(tables),
        };
        owners == 1
    }
}

/// Slots of one size.
struct Slab {
    memory: Buffer,
    /// Numbers of f32 in a slot.
    size: usize,
    free: Vec<usize>,
}

enum Place {
    Own(Buffer),
    Slot { slab: usize, slot: usize },
}

/// Host bytes and where their copy is.
struct Held {
    kept: Kept,
    place: Place,
}

/// What the GPU keeps of the host's bytes.
#[derive(Default)]
pub(super) struct PixelStore {
    /// By the address of the host's bytes, which cannot be given to others while they are held.
    held: HashMap<usize, Held>,
    slabs: Vec<Slab>,
    /// The table of the rows of a mini-batch, here and there.
    words: Vec<f32>,
    table: Option<Buffer>,
}

impl PixelStore {
    /// The device's address of these bytes, which are copied if they are new; `None` if there is no
    /// memory for them.
    fn address(&mut self, driver: &Driver, bytes: &[u8], kept: impl Fn() -> Kept) -> Option<u64> {
        let host = bytes.as_ptr().addr();
        if !self.held.contains_key(&host) {
            let held = Held {
                place: self.place(driver, bytes)?,
                kept: kept(),
            };
            self.held.insert(host, held);
        }
        Some(match &self.held[&host].place {
            Place::Own(buffer) => buffer.address(0),
            Place::Slot { slab, slot } => {
                let slab = &self.slabs[*slab];
                slab.memory.address(slot * slab.size)
            }
        })
    }

    /// New memory with these bytes in it.
    fn place(&mut self, driver: &Driver, bytes: &[u8]) -> Option<Place> {
        // An image of a byte needs a place, too, and 16 bytes are what memory comes in.
        let size = bytes.len().div_ceil(16).max(1) * 4;
        if bytes.len() > LARGEST_SLOT {
            self.forget(driver);
            // The model comes after the data.
            if driver.free_memory() / 2 < bytes.len() {
                return None;
            }
            let buffer = driver.alloc(size).ok()?;
            driver.upload_bytes(&buffer, 0, bytes);
            return Some(Place::Own(buffer));
        }
        let has_room = |slab: &Slab| slab.size == size && !slab.free.is_empty();
        let mut found = self.slabs.iter().position(has_room);
        if found.is_none() {
            self.forget(driver);
            // Looking through everything is worth it if it makes room for a while.
            let has_room = |slab: &Slab| slab.size == size && slab.free.len() >= SLOTS / 8;
            found = self.slabs.iter().position(has_room);
        }
        let slab = match found {
            Some(slab) => slab,
            None => {
                self.slabs.push(Slab {
                    memory: driver.alloc(SLOTS * size).ok()?,
                    size,
                    free: (0..SLOTS).rev().collect(),
                });
                self.slabs.len() - 1
            }
        };
        let slot = self.slabs[slab].free.pop()?;
        driver.upload_bytes(&self.slabs[slab].memory, slot * size, bytes);
        Some(Place::Slot { slab, slot })
    }

    /// Gives up the places of bytes that nobody has any more.
    fn forget(&mut self, driver: &Driver) {
        // What is written down may still read them.
        driver.send();
        let slabs = &mut self.slabs;
        self.held.retain(|_, held| {
            let last = held.kept.is_last();
            if let (true, Place::Slot { slab, slot }) = (last, &held.place) {
                slabs[*slab].free.push(*slot);
            }
            !last
        });
    }

    /// Writes the words of `row` into the table's copy here; `None` as for [`address`](Self::address).
    fn describe(&mut self, driver: &Driver, row: &PixelRow) -> Option<()> {
        let pixels = self.address(driver, &row.pixels, || Kept::Pixels(row.pixels.clone()))?;
        let tables = self.address(driver, bytemuck::cast_slice(&row.tables), || {
            Kept::Tables(row.tables.clone())
        })?;
        let map = match &row.map {
            None => 0,
            Some(map) => {
                self.address(driver, bytemuck::cast_slice(map), || Kept::Map(map.clone()))?
            }
        };
        for address in [pixels + row.first as u64, map, tables] {
            let halves = [address as u32, (address >> 32) as u32];
            self.words.extend(halves.map(f32::from_bits));
        }
        let cutout = &row.cutout;
        let numbers = [
            2 * row.tables.len() as isize + isize::from(cutout.mirrored),
            row.plane() as isize,
            cutout.input[1] as isize,
            cutout.size[1] as isize,
            cutout.top,
            cutout.left,
            cutout.rows.start,
            cutout.rows.end,
            cutout.cols.start,
            cutout.cols.end,
        ];
        let bits = |n: isize| f32::from_bits(n as i32 as u32);
        self.words.extend(numbers.map(bits));
        Some(())
    }
}

impl Cuda {
    /// [`Backend::gather_pixels`] on the device; false, and nothing written, if it has no memory for the
    /// bytes.
    pub(super) fn gather_on_device(&self, y: &ViewMut<'_, Buffer>, rows: &[PixelRow]) -> bool {
        let mut store = self.pixels.borrow_mut();
        store.words.clear();
        let described = (rows.iter()).try_for_each(|row| store.describe(&self.driver, row));
        if described.is_none() {
            return false;
        }
        let PixelStore { words, table, .. } = &mut *store;
        if table.as_ref().is_none_or(|table| table.len() < words.len()) {
            let bigger = self.driver.alloc(words.len().next_power_of_two());
            *table = Some(bigger.unwrap_or_else(|e| std::panic::resume_unwind(Box::new(e))));
        }
        let Some(table) = table else { return false };
        let (n, size) = (rows.len(), y.len / rows.len().max(1));
        let all = ViewMut {
            buf: table,
            offset: 0,
            len: n * WORDS,
        };
        let address = Arg::from(&all);
        self.driver.upload(all, words);
        let [height, width] = rows.first().map_or([1, 1], |row| row.cutout.size);
        let grid = [size.div_ceil(BLOCK), n.min(MAX_GRID), 1];
        let args = args![y, address, int(n), int(size), int(height * width)];
        self.driver
            .launch(Kernel::GatherPixels, grid, [BLOCK as u32, 1, 1], args);
        true
    }
}
