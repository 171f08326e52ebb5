//! `detach`: one rule, or the whole namespace.

use std::sync::{Arc, atomic::Ordering};

use super::{Supervisor, Table, blocking, namespace::Namespace, opening::Sought, rules::RuleTable};
use crate::{
    config::{Container, RuleName, Target},
    control::{Caller, Code, DetachRequest, Detached, Error, SCHEMA},
    netns::NetnsCookie,
};

impl Supervisor {
    pub(super) async fn detach_rules(
        &self,
        caller: Caller,
        request: DetachRequest,
    ) -> Result<Detached, Error> {
        let sought = self.seek(&request.target, caller).await;
        let mut table = self.table.lock().await;
        let found = self.follows.discovered();
        let (target, rule, at) = (request.target.clone(), request.rule.clone(), sought.cookie());
        let detached = match self.detach_sought(&mut table, sought, request).await {
            // What is there is still there, and wanted.
            Err(error) => Err(error),
            Ok(detached) => {
                let set_aside = self.set_aside.forget((&target, at), rule.as_ref());
                detached.map(|detached| with(detached, &set_aside)).or_else(|error| {
                    if set_aside.is_empty() {
                        return Err(error);
                    }
                    let steered = at.is_some_and(|at| table.contains_key(&at));
                    Ok(never_made((target, at), set_aside, steered))
                })
            }
        };
        // What was found stays away until the next file.
        let is_gone = |container: &Container, name: &RuleName| self.follows.get(container, name).is_none();
        let gone = found.into_iter().filter(|(container, name, _)| is_gone(container, name));
        self.discovery.detached(gone.map(|(_, name, followed)| (followed.id, name)));
        detached
    }

    /// Gives in the inner result why there is nothing to be detached.
    async fn detach_sought(
        &self,
        table: &mut Table,
        sought: Sought,
        request: DetachRequest,
    ) -> Result<Result<Detached, Error>, Error> {
        let DetachRequest { target, rule } = request;
        let netns = match sought.find(table) {
            Ok(netns) => netns,
            Err(error) => {
                return Ok(self.stop_following(table, &target, rule.as_ref()).await?.ok_or(error));
            }
        };
        let current = Arc::clone(&netns.published.load().current);
        let names: Vec<RuleName> = current.rules().iter().map(|state| state.rule.name.clone()).collect();
        let is_all = rule.is_none();
        let mut gone = match rule {
            None => names,
            Some(name) if names.contains(&name) => vec![name],
            Some(name) => {
                let none =
                    || Error::new(Code::NotFound, format!("rule `{name}`: `{target}` has no such rule"));
                return Ok(self.stop_following(table, &target, Some(&name)).await?.ok_or_else(none));
            }
        };
        let steered = self.remove_rules(table, &netns, &gone).await?;
        if is_all && let Some(others) = self.stop_following(table, &target, None).await? {
            // Those that could not come here.
            gone.extend(others.rules);
        }
        tracing::info!(netns = %netns.target, rules = gone.len(), steered, "detach");
        Ok(Ok(Detached {
            schema: SCHEMA,
            result: "detached".into(),
            target: netns.target.clone(),
            cookie: netns.cookie.0,
            rules: gone,
            steered,
            connections: netns.connections.active.load(Ordering::Relaxed),
        }))
    }

    /// Takes rules away, and stops steering the namespace when no other is left. Gives whether one is.
    pub(super) async fn remove_rules(
        &self,
        table: &mut Table,
        netns: &Arc<Namespace>,
        gone: &[RuleName],
    ) -> Result<bool, Error> {
        let is_left = self.take_out(table, netns, gone).await?;
        if !is_left {
            self.let_go(netns).await;
        }
        Ok(is_left)
    }

    /// The same, but for the end of steering, which is for the caller to see to.
    pub(super) async fn take_out(
        &self,
        table: &mut Table,
        netns: &Arc<Namespace>,
        gone: &[RuleName],
    ) -> Result<bool, Error> {
        let current = Arc::clone(&netns.published.load().current);
        let rest: Vec<_> =
            current.rules().iter().filter(|state| !gone.contains(&state.rule.name)).cloned().collect();
        if rest.is_empty() {
            table.remove(&netns.cookie);
            self.follows.forget(netns.cookie, gone);
            self.follows.look_at_namesakes(gone);
            return Ok(false);
        }
        let changed = Arc::clone(netns);
        blocking(move || {
            // Fewer rules can be more to compile: one before all others may have hidden how they overlap.
            let rest = RuleTable::new(rest, changed.instance.rule_sets()).map_err(|error| {
                let message = format!("`{}`: without what is to be detached: {error}", changed.target);
                Error::new(Code::Failed, message)
                    .with_hint("detach other rules first, or the whole namespace")
            })?;
            changed.publish(&Arc::new(rest)).map_err(|error| Error::chain(Code::Failed, &error))
        })
        .await?;
        self.follows.forget(netns.cookie, gone);
        self.follows.look_at_namesakes(gone);
        Ok(true)
    }

    /// Stops steering a namespace. What is relayed goes on, and is waited for elsewhere.
    pub(super) async fn let_go(&self, netns: &Arc<Namespace>) {
        netns.detach().await;
        self.selves.remove(netns.cookie);
        self.draining.push(netns);
    }
}

/// The answer, with rules that could not come into force beside those that were.
fn with(mut detached: Detached, set_aside: &[RuleName]) -> Detached {
    let others: Vec<_> = set_aside.iter().filter(|name| !detached.rules.contains(name)).cloned().collect();
    detached.rules.extend(others);
    detached
}

/// The answer where there were only rules that could not come into force.
fn never_made((target, at): (Target, Option<NetnsCookie>), rules: Vec<RuleName>, steered: bool) -> Detached {
    Detached {
        schema: SCHEMA,
        result: "detached".into(),
        target,
        cookie: at.map_or(0, |at| at.0),
        rules,
        steered,
        connections: 0,
    }
}
