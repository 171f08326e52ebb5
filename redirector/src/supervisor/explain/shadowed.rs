//! Rules of a namespace that can never decide.

use std::sync::Arc;

use crate::{
    config::Target,
    control::{Caller, Code, Error, SCHEMA, ShadowView, Shadows},
    matcher::{self, Shadow},
    supervisor::{Supervisor, blocking},
};

impl Supervisor {
    pub(in crate::supervisor) async fn shadows(
        &self,
        caller: Caller,
        target: Target,
    ) -> Result<Shadows, Error> {
        let sought = self.seek(&target, caller).await;
        let netns = sought.find(&*self.table.lock().await)?;
        // Without the lock: that may take seconds, and the rules are what they are.
        let rules = Arc::clone(&netns.published.load().current);
        let (named, cookie, count) = (netns.target.clone(), netns.cookie.0, rules.rules().len() as u64);
        blocking(move || {
            let found = matcher::shadowed(&rules.placed(), &rules.rule_set.image);
            let found = found.map_err(|error| Error::chain(Code::Failed, &error))?;
            let view = |(rule, shadow): (&crate::config::Rule, Shadow<'_>)| {
                let (why, by) = match shadow {
                    Shadow::By(rules) => ("rules", rules.into_iter().map(|one| one.name.clone()).collect()),
                    Shadow::Absent => ("interfaces", Vec::new()),
                    Shadow::Unknown => ("unknown", Vec::new()),
                };
                ShadowView { rule: rule.name.clone(), why: why.into(), by }
            };
            let shadowed = found.into_iter().map(view).collect();
            Ok(Shadows { schema: SCHEMA, target: named, cookie, rules: count, shadowed })
        })
        .await
    }
}
