//! What the program counts. It runs at least once for each SYN and again for a retransmitted or cookie-checked
//! one, so these count decisions; connections are counted where they are accepted.

/// Why a rule's listener could not be given the packet: the index into [`Counters::unavailable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Unavailable {
    /// `ENOENT`: the slot holds no socket.
    EmptySlot = 0,
    /// `ESOCKTNOSUPPORT`: the socket in the slot does not listen any more.
    NotListening = 1,
    /// `EPROTOTYPE`: the socket is of another protocol.
    WrongProtocol = 2,
    /// `EAFNOSUPPORT`: the socket is of another family.
    WrongFamily = 3,
    /// `EEXIST`: an earlier program in this namespace has selected a socket already; it keeps the packet.
    AlreadySelected = 4,
    /// Any other errno of `bpf_sk_assign`.
    OtherErrno = 5,
    /// No assignment was tried: the rule is marked down.
    RuleDown = 6,
}

/// How many [`Unavailable`] there are.
pub const UNAVAILABLE_REASONS: usize = 7;

impl Unavailable {
    /// Every reason with the name that users see.
    pub const ALL: [(Self, &'static str); UNAVAILABLE_REASONS] = [
        (Self::EmptySlot, "ENOENT"),
        (Self::NotListening, "ESOCKTNOSUPPORT"),
        (Self::WrongProtocol, "EPROTOTYPE"),
        (Self::WrongFamily, "EAFNOSUPPORT"),
        (Self::AlreadySelected, "EEXIST"),
        (Self::OtherErrno, "other"),
        (Self::RuleDown, "down"),
    ];

    /// The class of a negative errno of `bpf_sk_assign`, or of an empty slot.
    #[inline(always)]
    #[must_use]
    pub const fn from_errno(errno: i32) -> Self {
        match errno {
            -2 => Self::EmptySlot,
            -94 => Self::NotListening,
            -91 => Self::WrongProtocol,
            -97 => Self::WrongFamily,
            -17 => Self::AlreadySelected,
            _ => Self::OtherErrno,
        }
    }
}

/// Decisions of one rule, on one CPU; or, as `passed`, of TCP packets for a new connection that no rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Counters {
    /// Given to the rule's listener.
    pub steered: u64,
    /// Left alone because the rule says `pass`.
    pub passed: u64,
    /// Refused because the rule says `reject`.
    pub rejected: u64,
    /// Left without an answer because the rule says `drop`.
    pub dropped: u64,
    /// The relay's own onward connections, left alone.
    pub bypassed: u64,
    /// By [`Unavailable`].
    pub unavailable: [u64; UNAVAILABLE_REASONS],
}

const _: () = assert!(size_of::<Counters>() == 96 && align_of::<Counters>() == 8);

impl Counters {
    /// [`Self::count`] `steered`.
    pub const STEERED: u32 = 0;
    /// [`Self::count`] `passed`.
    pub const PASSED: u32 = 1;
    /// [`Self::count`] `rejected`.
    pub const REJECTED: u32 = 2;
    /// [`Self::count`] `dropped`.
    pub const DROPPED: u32 = 3;
    /// [`Self::count`] `bypassed`.
    pub const BYPASSED: u32 = 4;
    /// [`Self::count`] the first [`Unavailable`]; the others follow.
    pub const UNAVAILABLE: u32 = 5;

    /// One more. By number, so that the program has one place that counts.
    #[inline(always)]
    pub fn count(&mut self, counter: u32) {
        let counters: &mut [u64; size_of::<Self>() / 8] = bytemuck::cast_mut(self);
        if let Some(counter) = counters.get_mut(counter as usize) {
            *counter += 1;
        }
    }

    /// The sum over CPUs.
    #[must_use]
    pub fn sum(each: &[Self]) -> Self {
        each.iter().fold(Self::default(), |mut total, one| {
            let Self { steered, passed, rejected, dropped, bypassed, unavailable } = one;
            total.steered += steered;
            total.passed += passed;
            total.rejected += rejected;
            total.dropped += dropped;
            total.bypassed += bypassed;
            for (sum, value) in total.unavailable.iter_mut().zip(unavailable) {
                *sum += value;
            }
            total
        })
    }
}
