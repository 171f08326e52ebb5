//! The `sk_lookup` program: reads the context, asks the rule set, picks the listener, assigns it, counts.
//!
//! One instance runs in each steered namespace, with maps of its own, because the program cannot learn which
//! namespace it runs in (`bpf_get_netns_cookie` is refused for this program type). It runs for each packet that
//! is delivered locally and belongs to no connection: a SYN, its retransmissions, and the ACK that answers a
//! SYN cookie. It writes nothing but counters.

#![no_std]
#![no_main]

mod context;
mod maps;

use aya_ebpf::{bindings::sk_action, macros::sk_lookup, programs::SkLookupContext};
use redirector_ebpf::{
    Action, BypassKey, CONSUMER_BLACK_HOLE, Decision, FLAG_DOWN, Flow, PROTOCOL_TCP, Unavailable, slot,
};

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
    let context = context::Context::new(ctx);
    if context.protocol() != PROTOCOL_TCP {
        // Not ours to judge: the kernel's own lookup goes on.
        return SK_PASS;
    }
    let (family, port) = (context.family(), context.local_port());
    let decided = if let Some(small) = maps::small_rules() {
        small.decide_reading(family, port, || context.flow())
    } else if let Some(medium) = maps::medium_rules() {
        medium.decide_reading(family, port, || context.flow())
    } else if let Some(large) = maps::large_rules() {
        large.decide_reading(family, port, || context.flow())
    } else {
        // No rule set was ever published: as if the program were not there.
        return SK_PASS;
    };
    let Some((decision, flow)) = decided else {
        maps::count_netns(|counters| counters.unmatched += 1);
        // The application's own socket, or the kernel's RST when it has none.
        return SK_PASS;
    };
    if decision.action == Action::Pass as u32 {
        maps::count_rule(decision.rule, |counters| counters.passed += 1);
        // The application's own socket.
        return SK_PASS;
    }
    if flow.is_to_itself() && is_bypassed(&flow) {
        maps::count_rule(decision.rule, |counters| counters.bypassed += 1);
        // The relay's onward connection reaches the application.
        return SK_PASS;
    }
    if decision.action == Action::Reject as u32 {
        maps::count_rule(decision.rule, |counters| counters.rejected += 1);
        // The client sees RST: "connection refused".
        return SK_DROP;
    }
    if decision.action == Action::Drop as u32 {
        return silence(ctx, &flow, &decision);
    }
    steer(ctx, &flow, &decision)
}

/// The client's packet is let vanish by a listener that takes nothing: it hears nothing, and sends it again.
#[inline(always)]
fn silence(ctx: &SkLookupContext, flow: &Flow, decision: &Decision) -> u32 {
    match maps::assign(ctx, slot(CONSUMER_BLACK_HOLE, flow.family)) {
        0 => {
            maps::count_rule(decision.rule, |counters| counters.dropped += 1);
            SK_PASS
        }
        errno => {
            let reason = Unavailable::from_errno(errno);
            maps::count_rule(decision.rule, |counters| maps::count_reason(counters, reason));
            // The next best: it gets in nowhere.
            SK_DROP
        }
    }
}

#[inline(always)]
fn is_bypassed(flow: &Flow) -> bool {
    let key = BypassKey { family: flow.family, port: flow.remote_port, address: flow.remote_address };
    maps::BYPASS.get_ptr(key).is_some()
}

#[inline(always)]
fn steer(ctx: &SkLookupContext, flow: &Flow, decision: &Decision) -> u32 {
    let reason = if decision.flags & FLAG_DOWN == 0 {
        match maps::assign(ctx, slot(decision.consumer, flow.family)) {
            0 => {
                maps::count_rule(decision.rule, |counters| counters.steered += 1);
                // The client's SYN is answered by our listener.
                return SK_PASS;
            }
            errno => Unavailable::from_errno(errno),
        }
    } else {
        Unavailable::RuleDown
    };
    maps::count_rule(decision.rule, |counters| maps::count_reason(counters, reason));
    if decision.on_unavailable == Action::Pass as u32 {
        // The rule's user chose the application's own socket.
        SK_PASS
    } else if decision.on_unavailable == Action::Drop as u32
        && maps::assign(ctx, slot(CONSUMER_BLACK_HOLE, flow.family)) == 0
    {
        // The rule's user chose silence.
        SK_PASS
    } else {
        // The client sees RST, unless another program in this namespace has selected a socket.
        SK_DROP
    }
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
