//! What is done with a packet that a rule takes.

/// Bit in [`Decision::flags`]: the rule is marked down, its `on_unavailable` decides.
pub const FLAG_DOWN: u32 = 1;

/// What a rule does with a packet that it takes: the values of [`Decision::action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// To whoever owns the socket: the program stays out of it.
    Pass = 0,
    /// `SK_DROP`: TCP answers with RST.
    Reject = 1,
    /// To the listener of [`Decision::consumer`].
    Steer = 2,
    /// To the listener of [`crate::CONSUMER_BLACK_HOLE`], which takes nothing: silence.
    Drop = 3,
}

/// What a rule says about a packet that it takes.
///
/// A copy, not a reference: to the verifier references to different places are different states, for each of
/// which it would walk the rest of the program again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// An [`Action`].
    pub action: u32,
    /// Whose listener, for [`Action::Steer`] and [`Action::Drop`]: below 256.
    pub consumer: u32,
    /// The rule's number, for [`crate::counters_of`].
    pub rule: u32,
    /// When the listener cannot be had: any [`Action`] but [`Action::Steer`].
    pub on_unavailable: u32,
    /// [`FLAG_DOWN`].
    pub flags: u32,
}

impl Decision {
    /// All but [`Self::rule`] in one word, a byte each.
    #[must_use]
    pub const fn packed(&self) -> u32 {
        self.action | self.consumer << 8 | self.on_unavailable << 16 | self.flags << 24
    }

    /// From the two words of a leaf.
    #[inline(always)]
    #[must_use]
    pub const fn unpacked(rule: u32, packed: u32) -> Self {
        Self {
            action: packed & 0xff,
            consumer: packed >> 8 & 0xff,
            rule,
            on_unavailable: packed >> 16 & 0xff,
            flags: packed >> 24,
        }
    }
}
