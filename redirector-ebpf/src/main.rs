//! The `sk_lookup` program: reads the context, asks the rule set, picks the listener, assigns it, counts.
//!
//! One instance runs in each steered namespace, with maps of its own, because the program cannot learn which
//! namespace it runs in (`bpf_get_netns_cookie` is refused for this program type). It runs for each packet that
//! is delivered locally and belongs to no connection: a SYN, its retransmissions, the ACK that answers a
//! SYN cookie, and each datagram that has no connected socket. It writes nothing but counters.

#![no_std]
#![no_main]

mod constants;
mod context;
mod maps;

use aya_ebpf::{bindings::sk_action, macros::sk_lookup, programs::SkLookupContext};
use redirector_ebpf::{
    Action, BypassKey, CONSUMER_BLACK_HOLE, COUNTERS_OF_NETNS, Counters, Decision, FLAG_DOWN, Kind,
    OwnListener, PROTOCOL_TCP, PROTOCOL_UDP, Packet as _, Unavailable, counters_of, slot_of,
};

use self::context::Context;

const SK_PASS: u32 = sk_action::SK_PASS;
const SK_DROP: u32 = sk_action::SK_DROP;

/// The entry point. The verifier wants to see that the result is 0 or 1.
#[sk_lookup]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
fn redirector(ctx: SkLookupContext) -> u32 {
    if decide(&ctx) == SK_DROP { SK_DROP } else { SK_PASS }
}

#[inline(always)]
fn decide(ctx: &SkLookupContext) -> u32 {
    let context = Context::new(ctx);
    let (protocol, family, port) = (context.protocol(), context.family(), context.local_port());
    // The kernel asks for TCP and UDP, and before 6.19 for UDP-Lite, which is 136.
    const { assert!(PROTOCOL_TCP < PROTOCOL_UDP) };
    if protocol > PROTOCOL_UDP {
        // Not ours to judge: the kernel's own lookup goes on.
        return SK_PASS;
    }
    let Some(rules) = maps::rules() else {
        // No rule set was ever published: as if the program were not there.
        return SK_PASS;
    };
    let kind = Kind::of(protocol, family);
    // Here, so that it has a place on the stack that nothing else has: to the verifier what is left there would else make what
    // follows another thing for packets to loopback addresses, and it would walk that once more.
    let mut key = OwnListener { family: 0, port: 0, netns: 0 };
    if is_to_own_listener(context, port, &mut key) {
        // It is there for a rule, and nobody is meant by it. The client sees RST.
        maps::count(COUNTERS_OF_NETNS, Counters::REJECTED);
        return SK_DROP;
    }
    let Some(decision) = rules.decide_about(kind, port, &context) else {
        if kind.is_tcp() {
            // UDP comes here with each datagram, and says nothing of how often it is used.
            maps::count(COUNTERS_OF_NETNS, Counters::PASSED);
        }
        // The application's own socket, or the kernel's RST when it has none.
        return SK_PASS;
    };
    let (verdict, counter) = judge(ctx, context, kind, &decision);
    maps::count(counters_of(decision.rule), counter);
    verdict
}

/// What becomes of a packet that a rule takes, and which of the rule's counters says so.
#[inline(always)]
fn judge(ctx: &SkLookupContext, context: Context, kind: Kind, decision: &Decision) -> (u32, u32) {
    if decision.action == Action::Pass as u32 {
        // The application's own socket.
        return (SK_PASS, Counters::PASSED);
    }
    // The relay's onward connections come from the address that they go to. Most packets differ in the first word already.
    if kind.is_tcp() && context.remote_first() == context.local_first() && is_bypassed(context) {
        // The relay's onward connection reaches the application.
        return (SK_PASS, Counters::BYPASSED);
    }
    if decision.action == Action::Reject as u32 {
        // The client sees RST, or of UDP "port unreachable": "connection refused".
        return (SK_DROP, Counters::REJECTED);
    }
    let reason = if decision.flags & FLAG_DOWN == 0 {
        match maps::assign(ctx, slot_of(decision.consumer, kind)) {
            // The client hears nothing, and sends it again: its packet vanishes in a socket that takes nothing.
            0 if decision.action == Action::Drop as u32 => return (SK_PASS, Counters::DROPPED),
            // The client's SYN is answered by our listener.
            0 => return (SK_PASS, Counters::STEERED),
            errno => Unavailable::from_errno(errno),
        }
    } else {
        Unavailable::RuleDown
    };
    let verdict = if decision.on_unavailable == Action::Pass as u32 {
        // The rule's user chose the application's own socket.
        SK_PASS
    } else if decision.on_unavailable == Action::Drop as u32
        && maps::assign(ctx, slot_of(CONSUMER_BLACK_HOLE, kind)) == 0
    {
        // The rule's user chose silence.
        SK_PASS
    } else {
        // The client sees RST, unless another program in this namespace has selected a socket.
        SK_DROP
    };
    (verdict, Counters::UNAVAILABLE + reason as u32)
}

#[inline(always)]
fn is_same(one: [u32; 4], other: [u32; 4]) -> bool {
    let mut different = 0;
    let mut word = 0;
    while word < 4 {
        different |= one[word] ^ other[word];
        word += 1;
    }
    different == 0
}

#[inline(always)]
fn is_bypassed(context: Context) -> bool {
    let client = context.remote_address();
    if !is_same(client, context.local_address()) {
        return false;
    }
    let key = BypassKey {
        family: context.family(),
        from_port: context.remote_port(),
        to_port: context.local_port(),
        address: client,
        netns: constants::netns(),
    };
    maps::BYPASS.get_ptr(key).is_some()
}

/// Whether a packet is for a listener of a hand-off by its own address. Most packets are not for such an address.
#[inline(always)]
fn is_to_own_listener(context: Context, port: u32, key: &mut OwnListener) -> bool {
    if !context.is_to_loopback() || context.protocol() != PROTOCOL_TCP {
        return false;
    }
    *key = OwnListener { family: context.family(), port, netns: constants::netns() };
    maps::is_own_listener(key)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse an object in which this is reachable.
    loop {}
}

/// Looked for in an object that was not built with the rest.
#[unsafe(link_section = "redirector_abi")]
#[unsafe(no_mangle)]
static ABI: [u8; 24] = redirector_ebpf::ABI_MARK;

/// `bpf_sk_assign`, `bpf_sk_release` and the map helpers are not GPL-only, but a licence must be named.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
