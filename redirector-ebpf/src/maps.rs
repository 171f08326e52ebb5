//! The maps, and the few operations on them. Their table is in the library half.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SOCKMAP, bpf_sock},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    helpers::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    macros::btf_map,
    programs::SkLookupContext,
};
use redirector_ebpf::{
    BypassKey, MAX_BYPASS, MAX_RULES, NetnsCounters, PROTOCOL_TCP, RuleCounters, SLOTS, Unavailable, Words,
    image::{LARGE, MEDIUM, SMALL},
};

/// The inner map is replaced as a whole: a packet sees one rule set or the other, never a mixture. There is one in one of
/// these maps, but while user space goes from one size to another: then it is in two, and the smaller one counts.
///
/// Their values are [`Words`], and called words of 64 bits: user space makes inner maps without BTF, and from Linux 5.15 to
/// 6.2 a value that BTF calls a struct without a timer is another one than a value of which nothing is known, so that the
/// kernel would refuse the map (`bpf_map_meta_equal`,
/// <https://github.com/torvalds/linux/blob/v6.1/kernel/bpf/map_in_map.c>). Words cannot have a timer either way.
macro_rules! rules {
    ($map:ident, $get:ident, $size:ident) => {
        #[btf_map]
        static $map: ArrayOfMaps<Array<[u64; $size / 2], 1>, 1> = ArrayOfMaps::new();

        /// The rule set in force, when it has this size.
        #[inline(always)]
        pub(crate) fn $get() -> Option<&'static Words<$size>> {
            let words: *const [u64; $size / 2] = $map.get_value(0, &0)?;
            // SAFETY: user space writes whole rule sets; they are as long as these words, and aligned no more strictly.
            Some(unsafe { &*words.cast::<Words<$size>>() })
        }
    };
}
rules!(RULES_SMALL, small_rules, SMALL);
rules!(RULES_MEDIUM, medium_rules, MEDIUM);
rules!(RULES_LARGE, large_rules, LARGE);

#[btf_map]
static LISTENERS: ListenerMap = ListenerMap::new();

/// Not an LRU map: an entry that disappears while its connection lives would make a loop.
#[btf_map]
pub(crate) static BYPASS: HashMap<BypassKey, u32, MAX_BYPASS, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
static RULE_COUNTERS: PerCpuArray<RuleCounters, MAX_RULES> = PerCpuArray::new();

#[btf_map]
static NETNS_COUNTERS: PerCpuArray<NetnsCounters, 1> = PerCpuArray::new();

/// A SOCKMAP with 8-byte values, for which user space reads socket cookies. aya-ebpf's has 4-byte ones, which
/// cannot be read at all (`ENOSPC`).
#[repr(C)]
struct ListenerMap {
    r#type: *const [i32; BPF_MAP_TYPE_SOCKMAP as usize],
    key: *const u32,
    value: *const u64,
    max_entries: *const [i32; SLOTS],
}

// SAFETY: a definition for the loader; nothing reads its fields.
unsafe impl Sync for ListenerMap {}

impl ListenerMap {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
        }
    }
}

/// Assigns the listener in a slot. 0, or a negative errno; `-ENOENT` for an empty slot.
#[inline(always)]
pub(crate) fn assign(ctx: &SkLookupContext, slot: u32) -> i32 {
    const ENOENT: i32 = 2;
    const ESOCKTNOSUPPORT: i64 = 94;
    /// `BPF_TCP_LISTEN`.
    const TCP_LISTEN: u32 = 10;
    let map = (&raw const LISTENERS).cast_mut().cast::<c_void>();
    // SAFETY: a helper call, checked by the verifier.
    let socket = unsafe { bpf_map_lookup_elem(map, (&raw const slot).cast()) };
    if socket.is_null() {
        return -ENOENT;
    }
    let fields = socket.cast::<bpf_sock>();
    // SAFETY: `socket` is the referenced socket that the lookup gave; the verifier checks the field.
    let protocol = unsafe { (*fields).protocol };
    // SAFETY: as above.
    let state = unsafe { (*fields).state };
    // Linux 5.10 would assign any socket but an established one, and drop what comes for it without a word.
    let result = if protocol != PROTOCOL_TCP || state == TCP_LISTEN {
        // SAFETY: as above.
        unsafe { bpf_sk_assign(ctx.as_ptr().cast(), socket, 0) }
    } else {
        -ESOCKTNOSUPPORT
    };
    // SAFETY: gives back the reference that the lookup took; the verifier insists.
    let _: i64 = unsafe { bpf_sk_release(socket) };
    result as i32
}

/// Changes the counters of a rule on this CPU.
#[inline(always)]
pub(crate) fn count_rule(rule: u32, change: impl FnOnce(&mut RuleCounters)) {
    if let Some(counters) = RULE_COUNTERS.get_ptr_mut(rule) {
        // SAFETY: this CPU's own value, and the program is not preempted by itself.
        change(unsafe { &mut *counters });
    }
}

/// Changes the counters of the namespace on this CPU.
#[inline(always)]
pub(crate) fn count_netns(change: impl FnOnce(&mut NetnsCounters)) {
    if let Some(counters) = NETNS_COUNTERS.get_ptr_mut(0) {
        // SAFETY: as in `count_rule`.
        change(unsafe { &mut *counters });
    }
}

/// One more for a reason. Spelled out, because an index that comes from a variable makes a bounds check and
/// with it a panic.
#[inline(always)]
pub(crate) fn count_reason(counters: &mut RuleCounters, reason: Unavailable) {
    let index = reason as usize;
    if let Some(counter) = counters.unavailable.get_mut(index) {
        *counter += 1;
    }
}
