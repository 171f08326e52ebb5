//! Rules that are down: their destination does not answer, and their `on_unavailable` decides until it does.

use std::{sync::Arc, time::Duration};

use super::world::World;
use crate::{
    control::{Code, Error},
    steer::{RuleState, RuleTable, Steered, WentDown, blocking, publish_marks},
};

/// Between two tries to reach a destination that did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// A rule's destination does not answer: its `on_unavailable` decides from now on, until it does.
pub(crate) async fn until_up(world: Arc<World>, WentDown { netns, rule }: WentDown) {
    tracing::warn!(netns = %netns.target, rule = %rule.rule.name, destination = %rule.rule.to, "rule is down: its destination does not answer");
    let mut is_marked = false;
    loop {
        if !is_marked {
            let marked = publish_again(&world, &netns, &rule).await;
            is_marked = marked.is_ok();
            if let Err(error) = marked {
                tracing::error!(netns = %netns.target, rule = %rule.rule.name, %error, "mark the rule down");
            }
        }
        tokio::time::sleep(RETRY).await;
        if world.is_ending() || !in_force(&netns, &rule) && !stays_in_force(&world, &netns, &rule).await {
            return;
        }
        if netns.dialer.reaches(rule.route()).await {
            break;
        }
    }
    rule.mark_up();
    tracing::info!(netns = %netns.target, rule = %rule.rule.name, "rule is up");
    while let Err(error) = publish_again(&world, &netns, &rule).await {
        tracing::error!(netns = %netns.target, rule = %rule.rule.name, %error, "mark the rule up");
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether a rule is in force when no change is under way: an `apply` may take it away, and go back.
async fn stays_in_force(world: &World, netns: &Steered, rule: &Arc<RuleState>) -> bool {
    let _turn = world.turns.of(netns.cookie).await;
    in_force(netns, rule)
}

/// Publishes the same rules, for a mark that has changed.
async fn publish_again(world: &World, netns: &Arc<Steered>, rule: &Arc<RuleState>) -> Result<(), Error> {
    let _turn = world.turns.of(netns.cookie).await;
    if !in_force(netns, rule) {
        return Ok(());
    }
    let rules = netns.published.load().current.rules().to_vec();
    let netns = Arc::clone(netns);
    blocking(move || {
        let rules = RuleTable::new(rules, netns.instance.rule_sets());
        let rules = rules.map_err(|error| Error::chain(Code::Failed, &error))?;
        publish_marks(&netns, &Arc::new(rules)).map_err(|error| Error::chain(Code::Failed, &error))
    })
    .await
}

fn in_force(netns: &Steered, rule: &Arc<RuleState>) -> bool {
    let published = netns.published.load();
    netns.instance.link_info().is_some() && published.current.rules().iter().any(|one| Arc::ptr_eq(one, rule))
}
