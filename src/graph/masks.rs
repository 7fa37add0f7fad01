//! Which units of a layer are in use: named lists of flags that belong to a model's state, as
//! PyTorch's boolean buffers do. They live on the host; an operation that needs one copies it.

/// The units of a layer that are in use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MaskId(u32);

/// The masks of the models on a tape, in the order of creation.
#[derive(Default)]
pub(crate) struct Masks(Vec<(String, Vec<bool>)>);

impl Masks {
    /// Adds a mask of `len` units, none in use.
    #[track_caller]
    pub fn add(&mut self, name: &str, len: usize) -> MaskId {
        assert!(
            self.0.iter().all(|(other, _)| other != name),
            "mask {name} exists already: give each layer a name of its own"
        );
        self.0.push((name.to_string(), vec![false; len]));
        MaskId(self.0.len() as u32 - 1)
    }

    /// The ids of all masks.
    pub fn ids(&self) -> impl Iterator<Item = MaskId> + use<> {
        (0..self.0.len() as u32).map(MaskId)
    }

    pub fn name(&self, id: MaskId) -> &str {
        &self.0[id.0 as usize].0
    }

    pub fn units(&self, id: MaskId) -> &[bool] {
        &self.0[id.0 as usize].1
    }

    pub fn set(&mut self, id: MaskId, units: Vec<bool>) {
        self.0[id.0 as usize].1 = units;
    }

    /// Puts `prefix` in front of every name.
    pub fn prefix(&mut self, prefix: &str) {
        for (name, _) in &mut self.0 {
            name.insert_str(0, prefix);
        }
    }
}
