//! The only reader of `bpf_sk_lookup`.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sk_lookup, programs::SkLookupContext};
use redirector_ebpf::{FAMILY_IPV4, FAMILY_IPV6, Packet};

use crate::constants;

const AF_INET6: u32 = 10;

/// What a packet brings.
#[derive(Clone, Copy)]
pub(crate) struct Context(*const bpf_sk_lookup);

macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
        unsafe { (&raw const (*$context.0).$($field)+).read_volatile() }
    };
}

impl Context {
    #[inline(always)]
    pub(crate) fn new(ctx: &SkLookupContext) -> Self {
        Self(ctx.as_ptr().cast())
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u32 {
        read!(self, protocol)
    }

    /// As [`redirector_ebpf::Flow::family`].
    #[inline(always)]
    pub(crate) fn family(self) -> u32 {
        // AF_INET is 2. Calculated, as in `Kind::of`.
        const { assert!(AF_INET6 >> 3 == 1 && FAMILY_IPV6 == FAMILY_IPV4 + 1) };
        FAMILY_IPV4 + (read!(self, family) >> 3 & 1)
    }

    #[inline(always)]
    pub(crate) fn local_port(self) -> u32 {
        read!(self, local_port)
    }

    /// Whether it is for `127.0.0.1` or `::1`. Nothing is compared with the packet's kind: the verifier would learn about that, and
    /// walk what follows once more.
    #[inline(always)]
    pub(crate) fn is_to_loopback(self) -> bool {
        const IPV4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
        const IPV6: u32 = u32::from_ne_bytes([0, 0, 0, 1]);
        // The fields of the other family are 0.
        let (ipv4, ipv6) = (read!(self, local_ip4) ^ IPV4, read!(self, local_ip6[3]) ^ IPV6);
        u64::from(ipv4) * u64::from(ipv6) == 0
            && read!(self, local_ip6[0]) | read!(self, local_ip6[1]) | read!(self, local_ip6[2]) == 0
    }

    /// The client's port, as [`redirector_ebpf::Flow::remote_port`].
    #[inline(always)]
    pub(crate) fn remote_port(self) -> u32 {
        u16::from_be(read!(self, remote_port)).into()
    }
}

/// Addresses read every field of both families, whichever the packet has; those of the other one are 0. Volatile and
/// unconditional on purpose: LLVM else merges the loads of the two families into one at a computed offset, which the verifier
/// refuses ("dereference of modified ctx ptr").
impl Packet for Context {
    #[inline(always)]
    fn remote_first(&self) -> u32 {
        read!(self, remote_ip4) | read!(self, remote_ip6[0])
    }

    #[inline(always)]
    fn remote_address(&self) -> [u32; 4] {
        [
            self.remote_first(),
            read!(self, remote_ip6[1]),
            read!(self, remote_ip6[2]),
            read!(self, remote_ip6[3]),
        ]
    }

    #[inline(always)]
    fn local_first(&self) -> u32 {
        read!(self, local_ip4) | read!(self, local_ip6[0])
    }

    #[inline(always)]
    fn local_address(&self) -> [u32; 4] {
        [self.local_first(), read!(self, local_ip6[1]), read!(self, local_ip6[2]), read!(self, local_ip6[3])]
    }

    /// Where the constant says that it is not read, the verifier does not see that it could be, and an older kernel, whose
    /// context ends before it, takes the program.
    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        // Read in any case: else LLVM merges both loads into one at a computed address.
        let given = constants::given_ingress();
        if constants::reads_ingress() { read!(self, ingress_ifindex) } else { given }
    }
}
