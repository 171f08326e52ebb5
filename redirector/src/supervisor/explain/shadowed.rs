//! Rules of a namespace that can never decide.

use std::sync::Arc;

use crate::{
    config::Target,
    control::{Caller, Code, Error, SCHEMA, Shadows},
    matcher,
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
        // One at a time: who relays wants the other processors.
        let _turn = self.shadowing.lock().await;
        blocking(move || {
            let found = matcher::shadowed(&rules.placed(), &rules.rule_set.image);
            let found = found.map_err(|error| Error::chain(Code::Failed, &error))?;
            let shadowed = found.into_iter().map(Into::into).collect();
            Ok(Shadows { schema: SCHEMA, target: named, cookie, rules: count, shadowed })
        })
        .await
    }
}
