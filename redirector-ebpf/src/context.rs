//! The only reader of `bpf_sk_lookup`.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sk_lookup, programs::SkLookupContext};
use redirector_ebpf::{FAMILY_IPV4, FAMILY_IPV6, Flow};

const AF_INET6: u32 = 10;

/// Reads every field of both families, whichever the packet has. Volatile and unconditional on purpose: LLVM
/// else merges the loads of the two families into one at a computed offset, which the verifier refuses
/// ("dereference of modified ctx ptr"). The fields of the other family read as 0.
#[inline(always)]
pub(crate) fn flow(ctx: &SkLookupContext) -> Flow {
    let lookup: *const bpf_sk_lookup = ctx.as_ptr().cast();
    macro_rules! read {
        ($($field:tt)+) => {
            // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
            unsafe { (&raw const (*lookup).$($field)+).read_volatile() }
        };
    }
    let family = read!(family);
    let protocol = read!(protocol);
    let remote_ip4 = read!(remote_ip4);
    let local_ip4 = read!(local_ip4);
    let remote_ip6 = [read!(remote_ip6[0]), read!(remote_ip6[1]), read!(remote_ip6[2]), read!(remote_ip6[3])];
    let local_ip6 = [read!(local_ip6[0]), read!(local_ip6[1]), read!(local_ip6[2]), read!(local_ip6[3])];
    let remote_port = u16::from_be(read!(remote_port));
    let local_port = read!(local_port);
    let (family, remote_address, local_address) = if family == AF_INET6 {
        (FAMILY_IPV6, remote_ip6, local_ip6)
    } else {
        (FAMILY_IPV4, [remote_ip4, 0, 0, 0], [local_ip4, 0, 0, 0])
    };
    Flow { family, protocol, remote_address, local_address, remote_port: remote_port.into(), local_port }
}
