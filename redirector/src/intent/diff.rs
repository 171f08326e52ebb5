//! What there is against what shall be.

use std::collections::HashMap;

use crate::config::{Rule, RuleName, Target};

/// Rules that a file takes over, beside its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prune {
    /// None: those of `attach` stay as they are.
    No,
    /// Those of `attach` that the file does not have go, and those that it has otherwise are changed.
    Api,
}

/// Whose a rule is, for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The file's own.
    Own,
    /// Another set's.
    Other,
    /// Of `attach`.
    Api,
    /// Of a program.
    Lease,
}

/// A rule that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Have<'a> {
    /// The rule.
    pub(crate) rule: &'a Rule,
    /// Whose it is.
    pub(crate) owner: Owner,
    /// The targets that it follows: a container by each of its names.
    pub(crate) follows: &'a [Target],
}

/// A rule that shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want<'a> {
    /// The rule.
    pub(crate) rule: &'a Rule,
    /// The targets that it is to follow: several where they lead to one namespace.
    pub(crate) follows: &'a [Target],
}

/// How to get from one to the other. Numbers are those of [`Have`] and [`Want`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Is there as it shall be.
    pub(crate) keep: Vec<(usize, usize)>,
    /// Is there, and shall be otherwise.
    pub(crate) change: Vec<(usize, usize)>,
    /// Is not there.
    pub(crate) add: Vec<usize>,
    /// Shall not be there.
    pub(crate) remove: Vec<usize>,
    /// Is somebody else's, and stays.
    pub(crate) leave: Vec<usize>,
    /// Is another set's, and as it shall be.
    pub(crate) shared: Vec<(usize, usize)>,
    /// Somebody else's rule has the name.
    pub(crate) clash: Vec<(usize, usize)>,
}

/// Compares the rules of one namespace with those that a file wants there.
pub(crate) fn diff(have: &[Have<'_>], want: &[Want<'_>], prune: Prune) -> Diff {
    let mut wanted: HashMap<&RuleName, usize> =
        want.iter().enumerate().map(|(index, want)| (&want.rule.name, index)).collect();
    let mut diff = Diff::default();
    for (index, have) in have.iter().enumerate() {
        let owned = match have.owner {
            Owner::Own => true,
            Owner::Api => prune == Prune::Api,
            Owner::Other | Owner::Lease => false,
        };
        let Some(wanted) = wanted.remove(&have.rule.name) else {
            if owned { &mut diff.remove } else { &mut diff.leave }.push(index);
            continue;
        };
        let is_same = have.is_as(&want[wanted]);
        let list = match have.owner {
            Owner::Lease => &mut diff.clash,
            Owner::Other => {
                if is_same {
                    &mut diff.shared
                } else {
                    &mut diff.clash
                }
            }
            // Whoever made it: the file says the same, and has it from now on.
            _ if is_same => &mut diff.keep,
            _ if owned => &mut diff.change,
            _ => &mut diff.clash,
        };
        list.push((index, wanted));
    }
    diff.add = wanted.into_values().collect();
    diff.add.sort_unstable();
    diff
}

impl Have<'_> {
    fn is_as(&self, want: &Want<'_>) -> bool {
        let follows_the_same = self.follows.len() == want.follows.len()
            && self.follows.iter().all(|target| want.follows.contains(target));
        follows_the_same && self.rule.is_like(want.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuleSpec;

    fn rule(name: &str, port: u16) -> Rule {
        let spec = serde_json::json!({"match": [format!("tcp:{port}")], "to": ["pass"]});
        serde_json::from_value::<RuleSpec>(spec).unwrap().named(name.parse().unwrap())
    }

    /// Each line: of whom it is, with which port, and what becomes of it when the file wants `r` with port 80.
    #[test]
    fn a_file_changes_its_own_rules_and_takes_over_only_what_says_the_same() {
        let wanted = rule("r", 80);
        for (owner, port, prune, expected) in [
            (Owner::Own, 80, Prune::No, "keep"),
            (Owner::Other, 80, Prune::No, "shared"),
            (Owner::Other, 81, Prune::No, "clash"),
            (Owner::Other, 81, Prune::Api, "clash"),
            (Owner::Own, 81, Prune::No, "change"),
            (Owner::Api, 80, Prune::No, "keep"),
            (Owner::Api, 81, Prune::No, "clash"),
            (Owner::Api, 81, Prune::Api, "change"),
            (Owner::Lease, 80, Prune::No, "clash"),
            (Owner::Lease, 80, Prune::Api, "clash"),
        ] {
            let there = rule("r", port);
            let found = diff(
                &[Have { rule: &there, owner, follows: &[] }],
                &[Want { rule: &wanted, follows: &[] }],
                prune,
            );
            let both = vec![(0, 0)];
            let expected = match expected {
                "keep" => Diff { keep: both, ..Diff::default() },
                "shared" => Diff { shared: both, ..Diff::default() },
                "change" => Diff { change: both, ..Diff::default() },
                _ => Diff { clash: both, ..Diff::default() },
            };
            assert_eq!(found, expected, "{owner:?} {port} {prune:?}");
        }
    }

    #[test]
    fn what_a_file_does_not_have_goes_if_it_is_the_files() {
        let (one, two, three, new) = (rule("a", 1), rule("b", 2), rule("c", 3), rule("d", 4));
        let other = rule("e", 5);
        let have = [(&one, Owner::Own), (&two, Owner::Api), (&three, Owner::Lease), (&other, Owner::Other)];
        let have = have.map(|(rule, owner)| Have { rule, owner, follows: &[] });
        let want = [Want { rule: &new, follows: &[] }];
        let expected = Diff { add: vec![0], remove: vec![0], leave: vec![1, 2, 3], ..Diff::default() };
        assert_eq!(diff(&have, &want, Prune::No), expected);
        let expected = Diff { add: vec![0], remove: vec![0, 1], leave: vec![2, 3], ..Diff::default() };
        assert_eq!(diff(&have, &want, Prune::Api), expected);
        assert_eq!(diff(&[], &[], Prune::No), Diff::default());
    }

    #[test]
    fn to_follow_a_target_is_something_else_than_to_stay() {
        let there = rule("r", 80);
        let [web, side] = ["docker:web", "netns:side"].map(|text| text.parse::<Target>().unwrap());
        let (web, both) = (vec![web.clone()], vec![web, side]);
        for (follows, wanted, is_same) in [
            (&vec![], &vec![], true),
            (&vec![], &web, false),
            (&web, &web, true),
            (&web, &vec![], false),
            (&web, &both, false),
            (&both, &both, true),
            (&both, &web, false),
        ] {
            let have = [Have { rule: &there, owner: Owner::Own, follows }];
            let found = diff(&have, &[Want { rule: &there, follows: wanted }], Prune::No);
            assert_eq!(!found.keep.is_empty(), is_same);
            assert_eq!(!found.change.is_empty(), !is_same);
        }
    }
}
