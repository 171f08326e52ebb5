//! Rules that nobody wants any more where they are.

use std::collections::BTreeMap;

use super::{
    commit::commit,
    part::{Part, Plan, first},
    refused::Refused,
    standing::Standing,
    world::World,
};
use crate::{
    config::RuleName,
    control::Error,
    intent::{Edit, Store},
    matcher::CompileError,
    netns::NetnsCookie,
};

/// Takes rules out of namespaces, in all of them or in none.
///
/// # Errors
///
/// All are as they were.
pub(crate) async fn take_out(world: &World, plan: Plan) -> Result<(), Error> {
    let compiled = plan.compile(&world.maker.kernel, refuse_rest).await;
    let plan = compiled.map_err(first)?;
    commit(world, "detach", plan).await.map_err(|undone| undone.error)
}

/// That the rules that are left cannot be compiled. Fewer rules can be more to compile: one before all others may have hidden how
/// they overlap.
pub(crate) fn refuse_rest(part: &Part, error: &CompileError) -> Refused {
    Refused::CompileRest { target: part.target.clone(), why: error.to_string() }
}

/// What becomes of namespaces where rules were that are wanted elsewhere now, or nowhere, if nobody else wants them there. Who calls
/// has the turn of those.
pub(crate) fn leaving(
    world: &World,
    intent: &Store,
    edit: &Edit,
    rules: impl IntoIterator<Item = (NetnsCookie, RuleName)>,
) -> Vec<Part> {
    let mut gone: BTreeMap<NetnsCookie, Vec<RuleName>> = BTreeMap::new();
    for (at, name) in rules.into_iter().filter(|(at, name)| intent.is_left(*at, name, edit)) {
        gone.entry(at).or_default().push(name);
    }
    let without = |(at, names): (NetnsCookie, Vec<RuleName>)| {
        world.steered.get(at).map(|netns| Part::without(&Standing::from(&netns), &names))
    };
    gone.into_iter().filter_map(without).collect()
}
