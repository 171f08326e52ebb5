//! From the rules in force to others: made aside, put into force by one pointer, and back.

use std::{sync::Arc, time::Instant};

use super::{
    rules::{Published, RuleTable},
    settle::settle,
    steered::Steered,
};
use crate::kernel::{InstanceError, Prepared};

/// Rules that can come into force.
#[derive(Debug)]
pub(crate) struct Switch {
    published: Arc<Published>,
    prepared: Prepared,
}

/// Makes other rules those in force, in the kernel and here. Blocks for an RCU grace period.
///
/// # Errors
///
/// The rules before stay in force.
pub(crate) fn publish(netns: &Arc<Steered>, table: &Arc<RuleTable>) -> Result<(), InstanceError> {
    let before = netns.published.load_full();
    publish_after(netns, table, Some(Arc::clone(&before.current)), before)
}

/// Publishes the same rules with other marks: what was before them stays what was before.
///
/// # Errors
///
/// The marks before stay in force.
pub(crate) fn publish_marks(netns: &Arc<Steered>, table: &Arc<RuleTable>) -> Result<(), InstanceError> {
    let before = netns.published.load_full();
    publish_after(netns, table, before.previous.clone(), before)
}

fn publish_after(
    netns: &Arc<Steered>,
    table: &Arc<RuleTable>,
    previous: Option<Arc<RuleTable>>,
    before: Arc<Published>,
) -> Result<(), InstanceError> {
    let published = netns.instance.prepare(&table.rule_set, table.counters()).and_then(|prepared| {
        let after = Arc::new(Published::new(Arc::clone(table), previous));
        switch_from(netns, Switch { published: after, prepared }, before)
    });
    settle(netns);
    published.map(drop)
}

/// Makes all that other rules need to come into force.
///
/// # Errors
///
/// When the kernel refuses it.
pub(crate) fn prepare(netns: &Steered, table: Arc<RuleTable>) -> Result<Switch, InstanceError> {
    let prepared = netns.instance.prepare(&table.rule_set, table.counters())?;
    let previous = Some(Arc::clone(&netns.published.load().current));
    Ok(Switch { published: Arc::new(Published::new(table, previous)), prepared })
}

/// Makes the rules those in force that were prepared last, in the kernel and here. Blocks for an RCU grace period. Gives
/// the way back. What no rule leads to any more stays until [`settle`].
///
/// # Errors
///
/// The rules before stay in force.
pub(crate) fn switch(netns: &Steered, switch: Switch) -> Result<Switch, InstanceError> {
    switch_from(netns, switch, netns.published.load_full())
}

fn switch_from(
    netns: &Steered,
    Switch { published, prepared }: Switch,
    before: Arc<Published>,
) -> Result<Switch, InstanceError> {
    // Ours first: a connection that the kernel steers by the new rules is attributed by them, and one that
    // it has steered by the old ones is found there when the new ones do not take it.
    netns.published.store(published);
    match netns.instance.switch(prepared) {
        Ok(prepared) => Ok(Switch { published: before, prepared }),
        Err(error) => {
            netns.published.store(before);
            Err(error)
        }
    }
}

/// Goes back. What has been steered meanwhile is found under the rules that are left.
///
/// # Errors
///
/// What was switched to stays in force.
pub(crate) fn switch_back(
    netns: &Steered,
    Switch { published, prepared }: Switch,
) -> Result<(), InstanceError> {
    let left = netns.published.load_full();
    let (current, previous) = (Arc::clone(&published.current), Some(Arc::clone(&left.current)));
    let published = Arc::new(Published::new(current, previous));
    switch_from(netns, Switch { published, prepared }, left).map(drop)
}

/// Lets go of the rules that were in force before, when nobody can need them any more. Who calls has the namespace's turn.
pub(crate) fn expire(netns: &Steered) {
    if let Some(left) = netns.published.load().expired(Instant::now()) {
        netns.published.store(Arc::new(left));
    }
}
