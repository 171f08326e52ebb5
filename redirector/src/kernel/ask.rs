//! Asking the kernel about a packet that never was: a second program on the maps of the first.
//!
//! A test run has no ingress interface, so the second program takes a given one. It counts in counters of its own, which also
//! tell which rule it took and what it found in the slot: a test run gives only a verdict and a socket.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use redirector_ebpf::{Counters as Values, FAMILY_IPV6, Flow, UNAVAILABLE_REASONS, Unavailable};

use super::{Counters, Ingress, Instance, InstanceError};
use crate::sys::bpf;

/// What the program would do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Index of the rule that takes it.
    pub rule: Option<u32>,
    /// What it does about it.
    pub outcome: Outcome,
    /// What the kernel does then.
    pub fate: Fate,
    /// It is for a listener of a hand-off by its own address, and is refused for that, whatever the rules are.
    pub own_listener: bool,
}

/// Which of a rule's counters would count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No rule takes it.
    Unmatched,
    /// Given to the rule's listener.
    Steered,
    /// Left alone because the rule says `pass`.
    Passed,
    /// Refused because the rule says `reject`.
    Rejected,
    /// Left without an answer because the rule says `drop`.
    Dropped,
    /// A connection of the relay's own, left alone.
    Bypassed,
    /// The listener cannot be had: `on_unavailable` decides.
    Unavailable(Unavailable),
}

/// What becomes of a packet, by this program alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel's own lookup goes on.
    Lookup,
    /// RST, or ICMP "port unreachable".
    Refused,
    /// To the socket with this cookie.
    Socket(u64),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The second program could not be made.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The kernel does not run it.
    #[error("bpf BPF_PROG_TEST_RUN")]
    TestRun(#[source] io::Error),
    /// It ran, and said nothing that it can say.
    #[error("the kernel program counted {0}")]
    Nonsense(String),
}

impl AskError {
    /// Whether this kernel has no test runs of `sk_lookup` programs.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        // ENOTSUPP is the kernel's own: include/linux/errno.h.
        const ENOTSUPP: i32 = 524;
        matches!(self, Self::TestRun(error) if error.raw_os_error() == Some(ENOTSUPP))
    }
}

impl Instance {
    /// Runs the program on a made-up packet, as often as `repeat` says. Minimum kernel 5.13.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_PROG_TEST_RUN`.
    pub fn test_run(&self, flow: &Flow, repeat: u32) -> io::Result<bpf::TestRunResult> {
        self.with_program(|program| test_run(program, flow, repeat))
    }

    /// What would become of a packet under the rules in force, with the listeners that are there now. Nothing of it is counted.
    /// Where the kernel does not tell by which interface packets come (before 5.17), that of the flow means nothing.
    /// Loads a program, which takes some milliseconds; blocks. Minimum kernel 5.13.
    ///
    /// `expected` is the rule whose counters are looked at first: there may be many.
    ///
    /// # Errors
    ///
    /// [`AskError`]; `EOPNOTSUPP` where the selected socket is one of several that share a port (`SO_REUSEPORT`).
    pub fn ask(&self, flow: &Flow, expected: Option<u32>) -> Result<Heard, AskError> {
        let counters = Counters::new(self.counters.capacity())?;
        let ingress = if self.reads_ingress() { flow.ingress_ifindex } else { 0 };
        let program = self.load_another(Ingress::Given(ingress), &counters)?;
        let run = test_run(program.as_fd(), flow, 1).map_err(AskError::TestRun)?;
        let fate = match (run.verdict, run.cookie) {
            (0, _) => Fate::Refused,
            (_, 0) => Fate::Lookup,
            (_, cookie) => Fate::Socket(cookie),
        };
        if counters.netns().map_err(InstanceError::from)?.rejected > 0 {
            return Ok(Heard { rule: None, outcome: Outcome::Unmatched, fate, own_listener: true });
        }
        let all = expected.into_iter().chain(0..self.counters.capacity());
        for index in all {
            let counted = counted(&counters.rule(index).map_err(InstanceError::from)?);
            if let Some(counter) = counted {
                let nonsense = || AskError::Nonsense(format!("{counter} for rule {index}"));
                return Ok(Heard {
                    rule: Some(index),
                    outcome: outcome(counter).ok_or_else(nonsense)?,
                    fate,
                    own_listener: false,
                });
            }
        }
        match fate {
            Fate::Lookup => Ok(Heard { rule: None, outcome: Outcome::Unmatched, fate, own_listener: false }),
            _ => Err(AskError::Nonsense(format!("nothing for a rule, and decided {fate:?}"))),
        }
    }
}

/// Runs a program on a made-up packet.
fn test_run(program: BorrowedFd<'_>, flow: &Flow, repeat: u32) -> io::Result<bpf::TestRunResult> {
    let is_ipv6 = flow.family == FAMILY_IPV6;
    let remote_port = u16::try_from(flow.remote_port).map_err(io::Error::other)?;
    let mut context = bpf::SkLookup {
        family: u32::try_from(if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET }).expect("small"),
        protocol: flow.protocol,
        remote_port: remote_port.to_be(),
        local_port: flow.local_port,
        ..bpf::SkLookup::default()
    };
    if is_ipv6 {
        context.remote_ip6 = flow.remote_address;
        context.local_ip6 = flow.local_address;
    } else {
        context.remote_ip4 = flow.remote_address[0];
        context.local_ip4 = flow.local_address[0];
    }
    bpf::test_run(program, &context, repeat)
}

/// The number of the one counter that is not 0.
fn counted(values: &Values) -> Option<u32> {
    let counters: &[u64; size_of::<Values>() / 8] = bytemuck::cast_ref(values);
    counters.iter().position(|counter| *counter > 0).and_then(|place| u32::try_from(place).ok())
}

fn outcome(counter: u32) -> Option<Outcome> {
    const FIRST: u32 = Values::UNAVAILABLE;
    const LAST: u32 = Values::UNAVAILABLE + UNAVAILABLE_REASONS as u32 - 1;
    Some(match counter {
        Values::STEERED => Outcome::Steered,
        Values::PASSED => Outcome::Passed,
        Values::REJECTED => Outcome::Rejected,
        Values::DROPPED => Outcome::Dropped,
        Values::BYPASSED => Outcome::Bypassed,
        FIRST..=LAST => {
            let all = Unavailable::ALL.into_iter();
            Outcome::Unavailable(all.map(|(reason, _)| reason).find(|one| FIRST + *one as u32 == counter)?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_an_outcome() {
        for counter in 0..u32::try_from(size_of::<Values>() / 8).unwrap() {
            let mut values = Values::default();
            values.count(counter);
            assert_eq!(counted(&values), Some(counter));
            assert!(outcome(counter).is_some(), "{counter}");
        }
        assert_eq!(counted(&Values::default()), None);
        assert_eq!(outcome(Values::UNAVAILABLE), Some(Outcome::Unavailable(Unavailable::EmptySlot)));
    }
}
