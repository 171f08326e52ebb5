//! The maps, and the few operations on them. Their table is in the library half.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_NO_PREALLOC,
        bpf_map_type::{BPF_MAP_TYPE_SOCKHASH, BPF_MAP_TYPE_SOCKMAP},
        bpf_sock,
    },
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    helpers::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    macros::btf_map,
    programs::SkLookupContext,
};
use redirector_ebpf::{
    BypassKey, Counters, Image, MAX_BYPASS, MAX_OWN_LISTENERS, MAX_RULES, OwnListener, PROTOCOL_TCP, SLOTS,
    Words,
    image::{MOST, NARROW},
};

use crate::constants;

/// The inner map is replaced as a whole: a packet sees one rule set or the other, never a mixture. Its value is an image, whose
/// length user space knows when it makes both maps; here it is the longest.
///
/// It is called words of 64 bits: user space makes maps without BTF, and from Linux 5.15 to
/// 6.2 a value that BTF calls a struct without a timer is another one than a value of which nothing is known, so that the
/// kernel would refuse the map (`bpf_map_meta_equal`,
/// <https://github.com/torvalds/linux/blob/v6.1/kernel/bpf/map_in_map.c>). Words cannot have a timer either way.
#[btf_map]
static RULES: ArrayOfMaps<Array<[u64; MOST / 2], 1>, 1> = ArrayOfMaps::new();

/// The rule set in force.
#[derive(Clone, Copy)]
pub(crate) struct InForce {
    words: *const u32,
    mask: usize,
}

/// `None` before the first one.
#[inline(always)]
pub(crate) fn rules() -> Option<Image<InForce>> {
    let words: *const [u64; MOST / 2] = RULES.get_value(0, &0)?;
    Some(Image(InForce { words: words.cast(), mask: (constants::words() - 1) as usize }))
}

impl Words for InForce {
    #[inline(always)]
    fn at(&self, index: u32) -> u32 {
        // SAFETY: the map's value has one word more than the mask says; the verifier, who knows both, checks it.
        let word = unsafe { self.words.add(index as usize & self.mask) };
        // SAFETY: as above.
        unsafe { *word }
    }

    #[inline(always)]
    fn head(&self, index: u32) -> u32 {
        // SAFETY: the shortest image is longer than its head; the verifier checks it.
        let word = unsafe { self.words.add(index as usize) };
        // SAFETY: as above.
        unsafe { *word }
    }

    #[inline(always)]
    fn is_narrow(&self) -> bool {
        self.mask < NARROW
    }

    #[inline(always)]
    fn looks_at(&self, looks: u32) -> bool {
        constants::looks() & looks != 0
    }

    #[inline(always)]
    fn wrap(&self, index: u32) -> u32 {
        (index as usize & self.mask) as u32
    }
}

#[btf_map]
static LISTENERS: Sockets<{ BPF_MAP_TYPE_SOCKMAP as usize }, u32, SLOTS> = Sockets::new();

/// What is closed is not in it any more.
#[btf_map]
static OWN_LISTENERS: Sockets<{ BPF_MAP_TYPE_SOCKHASH as usize }, OwnListener, MAX_OWN_LISTENERS> =
    Sockets::new();

/// Not an LRU map: an entry that disappears while its connection lives would make a loop.
#[btf_map]
pub(crate) static BYPASS: HashMap<BypassKey, u32, MAX_BYPASS, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
static COUNTERS: PerCpuArray<Counters, { 1 + MAX_RULES }> = PerCpuArray::new();

/// A map of sockets with 8-byte values, for which user space reads socket cookies. aya-ebpf's have 4-byte ones, which
/// cannot be read at all (`ENOSPC`).
#[repr(C)]
struct Sockets<const TYPE: usize, K, const LENGTH: usize> {
    r#type: *const [i32; TYPE],
    key: *const K,
    value: *const u64,
    max_entries: *const [i32; LENGTH],
}

// SAFETY: a definition for the loader; nothing reads its fields.
unsafe impl<const TYPE: usize, K, const LENGTH: usize> Sync for Sockets<TYPE, K, LENGTH> {}

impl<const TYPE: usize, K, const LENGTH: usize> Sockets<TYPE, K, LENGTH> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
        }
    }
}

/// `BPF_TCP_LISTEN`.
const TCP_LISTEN: u32 = 10;

/// Assigns the listener in a slot. 0, or a negative errno; `-ENOENT` for an empty slot.
#[inline(always)]
pub(crate) fn assign(ctx: &SkLookupContext, slot: u32) -> i32 {
    const ENOENT: i32 = 2;
    const ESOCKTNOSUPPORT: i64 = 94;
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

/// Whether a listener of a hand-off is bound there. A socket of which its holder has made something else is none.
#[inline(always)]
pub(crate) fn is_own_listener(key: &OwnListener) -> bool {
    let map = (&raw const OWN_LISTENERS).cast_mut().cast::<c_void>();
    // SAFETY: a helper call, checked by the verifier.
    let socket = unsafe { bpf_map_lookup_elem(map, (&raw const *key).cast()) };
    if socket.is_null() {
        return false;
    }
    let fields = socket.cast::<bpf_sock>();
    // SAFETY: `socket` is the referenced socket that the lookup gave; the verifier checks the field.
    let state = unsafe { (*fields).state };
    // SAFETY: as above.
    let port = unsafe { (*fields).src_port };
    // SAFETY: gives back the reference that the lookup took; the verifier insists.
    let _: i64 = unsafe { bpf_sk_release(socket) };
    state == TCP_LISTEN && port == key.port
}

/// One more in a counter, on this CPU: of what has this key in `COUNTERS`.
#[inline(always)]
pub(crate) fn count(key: u32, counter: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(key) {
        // SAFETY: this CPU's own value, and the program is not preempted by itself.
        unsafe { &mut *counters }.count(counter);
    }
}
