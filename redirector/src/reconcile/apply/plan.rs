//! What a file changes, compared with what is there. It sees what is in force, what is wanted, and what was found, and changes
//! nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::fd::AsFd as _,
    sync::Arc,
};

use redirector_ebpf::CONSUMER_RELAY;

use super::{
    places::{Located, There},
    request::Request,
    twins::without_twins,
    waiting::Waiting,
    wanted::{At, Follower, Unplanned, Waits, Wanted, flaw, refusal, refuse_if_any},
};
use crate::{
    config::{Origin, RuleName, RuleSpec, SetName, Target},
    control::{self, Change, Error, Refusal},
    dial::Whereabouts,
    intent::{Diff, Edit, Follows, Have, Intended, Owner, Prune, Store, Subject, Want, diff},
    kernel::attached_programs,
    netns::NetnsCookie,
    reconcile::{
        judge::{Tells, foreign_programs, judge},
        part::{Part, Plan},
        refused::Refused,
        standing::{Standing, free_indices},
        warnings::warnings,
    },
    steer::{Found, RuleState},
};

/// All that becomes other.
#[derive(Debug, Default)]
pub(super) struct ApplyPlan {
    pub(super) plan: Plan,
    pub(super) changes: Vec<Change>,
    pub(super) unchanged: u64,
    pub(super) warnings: Vec<String>,
}

/// What there is, as far as a file can be about it.
pub(super) struct Now<'a> {
    pub(super) standing: &'a BTreeMap<NetnsCookie, Standing>,
    pub(super) intent: &'a Store,
    pub(super) tells: Tells,
    /// Whether something is part of what is changed. The rest is somebody else's at this moment.
    pub(super) holds: &'a dyn Fn(&Subject) -> bool,
}

/// A rule that follows a target.
type Key = (Target, RuleName);

struct Planner<'a> {
    now: Now<'a>,
    request: &'a Request,
    waiting: Waiting,
    refused: Vec<Refusal>,
    /// A rule whose destination was not looked up, because it was there then.
    outdated: Option<RuleName>,
    outcome: ApplyPlan,
    /// Rules that stay where they are although they wait.
    left: HashSet<(NetnsCookie, RuleName)>,
    /// Where the file has rules that follow a target; those that wait are nowhere.
    placed: HashMap<Key, NetnsCookie>,
    /// Rules whose target is there: none of them waits any more.
    come: HashSet<Key>,
}

/// Where a rule is that waits.
const NOWHERE: NetnsCookie = NetnsCookie(0);

/// The rules that a namespace shall have and has not like this: those whose destinations have to be looked up.
pub(super) fn unknown(standing: Option<&Standing>, there: &There, request: &Request) -> Vec<Wanted> {
    let rules = standing.map(|standing| &standing.rules[..]).unwrap_or_default();
    let by_name: HashMap<_, _> = rules.iter().map(|state| (&state.rule.name, &state.rule)).collect();
    let wanted = there.wanted(request);
    wanted.filter(|one| by_name.get(&one.rule.name).is_none_or(|there| !there.is_like(&one.rule))).collect()
}

/// Compares everything.
///
/// # Errors
///
/// All that is wrong; or that what was looked at is not so any more.
pub(super) fn plan(
    now: Now<'_>,
    request: &Request,
    places: Located,
    mut whereabouts: HashMap<At, Whereabouts>,
) -> Result<ApplyPlan, Unplanned> {
    let of_entries = places
        .waits
        .iter()
        .flat_map(|waits| request.waiting_by(waits.entry).map(move |rule| (waits.clone(), rule)));
    let waiting = Waiting::new(of_entries.chain(request.waiting_rules()).collect());
    let stay = places.staying(request);
    let Located { there, aside, refused, .. } = places;
    let mut planner = Planner {
        now,
        request,
        waiting,
        refused,
        outdated: None,
        outcome: ApplyPlan::default(),
        left: HashSet::new(),
        placed: HashMap::new(),
        come: HashSet::new(),
    };
    let mut looked_at: HashSet<_> = aside.iter().map(|there| there.found.cookie).collect();
    let mut named = Vec::new();
    for there in there {
        let at = there.found.cookie;
        looked_at.insert(at);
        planner.come.extend(there.entries.iter().flat_map(|(entry, _)| {
            let target = &request.namespaces[*entry].target;
            request.wanted_by(*entry, None).map(move |one| (target.clone(), one.rule.name.clone()))
        }));
        let (wanted, twins) = without_twins(&there.target, there.wanted(request));
        planner.refused.extend(twins);
        for one in &wanted {
            let keys = one.targets().map(|target| (target.clone(), one.rule.name.clone()));
            planner.placed.extend(keys.map(|key| (key, at)));
            planner.refuse_to_take_over(Some(at), one);
        }
        named.push((there, wanted));
    }
    for (there, wanted) in named {
        planner.compare(there, &wanted, &mut whereabouts);
    }
    planner.compare_others(&looked_at, &stay);
    planner.compare_waiting(&stay);
    refuse_if_any(planner.refused)?;
    match planner.outdated {
        Some(name) => Err(Unplanned::Outdated(Refused::Changed(name).into())),
        None => Ok(planner.outcome),
    }
}

impl<'a> Planner<'a> {
    fn edit(&mut self) -> &mut Edit {
        &mut self.outcome.plan.edit
    }

    /// Whether `attach` wants a rule of files as well, and keeps it.
    fn is_shared(&self, at: NetnsCookie, name: &RuleName) -> bool {
        let is_made_by = |origin| self.now.intent.at(at, name).any(|(_, one)| one.origin == origin);
        self.request.prune == Prune::No
            && is_made_by(Origin::File)
            && is_made_by(Origin::Api)
            && !self.moves(at, name)
    }

    /// Those for whom a rule is there, without those who have shared it by `attach`.
    fn subjects(&self, at: NetnsCookie, name: &RuleName) -> Vec<Subject> {
        let is_shared = self.is_shared(at, name);
        let here = self.now.intent.at(at, name);
        let own = here.filter(|(_, one)| !is_shared || one.origin == Origin::File);
        own.map(|(subject, _)| subject.clone()).collect()
    }

    fn owners(&self, at: NetnsCookie, name: &RuleName) -> Vec<Target> {
        self.subjects(at, name).iter().filter_map(|subject| subject.target().cloned()).collect()
    }

    fn owner(&self, at: NetnsCookie, there: &RuleState) -> Owner {
        let name = &there.rule.name;
        if there.is_lease() {
            return Owner::Lease;
        }
        if self.moves(at, name) {
            return Owner::Own;
        }
        match self.now.intent.origin(at, name) {
            Some(Origin::File) if self.other_set(at, name).is_some() => Owner::Other,
            Some(Origin::File) => Owner::Own,
            _ => Owner::Api,
        }
    }

    /// Whether a rule of a file is another set's.
    fn is_others(&self, one: &Intended) -> bool {
        one.origin == Origin::File && !self.request.scope().owns(one.set.as_ref())
    }

    /// The other set that has a rule in a namespace.
    fn other_set(&self, at: NetnsCookie, name: &RuleName) -> Option<SetName> {
        let mut here = self.now.intent.at(at, name);
        here.find(|(_, one)| self.is_others(one)).and_then(|(_, one)| one.set.clone())
    }

    /// Whether the file has a rule elsewhere for all targets that it follows there: they have moved, and whoever has made it,
    /// nobody wants it there any more.
    fn moves(&self, at: NetnsCookie, name: &RuleName) -> bool {
        let mut here = self.now.intent.at(at, name).peekable();
        let is_elsewhere = |target: &Target| {
            let place = self.placed.get(&(target.clone(), name.clone()));
            place.is_some_and(|place| *place != at)
        };
        here.peek().is_some() && here.all(|(subject, _)| subject.target().is_some_and(is_elsewhere))
    }

    /// Whether a rule stays in a namespace until the one that waits for its container can come.
    fn stays(&self, at: NetnsCookie, there: &RuleState) -> bool {
        let owners = self.owners(at, &there.rule.name);
        self.waiting.keeps(there, &owners, |entry| self.request.discovered(entry).is_some())
    }

    /// Notes which of the rules that are left in a namespace wait all the same.
    fn note_left<'b>(&mut self, at: NetnsCookie, rules: impl Iterator<Item = &'b Arc<RuleState>>) {
        let left: Vec<_> = rules.filter(|state| self.stays(at, state)).collect();
        self.left.extend(left.into_iter().map(|state| (at, state.rule.name.clone())));
    }

    /// One namespace that the file means.
    fn compare(&mut self, there: There, wanted: &[Wanted], whereabouts: &mut HashMap<At, Whereabouts>) {
        let There { target, found, entries } = there;
        let cookie = found.cookie;
        let now = self.now.standing;
        let standing = now.get(&cookie);
        let current = standing.map(|standing| &standing.rules[..]).unwrap_or_default();
        let mut diff = self.diff(cookie, current, wanted);
        let stay = diff.remove.extract_if(.., |have| self.stays(cookie, &current[*have]));
        diff.leave.extend(stay.collect::<Vec<_>>());
        if !self.request.replaces(cookie) {
            let stay = diff.remove.extract_if(.., |have| !self.moves(cookie, &current[*have].rule.name));
            diff.leave.extend(stay.collect::<Vec<_>>());
        }
        let shared = diff.remove.extract_if(.., |have| self.is_shared(cookie, &current[*have].rule.name));
        for have in shared.collect::<Vec<_>>() {
            self.leave_to_attach(&target, cookie, &current[have]);
            diff.leave.push(have);
        }
        self.note_left(cookie, diff.leave.iter().map(|have| &current[*have]));
        if self.request.scope().is_unnamed() {
            // What nobody has named says the same as a set, and leaves it that.
            self.outcome.unchanged += diff.shared.len() as u64;
            diff.leave.extend(diff.shared.drain(..).map(|(have, _)| have));
        }
        for (have, want) in diff.clash.iter().chain(&diff.shared) {
            self.refuse_clash(&target, cookie, &current[*have], &wanted[*want]);
        }
        let mut part = Part::of(target, cookie, standing);
        // Those that were found by a label come last, and are to blame first.
        let last_found =
            entries.iter().map(|(entry, _)| *entry).rfind(|entry| self.request.discovered(*entry).is_some());
        part.blamed = last_found.or(entries.first().map(|(entry, _)| *entry));
        if !(diff.change.is_empty() && diff.add.is_empty() && diff.remove.is_empty()) {
            // Ours may have been replaced since they were looked at.
            let programs = attached_programs(found.fd.as_fd()).unwrap_or_else(|_| found.programs.clone());
            part.foreign = Some(foreign_programs(standing.and_then(|one| one.program), &programs));
        }
        let Diff { keep, change, add, remove, leave, shared: _, clash: _ } = diff;
        part.rules.extend(leave.into_iter().map(|have| Arc::clone(&current[have])));
        for (have, want) in keep {
            self.outcome.unchanged += 1;
            self.want(&wanted[want], &current[have].rule, cookie);
            part.rules.push(Arc::clone(&current[have]));
        }
        let removed = remove.iter().map(|have| current[*have].index).collect::<Vec<_>>();
        let mut indices = free_indices(current, removed);
        for (have, want) in change {
            let (there, one) = (&current[have], &wanted[want]);
            let before = state(there.rule.to_spec(), self.owners(cookie, &there.rule.name).first());
            let after = state(one.rule.to_spec(), one.followed());
            self.change(&part.target, cookie, Some(before), Some(after));
            if there.rule.is_like(&one.rule) {
                self.want(one, &there.rule, cookie);
                part.rules.push(Arc::clone(there));
                continue;
            }
            self.want(one, &one.rule, cookie);
            if let Some(made) = self.make(&part, (&found, one), there.index, whereabouts) {
                part.add(made);
            }
        }
        for want in add {
            let one = &wanted[want];
            self.change(&part.target, cookie, None, Some(state(one.rule.to_spec(), one.followed())));
            self.want(one, &one.rule, cookie);
            let Some((index, is_free)) = indices.next() else {
                let refused = Refused::MoreThanFit(part.target.clone());
                self.refused.push(refusal(one.at.0, Some(one.at.1), refused.into()));
                break;
            };
            let when = if is_free { &mut part.reset.before } else { &mut part.reset.after };
            when.push(index);
            if let Some(made) = self.make(&part, (&found, one), index, whereabouts) {
                part.add(made);
            }
        }
        for have in remove {
            self.remove(&part.target, cookie, &current[have]);
        }
        part.found = Some(found);
        self.outcome.plan.parts.push(part);
    }

    fn diff(&self, at: NetnsCookie, current: &[Arc<RuleState>], wanted: &[Wanted]) -> Diff {
        let owners: Vec<_> = current.iter().map(|state| self.owners(at, &state.rule.name)).collect();
        let is_otherwise = |there: &RuleState| {
            let mut same_name = wanted.iter().filter(|one| one.rule.name == there.rule.name);
            same_name.any(|one| !one.rule.is_like(&there.rule))
        };
        let have = current.iter().zip(&owners).map(|(state, follows)| {
            let is_in_the_way = is_otherwise(state) && self.is_shared(at, &state.rule.name);
            let owner = if is_in_the_way { Owner::Api } else { self.owner(at, state) };
            Have { rule: &state.rule, owner, follows }
        });
        let follows: Vec<Vec<_>> = wanted.iter().map(|one| one.targets().cloned().collect()).collect();
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
        let refuse = |error: Error| refusal(wanted.at.0, Some(wanted.at.1), error);
        let Some(whereabouts) = whereabouts.remove(&wanted.at) else {
            let is_it = |known: &Refusal| (known.namespace, known.rule) == (wanted.at.0, Some(wanted.at.1));
            if self.refused.iter().any(is_it) {
                return None;
            }
            if self.request.discovered(wanted.at.0).is_some() {
                // Containers come and go, and that is no reason to refuse a file.
                self.refused.push(refuse(Refused::StartedAgain(wanted.rule.name.clone()).into()));
                return None;
            }
            self.outdated = Some(wanted.rule.name.clone());
            return None;
        };
        let foreign = part.foreign.as_deref().unwrap_or_default();
        let judged = judge(
            &part.target,
            &wanted.rule,
            (found, foreign, self.now.tells),
            (&whereabouts, wanted.missing()),
        );
        if let Err(refused) = judged {
            self.refused.push(refuse(refused.into()));
            return None;
        }
        let said = warnings(&[], &wanted.rule, found).into_iter().chain(whereabouts.warning.clone());
        let said = said.map(|text| format!("{}: rule `{}`: {text}", part.target, wanted.rule.name));
        self.outcome.warnings.extend(said);
        if !whereabouts.is_known() {
            let to = &wanted.rule.to;
            let text = format!("{}: rule `{}`: down until `{to}` is found", part.target, wanted.rule.name);
            self.outcome.warnings.push(text);
        }
        let state = RuleState::new(Arc::clone(&wanted.rule), (index, CONSUMER_RELAY), whereabouts);
        state.set_interfaces(&found.survey.interfaces);
        Some(Arc::new(state))
    }

    /// Notes that the file wants a rule there, for its containers where it follows some. Whoever has had it there before: from
    /// now on it is as the file says.
    fn want(&mut self, wanted: &Wanted, rule: &Arc<crate::config::Rule>, at: NetnsCookie) {
        self.drop_all(at, &rule.name);
        let set = self.request.set_of(wanted.at.0);
        if wanted.follows.is_empty() {
            let intended =
                Intended { set: set.clone(), ..Intended::there(at, Arc::clone(rule), Origin::File) };
            self.edit().put(at, intended);
        }
        for Follower { target, id, discovered, once } in &wanted.follows {
            let intended = Intended {
                rule: Arc::clone(rule),
                origin: Origin::File,
                set: set.clone().filter(|_| !discovered),
                host_netns: wanted.host_netns,
                at: Some(at),
                follows: Some(Box::new(Follows {
                    id: id.clone(),
                    why: String::new(),
                    found: *discovered,
                    once: *once,
                })),
            };
            self.edit().put(target, intended);
        }
    }

    /// Nobody wants a rule in a namespace any more, but those who have shared it by `attach`.
    fn drop_all(&mut self, at: NetnsCookie, name: &RuleName) {
        for subject in self.subjects(at, name) {
            self.edit().drop(subject, name);
        }
    }

    /// Files do not want a rule any more that `attach` wants too.
    fn leave_to_attach(&mut self, target: &Target, at: NetnsCookie, there: &RuleState) {
        let (spec, name) = (there.rule.to_spec(), &there.rule.name);
        let mut here = self.now.intent.at(at, name);
        let by_attach = here.find(|(_, one)| one.origin == Origin::Api);
        let after = state(spec.clone(), by_attach.and_then(|(subject, _)| subject.target()));
        let before = state(spec, self.owners(at, name).first());
        self.change(target, at, Some(before), Some(after));
        self.drop_all(at, name);
    }

    fn change(
        &mut self,
        target: &Target,
        cookie: NetnsCookie,
        before: Option<control::ChangeSide>,
        after: Option<control::ChangeSide>,
    ) {
        let name = after.as_ref().or(before.as_ref()).and_then(|state| state.rule.name.clone());
        let rule = name.expect("a rule that is there has a name, and so has one of a file");
        let change = Change { target: target.clone(), cookie: cookie.0, rule, before, after };
        self.outcome.changes.push(change);
    }

    fn remove(&mut self, target: &Target, cookie: NetnsCookie, there: &RuleState) {
        let owners = self.owners(cookie, &there.rule.name);
        self.change(target, cookie, Some(state(there.rule.to_spec(), owners.first())), None);
        self.drop_all(cookie, &there.rule.name);
    }

    fn refuse_clash(&mut self, target: &Target, at: NetnsCookie, there: &RuleState, wanted: &Wanted) {
        let (target, rule) = (target.clone(), there.rule.name.clone());
        let refused = if let Some(set) = self.other_set(at, &rule) {
            Refused::OfSet { target, rule, set }
        } else if there.is_lease() {
            Refused::OfProgram { target, rule }
        } else {
            Refused::OfAttach { target, rule }
        };
        self.refused.push(flaw(wanted.at.0, Some(wanted.at.1), refused.into()));
    }

    /// A rule of `attach` that follows the same target and is not where this one will be, or which this one would wait
    /// instead of, is in its way too.
    fn refuse_to_take_over(&mut self, at: Option<NetnsCookie>, wanted: &Wanted) {
        let name = &wanted.rule.name;
        let is_in_the_way = |target: &&Target| {
            self.now.intent.followed(target, name).is_some_and(|known| {
                let is_elsewhere = at.is_none() || known.at != at;
                known.origin == Origin::Api && is_elsewhere && known.rule != wanted.rule
            })
        };
        if self.request.prune == Prune::No
            && let Some(target) = wanted.targets().find(is_in_the_way)
        {
            let (target, rule) = (target.clone(), name.clone());
            let refused = Refused::OfAttach { target, rule };
            self.refused.push(flaw(wanted.at.0, Some(wanted.at.1), refused.into()));
        }
    }

    /// Namespaces that the file does not mean, but for those whose target is not there and that live on.
    fn compare_others(&mut self, looked_at: &HashSet<NetnsCookie>, stay: &HashSet<Target>) {
        let now = self.now.standing;
        let mut others: Vec<_> = now.values().collect();
        others.retain(|one| {
            let is_ours = (self.now.holds)(&Subject::Netns(one.cookie));
            is_ours && !looked_at.contains(&one.cookie) && !stay.contains(&one.target)
        });
        others.sort_by_cached_key(|one| (one.target.to_string(), one.cookie));
        for standing in others {
            self.compare_unnamed(standing);
        }
    }

    fn compare_unnamed(&mut self, standing: &Standing) {
        let cookie = standing.cookie;
        // What was set aside is not about these, but for what goes from here with its container.
        let goes = |state: &RuleState| match self.owner(cookie, state) {
            Owner::Own => !self.request.is_again() || self.moves(cookie, &state.rule.name),
            Owner::Api => !self.request.is_again() && self.request.prune == Prune::Api,
            Owner::Other | Owner::Lease => false,
        };
        let (mut gone, mut rest): (Vec<_>, Vec<_>) =
            standing.rules.iter().cloned().partition(|state| goes(state) && !self.stays(cookie, state));
        let shared = gone.extract_if(.., |state| self.is_shared(cookie, &state.rule.name));
        for state in shared.collect::<Vec<_>>() {
            self.leave_to_attach(&standing.target, cookie, &state);
            rest.push(state);
        }
        self.note_left(cookie, rest.iter());
        if gone.is_empty() {
            return;
        }
        for state in &gone {
            let name = &state.rule.name;
            if self.waiting.has(name, &self.owners(cookie, name)) {
                // It is said where it waits.
                self.edit().drop(cookie, name);
            } else {
                self.remove(&standing.target, cookie, state);
            }
        }
        let mut part = Part::of(standing.target.clone(), cookie, Some(standing));
        part.rules = rest;
        self.outcome.plan.parts.push(part);
    }

    /// Rules that wait from now on, and rules that waited and shall not any more.
    fn compare_waiting(&mut self, stay: &HashSet<Target>) {
        let intent = self.now.intent;
        let mut placed = std::mem::take(&mut self.placed);
        let waiting = std::mem::take(&mut self.waiting);
        for (_, one) in waiting.all() {
            self.refuse_to_take_over(None, one);
        }
        for (Waits { entry, target, id, why, .. }, one) in waiting.all() {
            let key = (target.clone(), one.rule.name.clone());
            if placed.contains_key(&key) {
                // Of a name that was two containers' while the engine was asked.
                continue;
            }
            let before = intent.followed(target, &key.1);
            if let Some(others) = before.filter(|before| self.is_others(before)) {
                if self.request.scope().is_unnamed() && others.rule == one.rule {
                    self.outcome.unchanged += 1;
                } else {
                    let set = others.set.clone().unwrap_or_default();
                    let refused = Refused::OfSet { target: target.clone(), rule: key.1.clone(), set };
                    self.refused.push(flaw(one.at.0, Some(one.at.1), refused.into()));
                }
                placed.insert(key, NOWHERE);
                continue;
            }
            if before.is_some_and(|before| before.rule == one.rule) {
                self.outcome.unchanged += 1;
            } else {
                let before = before.map(|before| state(before.rule.to_spec(), followed(before, target)));
                let after = state(one.rule.to_spec(), one.followed());
                self.change(target, NOWHERE, before, Some(after));
            }
            let is_left = |at: &NetnsCookie| self.left.contains(&(*at, key.1.clone()));
            let at = before.and_then(|before| before.at).filter(is_left);
            let found = self.request.discovered(*entry).is_some();
            // That a name has gone to another container is told when that runs.
            let named = before.filter(|_| !found).and_then(Intended::id);
            let once = one.followed().is_none();
            let follows = Follows { id: named.or(id.as_ref()).cloned(), why: why.clone(), found, once };
            let intended = Intended {
                rule: Arc::clone(&one.rule),
                origin: Origin::File,
                set: self.request.set_of(*entry),
                host_netns: one.host_netns,
                at,
                follows: Some(Box::new(follows)),
            };
            self.edit().drop(target, &key.1);
            self.edit().put(target, intended);
            placed.insert(key, NOWHERE);
        }
        for (target, one) in intent.following() {
            let key = (target.clone(), one.rule.name.clone());
            if self.is_others(one) {
                continue;
            }
            if one.is_once() && one.origin == Origin::File && self.come.contains(&key) {
                self.edit().drop(target, &key.1);
                continue;
            }
            if self.request.is_again() {
                // What is there for the file stays.
                continue;
            }
            if placed.contains_key(&key) || !(self.now.holds)(&Subject::from(target)) {
                continue;
            }
            if one.origin == Origin::File && stay.contains(target) {
                continue;
            }
            let is_owned = one.origin == Origin::File || self.request.prune == Prune::Api;
            if !is_owned {
                continue;
            }
            if !is_in_force(self.now.standing, one) {
                let before = state(one.rule.to_spec(), followed(one, target));
                self.change(target, NOWHERE, Some(before), None);
                self.edit().drop(target, &key.1);
            } else if one.origin == Origin::File {
                self.edit().drop(target, &key.1);
            }
        }
    }
}

fn is_in_force(standing: &BTreeMap<NetnsCookie, Standing>, one: &Intended) -> bool {
    let there = one.at.and_then(|at| standing.get(&at));
    there.is_some_and(|there| there.get(&one.rule.name).is_some())
}

/// What a rule of a target follows, not what it only waits for.
fn followed<'a>(one: &Intended, target: &'a Target) -> Option<&'a Target> {
    Some(target).filter(|_| !one.is_once())
}

fn state(rule: RuleSpec, follows: Option<&Target>) -> control::ChangeSide {
    control::ChangeSide { rule, follows: follows.cloned() }
}

#[cfg(test)]
mod tests;
