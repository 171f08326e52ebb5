//! Entries of a file that mean one namespace. Pure.

use std::collections::HashMap;

use super::wanted::{Wanted, flaw};
use crate::{
    config::{RuleName, Target},
    control::Refusal,
    reconcile::refused::Refused,
};

/// Entries that mean one namespace may want the same there, each for its container: that is one rule. Gives the rules, each
/// once, and what is wrong with others.
pub(super) fn without_twins(
    target: &Target,
    wanted: impl Iterator<Item = Wanted>,
) -> (Vec<Wanted>, Vec<Refusal>) {
    let mut known: HashMap<RuleName, usize> = HashMap::new();
    let (mut kept, mut refused) = (Vec::<Wanted>::new(), Vec::new());
    for mut one in wanted {
        let Some(index) = known.get(&one.rule.name) else {
            known.insert(one.rule.name.clone(), kept.len());
            kept.push(one);
            continue;
        };
        let first = &mut kept[*index];
        // What ends with a found container must not take along what the file has there in any case.
        let is_bound = |wanted: &Wanted| wanted.follows.iter().all(|follower| follower.discovered);
        let is_free = first.follows.is_empty() && !one.follows.is_empty() && is_bound(&one);
        if first.rule.is_like(&one.rule) && !is_free {
            // What names a container itself comes before what has found it.
            one.follows.retain(|new| first.targets().all(|known| *known != new.target));
            first.follows.append(&mut one.follows);
            continue;
        }
        let (target, rule) = (target.clone(), one.rule.name.clone());
        let twin = if is_free { Refused::FilesOwn { target, rule } } else { Refused::Twin { target, rule } };
        refused.push(flaw(one.at.0, Some(one.at.1), twin.into()));
    }
    (kept, refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        intent::testing::{check, says, target},
        reconcile::apply::testing::File,
    };

    /// Each line: entries that mean one namespace; the rules that come of them, each with whom it follows; what is wrong.
    #[test]
    fn what_several_want_the_same_is_one_rule_for_all_of_them() {
        let cases = [
            ["netns:n@7 a 80, b 81", "a 80, b 81 | "],
            ["netns:n@7 a 80; netns:m@7 a 80", "a 80 | "],
            ["netns:n@7 a 80; netns:m@7 a 81", "a 80 | 1.0 Twin"],
            ["netns:n@7 a 80; netns:m@7 a 81, b 82; netns:k@7 a 83", "a 80, b 82 | 1.0 Twin 2.0 Twin"],
            ["docker:x=1@7 a 80; docker:y=2@7 a 80", "a 80 docker:x docker:y | "],
            ["docker:x=1@7 a 80; docker:y=2@7 a 80; docker:z=3@7 a 80", "a 80 docker:x docker:y docker:z | "],
            ["docker:x=1@7 a 80; docker:x=1@7 a 80", "a 80 docker:x | "],
            ["docker:x=1@7 a 80; docker:y=2@7 a 81", "a 80 docker:x | 1.0 Twin"],
            // What the file has for a namespace as well follows the container that it names.
            ["netns:n@7 a 80; docker:x=1@7 a 80", "a 80 docker:x | "],
            ["docker:x=1@7 a 80; netns:n@7 a 80", "a 80 docker:x | "],
            ["stays docker:x=1@7 a 80; docker:x=1@7 a 80", "a 80 docker:x | "],
            // But nothing of it ends with a container that was found.
            ["netns:n@7 a 80; found docker:x=1@7 a 80", "a 80 | 1.0 FilesOwn"],
            ["netns:n@7 a 80; found docker:x=1@7 a 81", "a 80 | 1.0 FilesOwn"],
            ["docker:x=1@7 a 80; found docker:y=2@7 a 80", "a 80 docker:x docker:y | "],
            ["docker:x=1@7 a 80; found docker:y=2@7 a 81", "a 80 docker:x | 1.0 Twin"],
            ["found docker:y=1@7 a 80; found docker:z=2@7 a 80", "a 80 docker:y docker:z | "],
        ];
        let run = |text: &str| {
            let request = File::of(text, "").request;
            let wanted = (0..request.namespaces.len()).flat_map(|entry| request.wanted_by(entry, None));
            let (kept, refused) = without_twins(&target("netns:n"), wanted);
            let kept = kept.iter().map(|one| {
                let follows = one.targets().map(|target| format!(" {target}"));
                format!("{} {}{}", one.rule.name, says(&one.rule), follows.collect::<String>())
            });
            let refused = refused.iter().map(|problem| {
                assert!(problem.is_flaw && problem.hint.is_some());
                let why = if problem.message.contains("the file has") { "FilesOwn" } else { "Twin" };
                format!("{}.{} {why}", problem.namespace, problem.rule.unwrap())
            });
            format!("{} | {}", kept.collect::<Vec<_>>().join(", "), refused.collect::<Vec<_>>().join(" "))
        };
        check(&cases, |case| run(case[0]));
    }
}
