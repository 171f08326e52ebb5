//! From rules to the cells that kernel and relay match with.

use ipnet::IpNet;
use redirector_ebpf::{
    Action, Cell, FAMILIES_ALL, FAMILY_IPV4, FAMILY_IPV6, MAX_CELLS, PROTOCOL_TCP, Precedence, RuleSet,
};

use super::{Destination, Match, OnUnavailable, Rule};

/// Why rules do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Each match makes one cell for each of its port ranges.
    #[error(
        "the rules of one namespace make {0} cells (a match makes one per port range), more than {MAX_CELLS}"
    )]
    TooManyCells(usize),
}

/// A rule's place in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Into the rule counters.
    pub index: u32,
    /// Whose listeners get what it steers.
    pub consumer: u32,
    /// Bits of [`Cell::flags`].
    pub flags: u32,
}

/// Compiles the rules of one namespace.
///
/// # Errors
///
/// [`CompileError::TooManyCells`].
pub fn compile<'a>(rules: impl IntoIterator<Item = Placed<'a>>) -> Result<Box<RuleSet>, CompileError> {
    let mut cells: Vec<(Precedence<'a>, Cell)> = Vec::new();
    for placed in rules {
        let rule = placed.rule;
        for matching in &rule.matches {
            let precedence = Precedence {
                destination_prefix_length: matching.prefix.map_or(0, |net| net.prefix_len()),
                ports: matching.ports.len(),
                rule_name: rule.name.as_str().as_bytes(),
            };
            cells.extend(self::cells(placed, matching).map(|cell| (precedence, cell)));
        }
    }
    if cells.len() > MAX_CELLS {
        return Err(CompileError::TooManyCells(cells.len()));
    }
    // Stable: cells that the order holds equal are of one rule, where either gives the same.
    cells.sort_by_key(|(precedence, _)| *precedence);
    let mut set: Box<RuleSet> = bytemuck::zeroed_box();
    set.length = u32::try_from(cells.len()).expect("at most MAX_CELLS");
    for (place, (_, cell)) in set.cells.iter_mut().zip(cells) {
        *place = cell;
    }
    Ok(set)
}

fn cells(placed: Placed<'_>, matching: &Match) -> impl Iterator<Item = Cell> {
    let Placed { rule, index, consumer, flags } = placed;
    let action = match rule.to {
        Destination::Pass => Action::Pass,
        Destination::Reject => Action::Reject,
        Destination::Handoff
        | Destination::Original
        | Destination::Unix(_)
        | Destination::Host { .. }
        | Destination::Inside { .. } => Action::Steer,
    };
    let on_unavailable = match rule.on_unavailable {
        OnUnavailable::Pass => Action::Pass,
        OnUnavailable::Reject => Action::Reject,
    };
    let (families, address, mask) = match matching.prefix {
        None => (FAMILIES_ALL, [0; 4], [0; 4]),
        Some(IpNet::V4(net)) => {
            let word = |address: std::net::Ipv4Addr| [u32::from_ne_bytes(address.octets()), 0, 0, 0];
            (FAMILY_IPV4, word(net.network()), word(net.netmask()))
        }
        Some(IpNet::V6(net)) => {
            let words = |address: std::net::Ipv6Addr| bytemuck::cast::<[u8; 16], [u32; 4]>(address.octets());
            (FAMILY_IPV6, words(net.network()), words(net.netmask()))
        }
    };
    matching.ports.ranges().iter().map(move |(port_first, port_last)| Cell {
        protocol: PROTOCOL_TCP,
        families,
        address,
        mask,
        port_first: *port_first,
        port_last: *port_last,
        action: action as u32,
        consumer,
        rule: index,
        on_unavailable: on_unavailable as u32,
        flags,
    })
}
