//! What a file changes, compared with what is there.

use std::{
    collections::{HashMap, HashSet},
    os::fd::AsFd as _,
    sync::Arc,
};

use redirector_ebpf::{CONSUMER_RELAY, MAX_RULES};

use super::{
    At, Follower, Places, Request, There, Unplanned, Waits, Wanted,
    part::{Part, Plan},
    refusal, refuse_if_any,
};
use crate::{
    config::{Container, Diff, Have, Origin, RuleName, Target, Want, diff},
    control::{self, Change, Code, Error, Refusal},
    dial::Whereabouts,
    kernel::attached_programs,
    netns::NetnsCookie,
    supervisor::{
        Supervisor, Table,
        attach::{Found, foreign_programs, warnings},
        follow::Followed,
        rules::RuleState,
    },
};

/// Compares, under the lock.
pub(super) struct Planner<'a> {
    supervisor: &'a Supervisor,
    pub(super) table: &'a Table,
    pub(super) request: &'a Request,
    /// The rules that follow, in force or not.
    pub(super) followed: HashMap<(Container, RuleName), Followed>,
    /// Who follows with the rule of this name in this namespace.
    owners: HashMap<(NetnsCookie, RuleName), Vec<Container>>,
    pub(super) refused: Vec<Refusal>,
    /// A rule whose destination was not looked up, because it was there then.
    outdated: Option<RuleName>,
    pub(super) plan: Plan,
    /// Rules that stay where they are although they wait.
    pub(super) left: HashSet<(NetnsCookie, RuleName)>,
}

pub(super) fn state(rule: crate::config::RuleSpec, follows: Option<&Container>) -> control::RuleState {
    control::RuleState { rule, follows: follows.cloned().map(Target::Container) }
}

impl There {
    /// What is wanted there.
    fn wanted(&self, request: &Request) -> impl Iterator<Item = Wanted> {
        self.entries.iter().flat_map(|(entry, id)| request.wanted_by(*entry, id.as_ref()))
    }
}

impl Wanted {
    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.follows.iter().map(|follower| &follower.container)
    }

    fn container(&self) -> Option<&Container> {
        self.containers().next()
    }
}

impl<'a> Planner<'a> {
    pub(super) fn new(supervisor: &'a Supervisor, table: &'a Table, request: &'a Request) -> Self {
        let mut owners: HashMap<_, Vec<_>> = HashMap::new();
        let mut known = HashMap::new();
        for (container, followed) in supervisor.follows.all() {
            let Some(name) = followed.spec.name.clone() else { continue };
            if let Some(at) = followed.at {
                owners.entry((at, name.clone())).or_default().push(container.clone());
            }
            known.insert((container, name), followed);
        }
        let followed = known;
        Self {
            supervisor,
            table,
            request,
            followed,
            owners,
            refused: Vec::new(),
            outdated: None,
            plan: Plan::default(),
            left: HashSet::new(),
        }
    }

    pub(super) fn owners(&self, at: NetnsCookie, name: &RuleName) -> &[Container] {
        self.owners.get(&(at, name.clone())).map_or(&[], Vec::as_slice)
    }

    /// The rules that a namespace shall have and has not like this: those whose destinations have to be looked up.
    pub(super) fn unknown(&self, there: &There) -> Vec<Wanted> {
        let netns = self.table.get(&there.found.cookie);
        let current = netns.map(|netns| Arc::clone(&netns.published.load().current));
        let by_name: HashMap<_, _> = current
            .iter()
            .flat_map(|table| table.rules())
            .map(|state| (&state.rule.name, &state.rule))
            .collect();
        let wanted = there.wanted(self.request);
        wanted
            .filter(|one| by_name.get(&one.rule.name).is_none_or(|there| !there.is_like(&one.rule)))
            .collect()
    }

    /// Compares everything.
    pub(super) fn plan(
        mut self,
        Places { there, waits, aside }: Places,
        mut whereabouts: HashMap<At, Whereabouts>,
        refused: Vec<Refusal>,
    ) -> Result<Plan, Unplanned> {
        self.refused = refused;
        let of_entries = waits.into_iter().flat_map(|waits| {
            let rules: Vec<_> = self.request.wanted_by(waits.entry, None).collect();
            rules.into_iter().map(move |rule| (waits.clone(), rule))
        });
        let mut waiting: Vec<_> = of_entries.collect();
        waiting.extend(self.request.waiting_rules());
        let mut looked_at: HashSet<_> = aside.iter().map(|there| there.found.cookie).collect();
        let stay = self.set_aside(&aside);
        let mut places: HashSet<(Container, RuleName)> = HashSet::new();
        for there in there {
            looked_at.insert(there.found.cookie);
            let wanted = self.without_twins(&there.target, there.wanted(self.request));
            for one in &wanted {
                let name = &one.rule.name;
                places.extend(one.follows.iter().map(|follower| (follower.container.clone(), name.clone())));
            }
            for one in &wanted {
                self.refuse_to_take_over(Some(there.found.cookie), one);
            }
            self.compare(there, (&wanted, &waiting), &mut whereabouts);
        }
        let mut others: Vec<_> =
            self.table.values().filter(|netns| !looked_at.contains(&netns.cookie)).collect();
        others.retain(|netns| !self.request.is_again() && !stay.contains(&netns.target));
        others.sort_by_key(|netns| (netns.target.to_string(), netns.cookie.0));
        for netns in others {
            self.compare_unnamed(netns, &waiting);
        }
        self.compare_waiting(waiting, (&mut places, &stay));
        refuse_if_any(self.refused)?;
        if let Some(name) = self.outdated {
            let message = format!("rule `{name}`: it was changed meanwhile by somebody else");
            let error = Error::new(Code::Failed, message).with_hint("try again");
            return Err(Unplanned::Outdated(error));
        }
        Ok(self.plan)
    }

    /// One namespace that the file means.
    fn compare(
        &mut self,
        there: There,
        (wanted, waiting): (&[Wanted], &[(Waits, Wanted)]),
        whereabouts: &mut HashMap<At, Whereabouts>,
    ) {
        let There { target, mut found, entries } = there;
        let netns = self.table.get(&found.cookie).cloned();
        let current = netns.iter().flat_map(|netns| netns.published.load().current.rules().to_vec());
        let current: Vec<_> = current.collect();
        let (mut part_diff, cookie) = (self.diff(found.cookie, &current, wanted), found.cookie);
        let stay = part_diff.remove.extract_if(.., |have| self.stays(cookie, &current[*have], waiting));
        part_diff.leave.extend(stay.collect::<Vec<_>>());
        if !self.request.replaces(cookie) {
            part_diff.leave.append(&mut part_diff.remove);
        }
        self.note_left(cookie, part_diff.leave.iter().map(|have| &*current[*have]), waiting);
        for (have, want) in &part_diff.clash {
            self.refuse_clash(&target, &current[*have], &wanted[*want]);
        }
        let is_other =
            !(part_diff.change.is_empty() && part_diff.add.is_empty() && part_diff.remove.is_empty());
        if is_other && let Ok(programs) = attached_programs(found.fd.as_fd()) {
            // Ours may have been replaced since they were looked at.
            found.programs = programs;
        }
        // Those that were found by a label come last, and are to blame first.
        let last_found =
            entries.iter().map(|(entry, _)| *entry).rfind(|entry| self.request.discovered(*entry).is_some());
        let mut part = Part {
            foreign: is_other.then(|| foreign_programs(netns.as_deref(), &found)),
            target,
            entry: last_found.or(entries.first().map(|(entry, _)| *entry)),
            blamed: last_found.or(entries.first().map(|(entry, _)| *entry)),
            is_other,
            rules: Vec::new(),
            table: None,
            new: Vec::new(),
            kept: Vec::new(),
            reset: (Vec::new(), Vec::new()),
            netns,
            found: None,
        };
        let Diff { keep, change, add, remove, leave, clash: _ } = part_diff;
        part.rules.extend(leave.into_iter().map(|have| Arc::clone(&current[have])));
        for (have, want) in keep {
            self.plan.unchanged += 1;
            self.follow(&wanted[want], &found);
            part.keep(Arc::clone(&current[have]));
        }
        let removed = remove.iter().map(|have| current[*have].index).collect::<Vec<_>>();
        let mut indices = free_indices(&current, removed);
        for (have, want) in change {
            let (there, one) = (&current[have], &wanted[want]);
            let before = state(there.rule.to_spec(), self.owners(cookie, &there.rule.name).first());
            let after = state(one.rule.to_spec(), one.container());
            self.change(&part.target, cookie, Some(before), Some(after));
            self.follow(one, &found);
            if there.rule.is_like(&one.rule) {
                part.keep(Arc::clone(there));
                continue;
            }
            let made = self.make(&part, (&found, one), there.index, whereabouts);
            part.rules.extend(made.iter().cloned());
            part.new.extend(made);
        }
        for want in add {
            let one = &wanted[want];
            self.change(&part.target, cookie, None, Some(state(one.rule.to_spec(), one.container())));
            self.follow(one, &found);
            let Some((index, is_free)) = indices.next() else {
                let message = format!("target `{}`: a namespace has at most {MAX_RULES} rules", part.target);
                self.refused.push(refusal(one.at.0, Some(one.at.1), Error::new(Code::Failed, message)));
                break;
            };
            let when = if is_free { &mut part.reset.0 } else { &mut part.reset.1 };
            when.push(index);
            let made = self.make(&part, (&found, one), index, whereabouts);
            part.rules.extend(made.iter().cloned());
            part.new.extend(made);
        }
        for have in remove {
            self.remove(&part.target, cookie, &current[have]);
        }
        part.found = Some(found);
        self.plan.parts.push(part);
    }

    fn diff(&self, at: NetnsCookie, current: &[Arc<RuleState>], wanted: &[Wanted]) -> Diff {
        let have = current.iter().map(|state| Have {
            rule: &state.rule,
            origin: state.origin(),
            follows: self.owners(at, &state.rule.name),
        });
        let follows: Vec<Vec<_>> = wanted.iter().map(|one| one.containers().cloned().collect()).collect();
        let want = wanted.iter().zip(&follows).map(|(one, follows)| Want { rule: &one.rule, follows });
        diff(&have.collect::<Vec<_>>(), &want.collect::<Vec<_>>(), self.request.prune)
    }

    /// A rule as it will be, if it can be there.
    fn make(
        &mut self,
        part: &Part,
        (found, wanted): (&Found, &Wanted),
        index: u32,
        whereabouts: &mut HashMap<At, Whereabouts>,
    ) -> Option<Arc<RuleState>> {
        let Some(whereabouts) = whereabouts.remove(&wanted.at) else {
            let is_it = |known: &Refusal| (known.namespace, known.rule) == (wanted.at.0, Some(wanted.at.1));
            if self.refused.iter().any(is_it) {
                return None;
            }
            if self.request.discovered(wanted.at.0).is_some() {
                // Containers come and go, and that is no reason to refuse a file.
                let message =
                    format!("rule `{}`: its container was started again meanwhile", wanted.rule.name);
                self.refused.push(refusal(wanted.at.0, Some(wanted.at.1), Error::new(Code::Failed, message)));
                return None;
            }
            self.outdated = Some(wanted.rule.name.clone());
            return None;
        };
        let judged = self.supervisor.judge(
            &part.target,
            &wanted.rule,
            (found, part.foreign.as_deref().unwrap_or_default()),
            (&whereabouts, wanted.missing()),
        );
        if let Err(error) = judged {
            self.refused.push(refusal(wanted.at.0, Some(wanted.at.1), error));
            return None;
        }
        let said = warnings(None, &wanted.rule, found).into_iter().chain(whereabouts.warning.clone());
        let said = said.map(|text| format!("{}: rule `{}`: {text}", part.target, wanted.rule.name));
        self.plan.warnings.extend(said);
        if !whereabouts.is_known() {
            let to = &wanted.rule.to;
            let text = format!("{}: rule `{}`: down until `{to}` is found", part.target, wanted.rule.name);
            self.plan.warnings.push(text);
        }
        let places = (index, CONSUMER_RELAY);
        let state = RuleState::new(wanted.rule.clone(), Origin::File, places, whereabouts);
        state.set_interfaces(&found.survey.interfaces);
        Some(Arc::new(state))
    }

    pub(super) fn change(
        &mut self,
        target: &Target,
        cookie: NetnsCookie,
        before: Option<control::RuleState>,
        after: Option<control::RuleState>,
    ) {
        let name = after.as_ref().or(before.as_ref()).and_then(|state| state.rule.name.clone());
        let rule = name.expect("a rule that is there has a name, and so has one of a file");
        self.plan.changes.push(Change { target: target.clone(), cookie: cookie.0, rule, before, after });
    }

    pub(super) fn remove(&mut self, target: &Target, cookie: NetnsCookie, there: &RuleState) {
        let owners = self.owners(cookie, &there.rule.name).to_vec();
        self.change(target, cookie, Some(state(there.rule.to_spec(), owners.first())), None);
        self.plan.unfollowed.extend(owners.into_iter().map(|one| (one, there.rule.name.clone())));
    }

    /// Notes that a rule of the file follows its containers, where it does.
    fn follow(&mut self, wanted: &Wanted, found: &Found) {
        let name = &wanted.rule.name;
        // Whoever has it followed there before: from now on it is as the file says.
        let owners = self.owners(found.cookie, name).to_vec();
        self.plan.unfollowed.extend(owners.into_iter().map(|one| (one, name.clone())));
        for Follower { container, id, discovered } in &wanted.follows {
            let Some(id) = id.clone() else { continue };
            let followed = Followed {
                spec: wanted.rule.to_spec(),
                host_netns: wanted.host_netns,
                origin: Origin::File,
                id,
                at: Some(found.cookie),
                why: String::new(),
                discovered: *discovered,
            };
            self.plan.followed.push((container.clone(), name.clone(), followed));
        }
    }
}

/// Indices for new rules, and whether nobody has them; at the end those of rules that go.
fn free_indices(current: &[Arc<RuleState>], removed: Vec<u32>) -> impl Iterator<Item = (u32, bool)> {
    let taken: HashSet<_> = current.iter().map(|state| state.index).collect();
    let free = (0..MAX_RULES as u32).filter(move |index| !taken.contains(index)).map(|index| (index, true));
    free.chain(removed.into_iter().map(|index| (index, false)))
}
