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

/// What becomes of namespaces that lose these rules. Who calls has the turn of those. It asks the kernel: nobody may hold what is
/// wanted meanwhile.
pub(crate) fn leaving(world: &World, rules: BTreeMap<NetnsCookie, Vec<RuleName>>) -> Vec<Part> {
    let without = |(at, names): (NetnsCookie, Vec<RuleName>)| {
        world.steered.get(at).map(|netns| Part::without(&Standing::from(&netns), &names))
    };
    rules.into_iter().filter_map(without).collect()
}

/// Those of the rules, wanted elsewhere now or nowhere, that nobody wants where they are once this is changed.
pub(crate) fn unwanted(
    store: &Store,
    edit: &Edit,
    rules: impl IntoIterator<Item = (NetnsCookie, RuleName)>,
) -> BTreeMap<NetnsCookie, Vec<RuleName>> {
    let mut gone: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (at, name) in rules.into_iter().filter(|(at, name)| store.is_left(*at, name, edit)) {
        gone.entry(at).or_default().push(name);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::testing::{check, name, store};

    /// Each line: what is wanted, which rules have gone elsewhere, those that go.
    #[test]
    fn a_rule_goes_from_where_it_was_unless_somebody_wants_it_there() {
        let cases = [
            ["", "7/a", "7/a"],
            ["8 a 80 api docker:web=1", "7/a", "7/a"],
            ["7 a 80 api docker:side=2; 8 a 80 api docker:web=1", "7/a", ""],
            ["7 a 80 api", "7/a", ""],
            ["7 b 81 api", "7/a 7/b 8/a", "7/a 8/a"],
            ["- a 80 api docker:web=1", "7/a", "7/a"],
            ["7 a 80 api", "", ""],
        ];
        check(&cases, |case| {
            let rules = case[1].split_whitespace().map(|one| {
                let (at, named) = one.split_once('/').unwrap();
                (NetnsCookie(at.parse().unwrap()), name(named))
            });
            let gone = unwanted(&store(case[0]), &Edit::default(), rules);
            let each =
                gone.iter().flat_map(|(at, names)| names.iter().map(move |name| format!("{at}/{name}")));
            each.collect::<Vec<_>>().join(" ")
        });
    }
}
