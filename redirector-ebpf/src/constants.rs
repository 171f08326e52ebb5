//! What user space sets before it loads the program. Their names are in the library half.

/// A value that no other constant of the program has: LLVM lets equal ones be one, and a key of a map that is 0 would become
/// what user space makes of a constant that was 0 here.
const UNSET: u32 = 0x7265_6469;

macro_rules! constant {
    ($(#[$doc:meta])* $name:ident, $get:ident) => {
        #[unsafe(no_mangle)]
        static $name: u32 = UNSET;

        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $get() -> u32 {
            // SAFETY: an aligned, initialized value. Volatile: the compiler must not take the value above for what it is.
            unsafe { (&raw const $name).read_volatile() }
        }
    };
}

constant!(
    /// The namespace's number.
    NETNS,
    netns
);
constant!(
    /// The length of images, in words.
    WORDS,
    words
);
constant!(
    /// [`redirector_ebpf::image::looks`].
    LOOKS,
    looks
);
constant!(READS_INGRESS, raw_reads_ingress);
constant!(
    /// The ingress interface where it is not read.
    GIVEN_INGRESS,
    given_ingress
);

/// Whether the ingress interface is read.
#[inline(always)]
pub(crate) fn reads_ingress() -> bool {
    raw_reads_ingress() != 0
}
