//! Rules that say by which interface a connection comes: names, which the kernel knows as numbers. An interface may go and
//! come back with another one.

use std::sync::Arc;

use super::{Supervisor, Table, blocking, failed, namespace::Namespace, opening::Missing, rules::RuleTable};
use crate::{
    config::{RuleSpec, Target},
    control::{Code, Error},
    netns::{self, Survey},
};

impl Supervisor {
    /// Whether a rule's interfaces can be told, and are there.
    pub(super) fn judge_interfaces(
        &self,
        target: &Target,
        spec: &RuleSpec,
        (survey, missing): (&Survey, Missing),
    ) -> Result<(), Error> {
        self.can_tell_interfaces(spec)?;
        let is_there = |name: &str| survey.interfaces.iter().any(|(there, _)| there == name);
        match spec.interfaces.iter().find(|one| !is_there(one.as_str())) {
            Some(absent) if missing == Missing::Refused => {
                let there: Vec<_> = survey.interfaces.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("target `{target}`: it has no interface `{absent}`");
                let hint = format!("there are: {}", there.join(", ")).escape_debug().to_string();
                Err(Error::new(Code::Failed, message).with_hint(&hint))
            }
            _ => Ok(()),
        }
    }

    /// Whether the kernel tells what a rule asks for.
    pub(super) fn can_tell_interfaces(&self, spec: &RuleSpec) -> Result<(), Error> {
        if spec.interfaces.is_empty() || self.kernel.reads_ingress() {
            return Ok(());
        }
        let message = "this kernel does not tell by which interface a connection comes";
        Err(Error::new(Code::Failed, message).with_hint("`interface` needs Linux 5.17 or newer"))
    }

    /// Looks where rules name interfaces whether these are still what they were, and publishes what is not.
    pub(super) async fn follow_interfaces(&self, table: &Table) {
        for netns in table.values() {
            if netns.published.load().current.names_interfaces()
                && let Err(error) = look(netns).await
            {
                let error = crate::text::chain(&error);
                tracing::error!(netns = %netns.target, error, "look at the interfaces");
            }
        }
    }
}

async fn look(netns: &Arc<Namespace>) -> Result<(), Error> {
    let netns = Arc::clone(netns);
    blocking(move || {
        let fd = netns.open().map_err(|error| failed("open", &netns.target, &error))?;
        let present = netns::enter(&fd, netns::interfaces).and_then(|found| found);
        let present = present.map_err(|error| failed("look at", &netns.target, &error))?;
        let current = Arc::clone(&netns.published.load().current);
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
        netns.publish(&Arc::new(rules)).map_err(|error| Error::chain(Code::Failed, &error))
    })
    .await
}
