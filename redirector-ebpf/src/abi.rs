//! A mark of the ABI, in the kernel object, so that an object can be told from one of another version.

use crate::{
    BypassKey, Counters, Flow, MAX_BYPASS, MAX_OWN_LISTENERS, MAX_RULES, OwnListener, SLOTS,
    image::{LEAST, MOST},
};

/// Raised with every change of a meaning in this crate that changes no size.
const ABI_VERSION: usize = 7;

const LAYOUT: [usize; 11] = [
    ABI_VERSION,
    size_of::<BypassKey>(),
    size_of::<OwnListener>(),
    size_of::<Flow>(),
    size_of::<Counters>(),
    MAX_BYPASS,
    MAX_OWN_LISTENERS,
    MAX_RULES,
    SLOTS,
    LEAST,
    MOST,
];

const PREFIX: [u8; 16] = *b"redirector-abi-\0";

/// What the kernel object holds, once: a text, and a hash of version and layout.
pub const ABI_MARK: [u8; 24] = {
    // FNV-1a, 64 bits (draft-eastlake-fnv), over the numbers' bytes.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut number = 0;
    while number < LAYOUT.len() {
        // `usize` has other sizes on other machines, the numbers have not.
        let bytes = (LAYOUT[number] as u32).to_le_bytes();
        let mut byte = 0;
        while byte < bytes.len() {
            hash = (hash ^ bytes[byte] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            byte += 1;
        }
        number += 1;
    }
    let hash = hash.to_le_bytes();
    let mut mark = [0; 24];
    let mut at = 0;
    while at < mark.len() {
        mark[at] = if at < PREFIX.len() { PREFIX[at] } else { hash[at - PREFIX.len()] };
        at += 1;
    }
    mark
};
