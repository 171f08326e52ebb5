//! Puts the rules that follow a target, or wait for it, where that leads now, all of them in one switch: a part of a policy is another policy.

use std::{collections::BTreeMap, os::fd::AsFd as _, sync::Arc};

use futures_util::{StreamExt as _, stream};

use super::plan::{Due, FoundTarget, plan};
use crate::{
    config::{Container, RuleName, Target},
    control::{Caller, Error},
    dial::leads_through_process,
    intent::{Intended, Subject},
    kernel::attached_programs,
    locate::{ContainerId, OpenNetns},
    netns::NetnsCookie,
    reconcile::{
        commit::commit,
        destinations::{Missing, whereabouts},
        judge::Tells,
        leave::{leaving, refuse_rest, unwanted},
        part::{Plan, first},
        places::{cookie_of, may_be_meant, open},
        refused::Refused,
        standing::Standing,
        turn::turn_there,
        world::World,
    },
    steer::find_out,
    text::chain,
};

/// Destinations that are looked up at once.
const AT_ONCE: usize = 16;

/// Puts the rules of a target where it leads. Gives whether all are in force, or wait for it.
pub(super) async fn catch_up(world: &World, target: &Target) -> bool {
    // One that was found is meant whatever it is called by now.
    let mut groups: BTreeMap<Option<ContainerId>, Vec<Intended>> = BTreeMap::new();
    for (_, one) in world.intent().of(&Subject::from(target)) {
        let id = one.follows.as_ref().filter(|follows| follows.found).and_then(|follows| follows.id.clone());
        groups.entry(id).or_default().push(one.clone());
    }
    let mut is_settled = true;
    for (id, rules) in groups {
        is_settled &= put_where_it_is(world, target, id.as_ref(), rules).await;
    }
    is_settled
}

async fn put_where_it_is(
    world: &World,
    target: &Target,
    id: Option<&ContainerId>,
    rules: Vec<Intended>,
) -> bool {
    let found = target.container().zip(id);
    let by_id = found.map(|(one, id)| Container { engine: one.engine, name: id.to_string() });
    let named = by_id.map_or_else(|| target.clone(), Target::Container);
    let opened = match open(world, named, Caller::NOBODY).await {
        Ok(opened) => opened,
        Err(error) => {
            let why = chain(&error);
            for rule in &rules {
                world.intent().wait_because(target, Some(&rule.rule.name), &why);
            }
            if let Some((container, id)) = found
                && error.is_not_found()
            {
                // Its engine may have told of the end before it knew, or not at all.
                world.discovery.look_after(container.engine, Some(id));
            }
            return error.is_not_found();
        }
    };
    let mut looked = Looked { world, target, is_settled: true };
    looked.put(opened, rules).await;
    looked.is_settled
}

/// One look at where a target leads.
struct Looked<'a> {
    world: &'a World,
    target: &'a Target,
    is_settled: bool,
}

impl Looked<'_> {
    /// One rule's trouble is not another's.
    fn waits(&mut self, rule: &RuleName, why: &str) {
        self.is_settled = false;
        self.world.intent().wait_because(self.target, Some(rule), why);
        if let Some(suppressed) = self.world.news.said_stuck.pass() {
            let target = self.target;
            tracing::warn!(%target, %rule, error = why, suppressed, "a rule cannot follow its target");
        }
    }

    fn all_wait(&mut self, rules: &[RuleName], why: &str) {
        rules.iter().for_each(|rule| self.waits(rule, why));
    }

    async fn put(&mut self, opened: OpenNetns, mut rules: Vec<Intended>) {
        let target = self.target;
        if leads_through_process(target, &opened.processes) {
            // Nobody is there to say which process is meant by now.
            let why = Refused::Recycled(format!("target `{target}`")).to_string();
            return self.all_wait(&names(&rules), &why);
        }
        rules.retain(|one| match may_be_meant(target, &opened, one.host_netns) {
            Ok(()) => true,
            Err(error) => {
                self.waits(&one.rule.name, &error.to_string());
                false
            }
        });
        let (opened, at) = match cookie_of(opened, target).await {
            Ok(known) => known,
            Err(error) => {
                return self.all_wait(&names(&rules), &error.message);
            }
        };
        let id = opened.container.clone();
        // What is there already is not looked at any further, however often something is told.
        rules.retain(|one| !is_there(self.world, one, (at, id.as_ref())));
        let due = self.look_up(rules).await;
        if due.is_empty() {
            return;
        }
        let names: Vec<_> = due.iter().map(|one| one.rule.rule.name.clone()).collect();
        let found = match find_out(opened, target, None).await {
            Ok(found) => found,
            Err(error) => return self.all_wait(&names, &error.message),
        };
        let place = FoundTarget { target, found: Arc::new(found) };
        self.put_all(place, due).await;
    }

    /// Looks up where destinations are.
    async fn look_up(&mut self, rules: Vec<Intended>) -> Vec<Due> {
        let world = self.world;
        let looked_up = stream::iter(rules).map(|rule| async move {
            let whereabouts = whereabouts(world, &rule.rule, Caller::NOBODY, Missing::Down).await;
            (rule, whereabouts)
        });
        let looked_up: Vec<_> = looked_up.buffered(AT_ONCE).collect().await;
        let mut due = Vec::new();
        for (rule, whereabouts) in looked_up {
            match whereabouts {
                Ok(whereabouts) => due.push(Due { rule, whereabouts }),
                Err(error) => self.waits(&rule.rule.name, &error.message),
            }
        }
        due
    }

    /// Puts all of them, or those that can be where not all can.
    async fn put_all(&mut self, place: FoundTarget<'_>, due: Vec<Due>) {
        let names: Vec<_> = due.iter().map(|one| one.rule.rule.name.clone()).collect();
        let single = if due.len() > 1 { due.iter().map(Due::again).collect() } else { Vec::new() };
        let Err(error) = self.put_at_once(&place, due).await else { return };
        if single.is_empty() {
            return self.all_wait(&names, &error.message);
        }
        for one in single {
            let name = one.rule.rule.name.clone();
            if let Err(error) = self.put_at_once(&place, vec![one]).await {
                self.waits(&name, &error.message);
            }
        }
    }

    async fn put_at_once(&mut self, place: &FoundTarget<'_>, due: Vec<Due>) -> Result<(), Error> {
        let (world, target) = (self.world, self.target);
        let at = place.found.cookie;
        let _turn = turn_there(world, at, Some(target)).await;
        world.goes_on()?;
        let programs = attached_programs(place.found.fd.as_fd());
        let programs = programs.unwrap_or_else(|_| place.found.programs.clone());
        let standing = world.steered.get(at).as_ref().map(Standing::from);
        let tells = Tells::from(&*world.maker.kernel);
        let planned = plan(standing.as_ref(), &world.intent(), place, (&programs, tells), due);
        let mut parts: Vec<_> = planned.part.into_iter().collect();
        // Where it was may live on, by another container that shares it.
        let left = unwanted(&world.intent(), &planned.edit, planned.left);
        parts.extend(leaving(world, left));
        let plan = Plan { parts, edit: planned.edit };
        let compiled = plan.compile(&world.maker.kernel, |part, error| match &part.new[..] {
            [] => refuse_rest(part, error),
            [one] => Refused::compile(&one.rule.name, error),
            _ => Refused::CompileAll { target: part.target.clone(), why: error.to_string() },
        });
        let plan = compiled.await.map_err(first)?;
        commit(world, "attach", plan).await.map_err(|undone| undone.error)?;
        for (rule, why) in planned.waits {
            self.waits(&rule, &Error::from(why).message);
        }
        for one in planned.puts {
            if let Some(before) = one.was {
                tracing::warn!(%target, rule = %one.name, %before, now = ?place.found.container.as_ref().map(ToString::to_string), "that name is another container's now; the rule follows the name");
            }
            tracing::info!(netns = %target, cookie = at.0, rule = %one.name, result = ?one.result, "attach");
        }
        Ok(())
    }
}

fn names(rules: &[Intended]) -> Vec<RuleName> {
    rules.iter().map(|one| one.rule.name.clone()).collect()
}

/// Whether a rule is in force where its target leads.
fn is_there(world: &World, one: &Intended, (at, id): (NetnsCookie, Option<&ContainerId>)) -> bool {
    if one.at != Some(at) || one.id() != id {
        return false;
    }
    let Some(netns) = world.steered.get(at) else { return false };
    let current = Arc::clone(&netns.published.load().current);
    current.get(&one.rule.name).is_some_and(|state| state.rule.is_like(&one.rule))
}
