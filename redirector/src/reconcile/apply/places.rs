//! Which namespaces a file means.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};

use super::{
    request::Request,
    set_aside::EntryAside,
    wanted::{Waits, Wanted, flaw, refusal},
};
use crate::{
    config::Target,
    control::{Caller, Refusal},
    dial::leads_through_process,
    intent::HostNetns,
    locate::{ContainerId, TargetError},
    netns::NetnsCookie,
    reconcile::{
        places::{may_be_meant, open_again, open_unless_steered},
        refused::Refused,
        world::World,
    },
    steer::{Found, find_out},
    text::chain,
};

/// What is opened or looked up at once.
pub(super) const AT_ONCE: usize = 16;

/// Where one entry leads.
#[derive(Debug)]
pub(super) enum Led {
    There(Arc<Found>),
    Waits(Waits),
    Nowhere(Refusal),
}

/// A namespace that is there.
#[derive(Clone, Debug)]
pub(super) struct There {
    /// As the first that means it has it.
    pub(super) target: Target,
    pub(super) found: Arc<Found>,
    /// Those that mean it, with the container that each has led to.
    pub(super) entries: Vec<(usize, Option<ContainerId>)>,
}

/// Where the entries of a file lead, as far as they are not left out.
#[derive(Debug, Default)]
pub(super) struct Located {
    pub(super) there: Vec<There>,
    pub(super) waits: Vec<Waits>,
    /// Namespaces that stay as they are, because an entry that means them is set aside.
    pub(super) aside: Vec<There>,
    /// What leads nowhere.
    pub(super) refused: Vec<Refusal>,
}

/// Opens what each entry names and looks at it. Changes nothing.
pub(super) async fn look_at_all(world: &World, caller: Caller, request: &Request) -> Vec<Led> {
    let looks = stream::iter(0..request.namespaces.len()).map(|entry| async move {
        look_at(world, caller, entry, request).await.unwrap_or_else(Led::Nowhere)
    });
    looks.buffered(AT_ONCE).collect().await
}

async fn look_at(world: &World, caller: Caller, entry: usize, request: &Request) -> Result<Led, Refusal> {
    let spec = &request.namespaces[entry];
    let target = &spec.target;
    if let Some(waits) = request.waits(entry) {
        return Ok(Led::Waits(waits));
    }
    // One that was found is meant whatever it is called by now.
    let by_id = request.by_id(entry);
    let opened = match open_unless_steered(world, by_id.as_ref().unwrap_or(target), caller).await {
        Ok(Some(opened)) => opened,
        Ok(None) => open_again(world, target).map_err(|error| flaw(entry, None, error))?,
        Err(error) => {
            if can_wait(world, &error, (entry, request)) {
                let seen = match &error {
                    TargetError::NotRunning { id, .. } => Some(id),
                    _ => None,
                };
                let (id, why) = (request.discovered(entry).or(seen).cloned(), chain(&error));
                let (target, is_unknown) = (target.clone(), !error.is_not_found());
                return Ok(Led::Waits(Waits { entry, target, id, why, is_unknown }));
            }
            let is_flaw = error.is_wrong() || (error.is_not_found() && !request.waits_for_missing());
            let refuse = if is_flaw { flaw } else { refusal };
            return Err(refuse(entry, None, error.into()));
        }
    };
    let host_netns = if spec.host_netns { HostNetns::Allowed } else { HostNetns::Refused };
    may_be_meant(target, &opened, host_netns).map_err(|error| flaw(entry, None, error.into()))?;
    let is_of_process = leads_through_process(target, &opened.processes);
    let found = find_out(opened, target, None).await.map_err(|error| refusal(entry, None, error))?;
    // Who wrote the file is not there to say which process is meant by now; a cookie is never another namespace's.
    if request.is_again() && is_of_process && request.was_at(entry) != Some(found.cookie) {
        return Err(refusal(entry, None, Refused::Recycled(format!("target `{target}`")).into()));
    }
    Ok(Led::There(Arc::new(found)))
}

/// Whether the rules of an entry wait for a target that could not be opened.
fn can_wait(world: &World, error: &TargetError, (entry, request): (usize, &Request)) -> bool {
    let spec = &request.namespaces[entry];
    if !error.is_missing() || !spec.target.can_be_followed() {
        return false;
    }
    let stops = matches!(error, TargetError::NotRunning { .. }) && spec.follows();
    // What waits already, or follows the target, goes on doing so.
    let is_known = || {
        let intent = world.intent();
        let mut rules = spec.rules();
        rules.all(|rule| intent.followed(&spec.target, &rule.name).is_some_and(|one| *one.rule == rule))
    };
    stops || request.waits_for_missing() || is_known()
}

impl Located {
    /// What a look has found, for what of the request is not left out.
    pub(super) fn of(looked: &[Led], request: &Request) -> Self {
        let mut places = Self::default();
        let mut known: HashMap<NetnsCookie, usize> = HashMap::new();
        for (entry, led) in looked.iter().enumerate() {
            if let Some(waits) = request.waits(entry) {
                places.waits.push(waits);
                continue;
            }
            match led {
                Led::Waits(waits) => places.waits.push(waits.clone()),
                Led::There(found) => {
                    let index = *known.entry(found.cookie).or_insert_with(|| {
                        let target = request.namespaces[entry].target.clone();
                        places.there.push(There { target, found: Arc::clone(found), entries: Vec::new() });
                        places.there.len() - 1
                    });
                    places.there[index].entries.push((entry, found.container.clone()));
                }
                Led::Nowhere(_) if request.aside().contains_key(&entry) => {}
                Led::Nowhere(refusal) => places.refused.push(refusal.clone()),
            }
        }
        let is_aside =
            |there: &mut There| there.entries.iter().any(|(entry, _)| request.aside().contains_key(entry));
        places.aside = places.there.extract_if(.., is_aside).collect();
        places
    }

    /// What is left out of the file, entry by entry: those that could not be made, and others that mean the same namespace.
    pub(super) fn left_out(&self, request: &Request) -> BTreeMap<usize, EntryAside> {
        let aside = |entry: usize, why: &str, at| {
            EntryAside::new(
                (request.namespaces[entry].clone(), request.set_of(entry).unwrap_or_default()),
                why.to_owned(),
                at,
            )
        };
        let unopened = request.aside().iter();
        let unopened =
            unopened.map(|(entry, why)| (*entry, aside(*entry, &why.message, request.was_at(*entry))));
        let mut all: BTreeMap<_, _> = unopened.collect();
        for there in &self.aside {
            let why = there.entries.iter().find_map(|(entry, _)| request.aside().get(entry));
            let Some(why) = why.map(|why| &why.message) else { continue };
            let of_file = there.entries.iter().filter(|(entry, _)| request.discovered(*entry).is_none());
            all.extend(of_file.map(|(entry, _)| (*entry, aside(*entry, why, Some(there.found.cookie)))));
        }
        all
    }

    /// The targets whose rules stay as they are, because they are set aside.
    pub(super) fn staying(&self, request: &Request) -> HashSet<Target> {
        let with_these = self.aside.iter().flat_map(|there| there.entries.iter().map(|(entry, _)| *entry));
        let entries = request.aside().keys().copied().chain(with_these);
        entries.map(|entry| request.namespaces[entry].target.clone()).collect()
    }
}

impl There {
    /// What is wanted there.
    pub(super) fn wanted(&self, request: &Request) -> impl Iterator<Item = Wanted> {
        self.entries.iter().flat_map(|(entry, id)| request.wanted_by(*entry, id.as_ref()))
    }
}

#[cfg(test)]
mod tests;
