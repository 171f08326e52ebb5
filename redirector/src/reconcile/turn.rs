//! The turn of all that a change is about.

use std::collections::BTreeSet;

use super::world::World;
use crate::{
    config::Target,
    intent::{Store, Subject},
    netns::NetnsCookie,
    steer::{Scope, Turn},
};

/// Waits for the turn of what a change is about, which depends on what is wanted, and that can become other meanwhile.
pub(crate) async fn turn_of(world: &World, about: impl Fn(&Store) -> BTreeSet<Subject>) -> Turn {
    loop {
        let subjects = about(&world.intent());
        let turn = world.turns.take(Scope::These(subjects.clone())).await;
        if about(&world.intent()).is_subset(&subjects) {
            return turn;
        }
    }
}

/// Targets, and every namespace where a rule for one of them is.
pub(crate) fn with_places<'a>(
    store: &Store,
    targets: impl IntoIterator<Item = &'a Target>,
) -> BTreeSet<Subject> {
    let mut all = BTreeSet::new();
    for target in targets {
        let subject = Subject::from(target);
        all.extend(store.of(&subject).filter_map(|(_, one)| one.at).map(Subject::Netns));
        all.insert(subject);
    }
    all
}

/// One namespace, and what is wanted for the target that leads there.
pub(crate) async fn turn_there(world: &World, at: NetnsCookie, target: Option<&Target>) -> Turn {
    turn_of(world, |store| {
        let mut about = with_places(store, target);
        about.insert(Subject::Netns(at));
        about
    })
    .await
}
