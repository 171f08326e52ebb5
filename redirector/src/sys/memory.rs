//! What the C library's allocator keeps of memory that is free.
//!
//! Only glibc's has to be asked. It makes an arena for each of many threads, each of which keeps what one large request has
//! needed, and it learns from large blocks that are freed to keep them as well.

/// Has the allocator keep less: threads share two arenas, and what is larger than 128 KiB goes back when it is freed. To be called
/// before there are other threads.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 128 << 10)] {
        // SAFETY: takes integers only, and no thread allocates at the same time.
        let is_set = unsafe { libc::mallopt(parameter, value) } != 0;
        if !is_set {
            tracing::debug!(parameter, value, "mallopt");
        }
    }
}

/// Gives back what is free. It takes as long as there is free memory: some milliseconds after a large request.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer only; the allocator locks what it goes through.
    unsafe {
        libc::malloc_trim(0);
    }
}
