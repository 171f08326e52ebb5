//! What a namespace has of all places.

/// How many places a namespace uses, and how many it is guaranteed: together in one word, so that each change of either knows
/// by how much it changes `Places::bound`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holds {
    pub(super) used: u32,
    pub(super) guarantee: u32,
}

impl Holds {
    pub(super) fn of(word: u64) -> Self {
        let [used, guarantee] = bytemuck::cast(word);
        Self { used, guarantee }
    }

    pub(super) fn word(self) -> u64 {
        bytemuck::cast([self.used, self.guarantee])
    }

    /// What nobody else can have.
    pub(super) fn bound(self) -> u64 {
        self.used.max(self.guarantee).into()
    }
}
