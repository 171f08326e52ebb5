//! Rules that say by which interface a connection comes: names, which the kernel knows as numbers. An interface may go and
//! come back with another one.

use std::sync::Arc;

use super::{
    error::{blocking, failed},
    rules::RuleTable,
    steered::Steered,
    switch::publish,
};
use crate::{
    config::Interface,
    control::{Code, Error},
    netns,
};

/// Looks whether the interfaces that rules name are still what they were, and publishes what is not.
///
/// # Errors
///
/// When that cannot be seen, or published.
pub(crate) async fn follow(netns: &Arc<Steered>) -> Result<(), Error> {
    let netns = Arc::clone(netns);
    blocking(move || {
        let fd = netns.open().map_err(|error| failed("open", &netns.target, &error))?;
        let current = Arc::clone(&netns.published.load().current);
        let named = current.rules().iter().flat_map(|state| &state.rule.interfaces);
        let look = || netns::interfaces_named(named.map(Interface::as_str));
        let present = netns::enter(&fd, look).and_then(|found| found);
        let present = present.map_err(|error| failed("look at", &netns.target, &error))?;
        let changed: Vec<_> =
            current.rules().iter().filter(|state| state.set_interfaces(&present)).cloned().collect();
        for state in changed {
            let missing: Vec<_> = state.missing_interfaces().iter().map(ToString::to_string).collect();
            tracing::warn!(
                netns = %netns.target, rule = %state.rule.name, missing = missing.join(","),
                "interfaces that the rule names have come or gone"
            );
        }
        // Also when that did not work the last time.
        if !current.is_outdated() {
            return Ok(());
        }
        let rules = RuleTable::new(current.rules().to_vec(), netns.instance.rule_sets());
        let rules = rules.map_err(|error| Error::chain(Code::Failed, &error))?;
        publish(&netns, &Arc::new(rules)).map_err(|error| Error::chain(Code::Failed, &error))
    })
    .await
}
