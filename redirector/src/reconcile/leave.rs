//! Rules that nobody wants any more where they are.

use std::collections::BTreeMap;

use super::{
    commit::commit,
    part::{Part, Plan, first},
    refused::Refused,
    standing::Standing,
    world::World,
};
use crate::{config::RuleName, control::Error, matcher::CompileError, netns::NetnsCookie};

/// Takes rules out of namespaces, in all of them or in none.
///
/// # Errors
///
/// All are as they were.
pub(crate) async fn take_out(world: &World, plan: Plan) -> Result<(), Error> {
    // Fewer rules can be more to compile: one before all others may have hidden how they overlap.
    let refuse = |part: &Part, error: &CompileError| Refused::CompileRest {
        target: part.target.clone(),
        why: error.to_string(),
    };
    let compiled = plan.compile(&world.maker.kernel, refuse).await;
    let plan = compiled.map_err(first)?;
    commit(world, "detach", plan).await.map_err(|undone| undone.error)
}

/// Takes rules that have followed a container elsewhere out of the namespaces where they were, if nobody else wants them there.
/// Who calls has the turn of those. What cannot be taken out is said, and stays.
pub(crate) async fn leave(world: &World, rules: impl IntoIterator<Item = (NetnsCookie, RuleName)>) {
    let mut gone: BTreeMap<NetnsCookie, Vec<RuleName>> = BTreeMap::new();
    {
        let store = world.intent();
        for (at, name) in rules {
            if store.at(at, &name).next().is_none() {
                gone.entry(at).or_default().push(name);
            }
        }
    }
    for (at, names) in gone {
        let Some(netns) = world.steered.get(at) else { continue };
        let part = Part::without(&Standing::from(&netns), &names);
        if !part.is_other() {
            continue;
        }
        if let Err(error) = take_out(world, Plan { parts: vec![part], ..Plan::default() }).await {
            tracing::error!(netns = %netns.target, %error, "take rules away where they were");
        }
    }
}
