//! Rules that are down: their destination does not answer, and their `on_unavailable` decides until it does.

use std::{sync::Arc, time::Duration};

use super::world::World;
use crate::{
    control::{Code, Error},
    netns::NetnsCookie,
    steer::{RuleState, RuleTable, Steered, Turns, WentDown, blocking, publish_marks},
};

/// Between two tries to reach a destination that did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// A rule's destination does not answer: its `on_unavailable` decides from now on, until it does.
pub(crate) async fn until_up(world: Arc<World>, WentDown { netns, rule }: WentDown) {
    let why = rule.tally.down().map(|down| down.why).unwrap_or_default();
    tracing::warn!(netns = %netns.target, rule = %rule.rule.name, destination = %rule.rule.to, why, "rule is down");
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
        if world.is_ending() || is_gone(&world.turns, netns.cookie, || in_force(&netns, &rule)).await {
            return;
        }
        match netns.dialer.reaches(rule.route()).await {
            Ok(()) => break,
            Err(error) => rule.tally.stays_down(&error),
        }
    }
    rule.mark_up();
    tracing::info!(netns = %netns.target, rule = %rule.rule.name, "rule is up");
    while let Err(error) = publish_again(&world, &netns, &rule).await {
        tracing::error!(netns = %netns.target, rule = %rule.rule.name, %error, "mark the rule up");
        tokio::time::sleep(RETRY).await;
    }
}

/// Is a rule in force no longer, when no change of its namespace is under way? An `apply` may take it away, and go back.
async fn is_gone(turns: &Arc<Turns>, netns: NetnsCookie, in_force: impl Fn() -> bool) -> bool {
    if in_force() {
        return false;
    }
    let _turn = turns.of(netns).await;
    !in_force()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Each: in force when somebody looks, and when the change has ended that is under way; whether it is gone.
    #[tokio::test]
    async fn a_rule_is_gone_only_when_the_change_that_has_taken_it_away_has_not_gone_back() {
        const NETNS: NetnsCookie = NetnsCookie(7);
        for (now, then, is_gone_then) in
            [(true, true, false), (true, false, false), (false, true, false), (false, false, true)]
        {
            let (turns, is_in_force) = (Arc::<Turns>::default(), AtomicBool::new(now));
            let change = turns.of(NETNS).await;
            let looks = is_gone(&turns, NETNS, || is_in_force.load(Ordering::Relaxed));
            let change = async {
                is_in_force.store(then, Ordering::Relaxed);
                drop(change);
            };
            // What is polled first looks first.
            let (is_gone, ()) = tokio::join!(biased; looks, change);
            assert_eq!(is_gone, is_gone_then, "{now}, then {then}");
        }
    }
}
