//! The only reader of `bpf_sk_lookup`.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sk_lookup, programs::SkLookupContext};
use redirector_ebpf::{FAMILY_IPV4, FAMILY_IPV6, Flow};

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

    /// As [`Flow::family`].
    #[inline(always)]
    pub(crate) fn family(self) -> u32 {
        if read!(self, family) == AF_INET6 { FAMILY_IPV6 } else { FAMILY_IPV4 }
    }

    #[inline(always)]
    pub(crate) fn local_port(self) -> u32 {
        read!(self, local_port)
    }

    /// Reads every field of both families, whichever the packet has. Volatile and unconditional on purpose: LLVM else merges
    /// the loads of the two families into one at a computed offset, which the verifier refuses ("dereference of modified ctx
    /// ptr"). The fields of the other family read as 0.
    #[inline(always)]
    pub(crate) fn flow(self) -> Flow {
        let family = self.family();
        let protocol = self.protocol();
        let remote_ip4 = read!(self, remote_ip4);
        let local_ip4 = read!(self, local_ip4);
        let remote_ip6 = [
            read!(self, remote_ip6[0]),
            read!(self, remote_ip6[1]),
            read!(self, remote_ip6[2]),
            read!(self, remote_ip6[3]),
        ];
        let local_ip6 = [
            read!(self, local_ip6[0]),
            read!(self, local_ip6[1]),
            read!(self, local_ip6[2]),
            read!(self, local_ip6[3]),
        ];
        let remote_port = u16::from_be(read!(self, remote_port)).into();
        let (remote_address, local_address) = if family == FAMILY_IPV6 {
            (remote_ip6, local_ip6)
        } else {
            ([remote_ip4, 0, 0, 0], [local_ip4, 0, 0, 0])
        };
        Flow { family, protocol, remote_address, local_address, remote_port, local_port: self.local_port() }
    }
}
