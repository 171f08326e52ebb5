//! What is said of the state of a namespace, and of a rule.

use crate::{
    control::{Availability, NamespaceState},
    steer::RuleState,
    sys::bpf::LinkInfo,
};

/// The state of a namespace with this link.
pub(super) fn of_namespace(link: Option<&LinkInfo>) -> NamespaceState {
    if link.is_some_and(|link| link.netns_inode != 0) {
        NamespaceState::Steered
    } else {
        NamespaceState::Detached
    }
}

/// The state of a rule.
pub(super) fn of_rule(rule: &RuleState) -> Availability {
    if rule.is_down() { Availability::Down } else { Availability::Up }
}
