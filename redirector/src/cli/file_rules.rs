//! What a file would make of a packet: by the rule set alone, without a daemon, a namespace or a privilege.

use std::{collections::BTreeMap, path::Path};

use redirector_ebpf::MAX_RULES;

use super::{exit::Failure, file::SourceFile};
use crate::{
    config::{
        Destination, FlowSpec, Interface, Origin, Rule, Target,
        file::{ConfigFile, DiscoverSpec},
    },
    control::{
        Availability, CellView, Code, DecidedBy, Decider, Error, ExplainedRule, Explanation, FibView,
        HealthView, IngressBy, IngressView, MOST_REASONS, NamespaceState, OnUnavailableView, SCHEMA,
        ShadowView, Shadows, Verdict,
    },
    kernel::flow_of,
    matcher::{self, Image, Placed, account, compile},
};

/// The rules that a file has for one target, or for each container that is found.
pub(super) struct FileRules {
    /// For messages.
    whose: String,
    rules: Vec<Rule>,
    /// Interfaces that they name: each is there, and has its place here, from 1, as its index.
    interfaces: Vec<String>,
    /// Of each rule.
    indices: Vec<Vec<u32>>,
}

impl FileRules {
    /// Reads them.
    pub(super) fn read(path: &Path, target: &Target) -> Result<Self, Failure> {
        let file = SourceFile::read(path)?.parse_or_tell()?;
        let found = Self::of(&file, target);
        if found.rules.is_empty() {
            let targets: Vec<_> = file.namespaces.iter().map(|one| one.target.to_string()).collect();
            let message = format!("target `{target}`: file `{}` has no such namespace", path.display());
            let mut hint = format!("it has: {}", targets.join(", ")).escape_debug().to_string();
            if !file.discover.is_empty() {
                hint += "; which containers have the labels of `[[discover]]` only the daemon can see";
            }
            return Err(Error::new(Code::NotFound, message).with_hint(hint).into());
        }
        Ok(found)
    }

    /// Those of a file that was read.
    pub(super) fn of(file: &ConfigFile, target: &Target) -> Self {
        let of_target = file.namespaces.iter().filter(|one| one.target == *target);
        let rules = of_target.flat_map(|one| one.rules().collect::<Vec<_>>()).collect();
        Self::new(format!("target `{target}`"), rules)
    }

    /// Those of containers that are found.
    pub(super) fn of_found(spec: &DiscoverSpec) -> Self {
        Self::new("`[[discover]]`".to_owned(), spec.rules().collect())
    }

    fn new(whose: String, rules: Vec<Rule>) -> Self {
        let named = rules.iter().flat_map(|rule| &rule.interfaces);
        let mut interfaces: Vec<_> = named.map(|one| one.as_str().to_owned()).collect();
        interfaces.sort();
        interfaces.dedup();
        let index = |name: &Interface| (1..).zip(&interfaces).find(|(_, one)| *one == name.as_str());
        let indices =
            rules.iter().map(|rule| rule.interfaces.iter().filter_map(index).map(|(index, _)| index));
        let indices = indices.map(Iterator::collect).collect();
        Self { whose, rules, interfaces, indices }
    }

    pub(super) fn count(&self) -> usize {
        self.rules.len()
    }

    fn placed(&self) -> Vec<Placed<'_>> {
        let rules = (0..).zip(&self.rules).zip(&self.indices);
        rules.map(|((index, rule), interfaces)| Placed { interfaces, ..Placed::new(rule, index) }).collect()
    }

    /// The same as the kernel has it.
    ///
    /// # Errors
    ///
    /// Says why they cannot be in force together.
    pub(super) fn compiled(&self) -> Result<(Vec<Placed<'_>>, Image), String> {
        if self.rules.len() > MAX_RULES {
            let count = self.rules.len();
            return Err(format!("{}: {count} rules, and a namespace has at most {MAX_RULES}", self.whose));
        }
        let placed = self.placed();
        let image = compile(placed.iter().copied());
        image.map(|image| (placed, image)).map_err(|error| format!("{}: {error}", self.whose))
    }

    /// Which rule takes a packet.
    pub(super) fn explain(
        &self,
        target: &Target,
        flow: FlowSpec,
        all_reasons: bool,
    ) -> Result<Explanation, Failure> {
        let (placed, image) = self.compiled().map_err(Failure::text)?;
        let device = flow.device.clone();
        let known =
            device.as_ref().and_then(|name| self.interfaces.iter().position(|one| one == name.as_str()));
        // One that no rule names has the first index that is none's.
        let index = match (known, &device) {
            (Some(place), _) => place + 1,
            (None, Some(_)) => self.interfaces.len() + 1,
            (None, None) => 0,
        };
        let index = u32::try_from(index).expect("few interfaces");
        let decided = image.decide(&flow_of(&flow, index)).map(|decision| decision.rule);
        let account = account(&placed, (&flow, index), decided);
        let account = account.map_err(|error| Failure::text(format!("flow `{flow}`: {error}")))?;
        let verdict = account.decides.map_or(Verdict::Unmatched, |cell| Verdict::of(&cell.rule.to));
        let most = if all_reasons { usize::MAX } else { MOST_REASONS };
        Ok(Explanation {
            schema: SCHEMA,
            target: target.clone(),
            cookie: 0,
            state: NamespaceState::File,
            ingress: IngressView {
                interface: device.as_ref().map(ToString::to_string).unwrap_or_default(),
                index: 0,
                by: if device.is_some() { IngressBy::Named } else { IngressBy::Unknown },
            },
            fib: FibView {
                local: true,
                kernel: "unasked".into(),
                text: "no namespace was asked whether it is delivered there".into(),
            },
            verdict,
            peer_sees: verdict.peer_sees(&flow, account.decides.map(|cell| &cell.rule.to)).into(),
            decided_by: Some(DecidedBy {
                who: Decider::RuleSet,
                why: Some("only the file was looked at, and no namespace".into()),
            }),
            rule: account.decides.map(|cell| ExplainedRule {
                name: cell.rule.name.clone(),
                origin: Origin::File,
                to: vec![cell.rule.to.clone()],
                state: Availability::Up,
                health: HealthView::default(),
                steered: None,
                cell: CellView {
                    matching: cell.matching.clone(),
                    from: cell.source,
                    interface: device.filter(|_| !cell.rule.interfaces.is_empty()).map(|one| one.to_string()),
                },
                on_unavailable: (!matches!(cell.rule.to, Destination::Pass | Destination::Reject)).then(
                    || OnUnavailableView { action: cell.rule.on_unavailable, decided: false, reason: None },
                ),
            }),
            bypassed: false,
            own_listener: false,
            socket: None,
            reasons: account.before.iter().take(most).map(Into::into).collect(),
            reasons_left_out: account.before.len().saturating_sub(most) as u64,
            foreign_programs: Vec::new(),
            netfilter: None,
            bystanders: Vec::new(),
            segments_dropped: BTreeMap::new(),
            flow,
        })
    }

    /// The rules that can never decide.
    ///
    /// # Errors
    ///
    /// As [`Self::compiled`].
    pub(super) fn shadowed(&self) -> Result<Vec<ShadowView>, String> {
        let (placed, image) = self.compiled()?;
        let found = matcher::shadowed(&placed, &image);
        let found = found.map_err(|error| format!("{}: {error}", self.whose))?;
        Ok(found.into_iter().map(Into::into).collect())
    }

    /// The same, for `target`.
    ///
    /// # Errors
    ///
    /// As [`Self::compiled`].
    pub(super) fn shadows(&self, target: &Target) -> Result<Shadows, String> {
        let (rules, shadowed) = (self.rules.len() as u64, self.shadowed()?);
        Ok(Shadows { schema: SCHEMA, target: target.clone(), cookie: 0, rules, shadowed })
    }
}
