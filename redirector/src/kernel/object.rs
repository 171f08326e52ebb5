//! The compiled program, embedded.

/// Aligned as the ELF parser wants it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirector-ebpf"));

/// The function's name in the object.
pub(super) const PROGRAM: &str = "redirector";
