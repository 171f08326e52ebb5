//! The matching rule: a flow, the cells of a rule set, and which of them decides.

/// `IPPROTO_TCP`.
pub const PROTOCOL_TCP: u32 = 6;

/// Bit for IPv4 in [`Cell::families`], and the value of [`Flow::family`].
pub const FAMILY_IPV4: u32 = 1;
/// Bit for IPv6 in [`Cell::families`], and the value of [`Flow::family`].
pub const FAMILY_IPV6: u32 = 2;
/// A cell without an address matches both families.
pub const FAMILIES_ALL: u32 = FAMILY_IPV4 | FAMILY_IPV6;

/// Cells in one rule set. The program looks at them in order, so this bounds its cost too.
pub const MAX_CELLS: usize = 256;

/// Bit in [`Cell::flags`]: the rule is marked down, its `on_unavailable` decides.
pub const FLAG_DOWN: u32 = 1;

/// What a cell does with a packet that it matches: the values of [`Cell::action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// To whoever owns the socket: the program stays out of it.
    Pass = 0,
    /// `SK_DROP`: TCP answers with RST.
    Reject = 1,
    /// To the listener of [`Cell::consumer`].
    Steer = 2,
}

/// What the program knows of a packet: both ends of the connection that it would open.
///
/// An IPv4 address is in word 0, the others are 0. Words are in network byte order, as in the packet; ports
/// are in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Flow {
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// The client.
    pub remote_address: [u32; 4],
    /// The original destination.
    pub local_address: [u32; 4],
    /// The client's port.
    pub remote_port: u32,
    /// The original destination's port.
    pub local_port: u32,
}

const _: () = assert!(size_of::<Flow>() == 48 && core::mem::offset_of!(Flow, local_port) == 44);

impl Flow {
    /// Whether both ends have the same address: the only packets for which the bypass map is asked.
    #[inline(always)]
    #[must_use]
    pub fn is_to_itself(&self) -> bool {
        let mut different = 0;
        let mut word = 0;
        while word < 4 {
            different |= self.remote_address[word] ^ self.local_address[word];
            word += 1;
        }
        different == 0
    }
}

/// One (destination prefix × port range) of one match of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Cell {
    /// IP protocol number.
    pub protocol: u32,
    /// Bits [`FAMILY_IPV4`], [`FAMILY_IPV6`]. A prefix belongs to one family, so `::/0` never takes IPv4.
    pub families: u32,
    /// The prefix of the original destination, with no bit outside `mask`. As [`Flow::local_address`].
    pub address: [u32; 4],
    /// The prefix length as a mask; all 0 for any address.
    pub mask: [u32; 4],
    /// First port, host byte order.
    pub port_first: u16,
    /// Last port, host byte order, itself included.
    pub port_last: u16,
    /// An [`Action`].
    pub action: u32,
    /// Whose listener, for [`Action::Steer`].
    pub consumer: u32,
    /// Index into the rule counters, below `MAX_RULES`.
    pub rule: u32,
    /// When the listener cannot be had: [`Action::Pass`] or [`Action::Reject`].
    pub on_unavailable: u32,
    /// [`FLAG_DOWN`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Cell>() == 64 && align_of::<Cell>() == 4);
const _: () = assert!(core::mem::offset_of!(Cell, address) == 8);
const _: () = assert!(core::mem::offset_of!(Cell, mask) == 24);
const _: () = assert!(core::mem::offset_of!(Cell, port_first) == 40);
const _: () = assert!(core::mem::offset_of!(Cell, action) == 44);
const _: () = assert!(core::mem::offset_of!(Cell, flags) == 60);

impl Cell {
    /// Whether this cell takes the flow. Arithmetic only: each branch in here would double the paths that the
    /// verifier walks for each cell.
    #[inline(always)]
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        let mut different = self.protocol ^ flow.protocol;
        different |= (self.families & flow.family) ^ flow.family;
        let mut word = 0;
        while word < 4 {
            different |= (flow.local_address[word] & self.mask[word]) ^ self.address[word];
            word += 1;
        }
        let port = u64::from(flow.local_port);
        // The top bit is set by whichever difference is below 0.
        let outside =
            port.wrapping_sub(self.port_first.into()) | u64::from(self.port_last).wrapping_sub(port);
        (u64::from(different) | (outside >> 63)) == 0
    }

    #[inline(always)]
    fn decision(&self) -> Decision {
        Decision {
            action: self.action,
            consumer: self.consumer,
            rule: self.rule,
            on_unavailable: self.on_unavailable,
            flags: self.flags,
        }
    }
}

/// What a cell says about a flow that it takes. The fields are those of [`Cell`].
///
/// A copy, not a reference: to the verifier references to different cells are different states, for each of
/// which it would walk the rest of the program again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// [`Cell::action`].
    pub action: u32,
    /// [`Cell::consumer`].
    pub consumer: u32,
    /// [`Cell::rule`].
    pub rule: u32,
    /// [`Cell::on_unavailable`].
    pub on_unavailable: u32,
    /// [`Cell::flags`].
    pub flags: u32,
}

/// The rules of one namespace as the kernel sees them: cells, the first that matches decides.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RuleSet {
    /// Cells in use.
    pub length: u32,
    /// Always 0.
    pub padding: u32,
    /// In the total order of [`crate::Precedence`].
    pub cells: [Cell; MAX_CELLS],
}

const _: () = assert!(size_of::<RuleSet>() == 8 + MAX_CELLS * 64);

impl RuleSet {
    /// What is decided about a flow: by the first cell that matches. `None`: no cell does.
    #[inline(always)]
    #[must_use]
    pub fn first_match(&self, flow: &Flow) -> Option<Decision> {
        let mut index = 0;
        while index < MAX_CELLS {
            if index as u32 >= self.length {
                break;
            }
            let cell = &self.cells[index];
            if cell.matches(flow) {
                // Without the black box LLVM moves the loads to where the fields are used, and with them the
                // reference (see `Decision`): loading then took 150 ms instead of 20.
                return Some(core::hint::black_box(cell.decision()));
            }
            index += 1;
        }
        None
    }
}
