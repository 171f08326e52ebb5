//! `attach`: validate, make, publish. Whatever fails, the state before is the state after.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use redirector_ebpf::{CONSUMER_RELAY, MAX_CELLS, MAX_CONSUMERS, MAX_RULES, slot};

use super::{
    Supervisor, blocking,
    dial::Itself,
    elsewhere::{Elsewhere, Remote},
    failed,
    namespace::{Namespace, Parts},
    onward::Dialer,
    resolver::Resolver,
    rules::{RuleState, RuleTable, Whereabouts},
    source_ports::SourcePorts,
    steering,
};
use crate::{
    config::{Destination, Host, Rule, RuleSpec, Target},
    control::{AttachRequest, AttachResult, Attached, Caller, Code, Error, SCHEMA},
    kernel::{self, AttachedProgram, Instance},
    listener::{self, Listener},
    netns::{self, Family, NetnsCookie, NetnsFile, SocketFactory, Survey},
    target::{self, OpenNetns},
};

/// What was found out about a namespace, before anything is changed there.
struct Found {
    fd: OwnedFd,
    file: NetnsFile,
    cookie: NetnsCookie,
    survey: Survey,
    programs: Vec<AttachedProgram>,
    existing_connections: u64,
}

/// What an attach comes to.
struct Plan {
    result: AttachResult,
    rule: Rule,
    index: u32,
    consumer: u32,
}

/// A rule to be put into force, as the API or a lease wants it.
pub(super) struct Wanted {
    pub(super) target: Target,
    pub(super) spec: RuleSpec,
    pub(super) host_netns: HostNetns,
    pub(super) how: How,
}

/// Whether the host's own namespace may be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostNetns {
    Refused,
    Allowed,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Say what would be done.
    DryRun,
    /// A rule that stays until it is detached.
    Rule,
    /// A rule with listeners of its own, which the receiver gets.
    Lease(Delivery),
}

/// When the receiver of a lease gets its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// With the answer.
    AtOnce,
    /// When it listens.
    OnDemand,
}

impl How {
    fn is_lease(self) -> bool {
        matches!(self, Self::Lease(_))
    }
}

/// A rule that was put into force.
pub(super) struct Put {
    pub(super) answer: Attached,
    /// Where; `None` after a dry run.
    pub(super) netns: Option<Arc<Namespace>>,
    /// Of a lease: in force already, and to be given away.
    pub(super) listeners: Bound,
    pub(super) state: Arc<RuleState>,
}

impl Supervisor {
    pub(super) async fn attach_rule(
        &self,
        caller: Caller,
        request: AttachRequest,
    ) -> Result<Attached, Error> {
        let AttachRequest { target, rule: spec, dry_run, host_netns } = request;
        spec.validate().map_err(|error| Error::new(Code::Usage, error.to_string()))?;
        let wanted = Wanted {
            target,
            spec,
            host_netns: if host_netns { HostNetns::Allowed } else { HostNetns::Refused },
            how: if dry_run { How::DryRun } else { How::Rule },
        };
        Ok(self.put(caller, wanted).await?.answer)
    }

    /// Puts a rule into force.
    pub(super) async fn put(&self, caller: Caller, wanted: Wanted) -> Result<Put, Error> {
        let Wanted { target, spec, host_netns, how } = wanted;
        // Before the lock: a name server that does not answer must not hold up other changes.
        let resolver = resolver(&spec).await?;
        let elsewhere = self.elsewhere(&spec, caller).await?;
        // One change at a time; the data path takes no part in this lock.
        let mut table = self.table.lock().await;
        if self.is_ending() {
            return Err(Error::new(Code::Failed, "the daemon is stopping"));
        }
        let opened = match &target {
            Target::Cookie(cookie) => {
                let known = table.get(&NetnsCookie(*cookie));
                let known = known.ok_or_else(|| super::not_steered(&target))?;
                let fd = known.open().map_err(|error| failed("open", &target, &error))?;
                OpenNetns { fd, file: known.file, path: PathBuf::new(), host: false }
            }
            _ => self.open(target.clone(), caller).await?,
        };
        if opened.host && host_netns == HostNetns::Refused {
            let message = format!("target `{target}`: that is the host's own network namespace");
            return Err(Error::new(Code::Failed, message).with_hint(
                "steering it takes traffic of the whole host; if you mean it, add `--host-netns`",
            ));
        }
        let found = find_out(opened, &target, &spec).await?;
        if spec.to == [Destination::Original] && !found.survey.loopback_up {
            let message =
                format!("target `{target}`: the loopback device `lo` is down there, `original` needs it");
            return Err(
                Error::new(Code::Failed, message).with_hint("`ip link set lo up` inside the namespace")
            );
        }
        let existing = table.get(&found.cookie).cloned();
        let plan = plan(existing.as_deref(), spec, how)?;
        let warnings = warnings(existing.as_deref(), &plan.rule, &found);
        let ours: Vec<u32> = existing.iter().filter_map(|netns| netns.instance.program_id().ok()).collect();
        let foreign: Vec<_> = found.programs.iter().filter(|one| !ours.contains(&one.id)).cloned().collect();
        let answer = Attached {
            schema: SCHEMA,
            result: plan.result,
            dry_run: how == How::DryRun,
            target: target.clone(),
            cookie: found.cookie.0,
            rule: plan.rule.name.clone(),
            warnings,
            foreign_programs: foreign.clone(),
            existing_connections: found.existing_connections,
        };
        let consumer = plan.consumer;
        let state =
            Arc::new(RuleState::new(plan.rule, plan.index, consumer, Whereabouts { resolver, elsewhere }));
        let rules = with(existing.as_deref(), Arc::clone(&state))?;
        if how == How::DryRun || plan.result == AttachResult::Unchanged {
            return Ok(Put { answer, netns: existing, listeners: Vec::new(), state });
        }
        let listeners = match how {
            How::Lease(Delivery::AtOnce) => {
                let fd = found.fd.try_clone().map_err(|error| failed("attach", &target, &error))?;
                let (cookie, target) = (found.cookie, target.clone());
                blocking(move || bind_both(&fd, cookie, &target)).await?
            }
            How::DryRun | How::Rule | How::Lease(Delivery::OnDemand) => Vec::new(),
        };
        let netns = match existing {
            Some(netns) => {
                if how.is_lease() {
                    // Somebody may still hold listeners that had this consumer's number before.
                    for family in [Family::Ipv4, Family::Ipv6] {
                        netns.instance.clear_listener(slot(consumer, family.bit()));
                    }
                }
                fill_consumer(&netns.instance, consumer, &listeners, &target)?;
                change(Arc::clone(&netns), rules, plan.index, plan.result).await?;
                *netns.foreign_programs.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = foreign;
                netns
            }
            None => {
                let netns = self.begin(&target, found, rules, foreign, (consumer, &listeners)).await?;
                table.insert(netns.cookie, Arc::clone(&netns));
                netns
            }
        };
        tracing::info!(netns = %target, cookie = answer.cookie, rule = %answer.rule, result = ?answer.result, "attach");
        Ok(Put { answer, netns: Some(netns), listeners, state })
    }

    /// The namespace of a destination that lies in one. It must be there when the rule is attached.
    async fn elsewhere(&self, spec: &RuleSpec, caller: Caller) -> Result<Option<Elsewhere>, Error> {
        let [destination @ Destination::Inside { target, .. }] = &spec.to[..] else { return Ok(None) };
        let opened = self.open(target.clone(), caller).await;
        let opened = opened.map_err(|error| Error {
            message: format!("destination `{destination}`: {}", error.message),
            ..error
        })?;
        let named = target.clone();
        let location =
            blocking(move || Remote::location(opened).map_err(|error| failed("look at", &named, &error)))
                .await?;
        Ok(Some(Elsewhere::new(target.clone(), &self.remotes, location)))
    }

    /// Opens what the user named.
    pub(super) async fn open(&self, target: Target, caller: Caller) -> Result<OpenNetns, Error> {
        let caller = target::Caller { pid: caller.pid, uid: caller.uid.unwrap_or(u32::MAX) };
        blocking(move || {
            target::open(&target, caller).map_err(|error| {
                let code = if error.is_not_found() { Code::NotFound } else { Code::Failed };
                let hint = error.hint();
                let error = Error::chain(code, &error);
                hint.map_or(error.clone(), |hint| error.with_hint(hint))
            })
        })
        .await
    }

    /// Makes everything for a namespace that is not steered yet; the link, last of all, is what counts.
    async fn begin(
        &self,
        target: &Target,
        found: Found,
        rules: RuleTable,
        foreign_programs: Vec<AttachedProgram>,
        handed_off: (u32, &Bound),
    ) -> Result<Arc<Namespace>, Error> {
        let Found { fd, file, cookie, survey, .. } = found;
        let rules = Arc::new(rules);
        let of_rules = Arc::clone(&rules);
        let for_error = target.clone();
        let (fd, sockets, instance) = blocking(move || {
            let error = |error: &(dyn std::error::Error + 'static)| failed("attach", &for_error, error);
            let sockets = bind_both(&fd, cookie, &for_error)?;
            let instance = Instance::load().map_err(|source| match source.raw_os_error() {
                Some(nix::libc::EPERM | nix::libc::EINVAL) => error(&source)
                    .with_hint("the daemon needs CAP_BPF, CAP_NET_ADMIN and Linux 5.10 or newer; `redirector doctor` tries it"),
                _ => error(&source),
            })?;
            for rule in of_rules.rules() {
                instance.counters.reset_rule(rule.index).map_err(|source| error(&source))?;
            }
            instance.publish(&of_rules.set).map_err(|source| error(&source))?;
            Ok((fd, sockets, instance))
        })
        .await?;
        let mut listeners = Vec::new();
        for (family, socket) in sockets {
            let listener =
                Listener::new(family, socket).map_err(|source| failed("attach", target, &source))?;
            listeners.push(Arc::new(listener));
        }
        let inside = Arc::new(Itself {
            bypass: Arc::clone(&instance.bypass),
            ports: SourcePorts::outside(survey.local_ports),
        });
        let dialer = Dialer {
            factory: SocketFactory::new(self.limits.stock()),
            inside: Arc::clone(&inside),
            steered: Arc::clone(&self.steered),
            own: self.own_cookie,
            outgoing: Arc::clone(&self.outgoing),
        };
        // `self` would be another namespace for everyone who reads it.
        let known_as = if *target == Target::Caller { Target::Cookie(cookie.0) } else { target.clone() };
        let netns = Namespace::new(Parts {
            target: known_as,
            cookie,
            file,
            limits: Arc::clone(&self.limits),
            instance,
            dialer,
            table: rules,
            listeners,
            foreign_programs,
            went_down: self.went_down.clone(),
        });
        netns.fill_slots().map_err(|source| failed("attach", target, &source))?;
        let (consumer, handed_off) = handed_off;
        fill_consumer(&netns.instance, consumer, handed_off, target)?;
        for listener in netns.listeners() {
            netns.acceptors.spawn(steering::accept(Arc::clone(&netns), listener));
        }
        // Before the link: a namespace that dies from here on is noticed, and what we dial there passes.
        self.watch.add(file);
        self.steered.insert(cookie, &inside);
        match netns.instance.attach(fd.as_fd()) {
            Ok(link) => netns.set_link(link),
            Err(source) => {
                // Whether it is watched for another reason is found out where that is done for all.
                self.steered.remove(cookie);
                netns.abort().await;
                return Err(failed("attach", target, &source));
            }
        }
        Ok(netns)
    }
}

/// Goes and looks, and changes nothing.
async fn find_out(opened: OpenNetns, target: &Target, spec: &RuleSpec) -> Result<Found, Error> {
    let OpenNetns { fd, file, .. } = opened;
    let matches = spec.matches.clone();
    let target = target.clone();
    blocking(move || {
        let accepts = |local: SocketAddr| {
            matches.iter().any(|one| {
                one.ports.contains(local.port()) && one.prefix.is_none_or(|net| net.contains(&local.ip()))
            })
        };
        let error = |error: &(dyn std::error::Error + 'static)| failed("look at", &target, error);
        let look = || {
            let cookie = NetnsCookie::here().map_err(std::io::Error::other)?;
            std::io::Result::Ok((cookie, netns::survey()?, netns::established(accepts)?))
        };
        let (cookie, survey, existing_connections) =
            netns::enter(&fd, look).and_then(|result| result).map_err(|source| error(&source))?;
        let programs = kernel::attached_programs(fd.as_fd()).map_err(|source| error(&source))?;
        Ok(Found { fd, file, cookie, survey, programs, existing_connections })
    })
    .await
}

/// Which rule comes of a specification, and what that means for those that are there.
fn plan(existing: Option<&Namespace>, spec: RuleSpec, how: How) -> Result<Plan, Error> {
    let Some(netns) = existing else {
        let name = spec.name.clone().unwrap_or_else(|| crate::config::RuleName::numbered(1));
        let consumer = CONSUMER_RELAY + u32::from(how.is_lease());
        return Ok(Plan { result: AttachResult::Attached, rule: spec.named(name), index: 0, consumer });
    };
    let published = netns.published.load();
    let current = &published.current;
    let consumer = match how {
        How::DryRun | How::Rule => CONSUMER_RELAY,
        How::Lease(_) => current.free_consumer().ok_or_else(|| {
            let message =
                format!("`{}`: {} programs hold listeners there already", netns.target, MAX_CONSUMERS - 1);
            Error::new(Code::Failed, message)
        })?,
    };
    let given = spec.name.clone();
    let rule = spec.named(given.clone().unwrap_or_else(|| current.free_name()));
    let same = match &given {
        Some(name) => current.get(name),
        None => current.rules().iter().find(|state| !state.is_lease() && state.rule.is_like(&rule)),
    };
    if let Some(state) = same {
        if state.is_lease() || how.is_lease() {
            let message = format!("rule `{}`: there is a rule of that name in `{}`", rule.name, netns.target);
            return Err(Error::new(Code::Failed, message).with_hint("detach it first, or take another name"));
        }
        let unchanged = state.rule.is_like(&rule);
        let result = if unchanged { AttachResult::Unchanged } else { AttachResult::Changed };
        let rule = if unchanged { state.rule.clone() } else { rule };
        return Ok(Plan { result, rule, index: state.index, consumer });
    }
    let index = current.free_index().ok_or_else(|| {
        Error::new(Code::Failed, format!("rule `{}`: the namespace has {MAX_RULES} rules already", rule.name))
    })?;
    Ok(Plan { result: AttachResult::Attached, rule, index, consumer })
}

/// The addresses of a destination that has a name.
async fn resolver(spec: &RuleSpec) -> Result<Option<Resolver>, Error> {
    let [destination @ Destination::Host { host: Host::Name(name), .. }] = &spec.to[..] else {
        return Ok(None);
    };
    let resolver = Resolver::new(name).await.map_err(|source| {
        Error::new(Code::Failed, format!("destination `{destination}`: resolve `{name}`: {source}"))
    })?;
    Ok(Some(resolver))
}

/// The rules that are there, with one more or one changed.
fn with(existing: Option<&Namespace>, state: Arc<RuleState>) -> Result<RuleTable, Error> {
    let mut rules = Vec::new();
    if let Some(netns) = existing {
        let current = Arc::clone(&netns.published.load().current);
        rules.extend(current.rules().iter().filter(|one| one.index != state.index).cloned());
    }
    let name = state.rule.name.clone();
    rules.push(state);
    RuleTable::new(rules).map_err(|error| {
        Error::new(Code::Failed, format!("rule `{name}`: {error}"))
            .with_hint(format!("at most {MAX_CELLS} port ranges in one namespace"))
    })
}

/// Publishes other rules in a namespace that is steered already.
async fn change(
    netns: Arc<Namespace>,
    rules: RuleTable,
    index: u32,
    result: AttachResult,
) -> Result<(), Error> {
    let target = netns.target.clone();
    blocking(move || {
        if result == AttachResult::Attached {
            netns.instance.counters.reset_rule(index).map_err(|source| failed("attach", &target, &source))?;
        }
        netns.publish(&Arc::new(rules)).map_err(|source| failed("attach", &target, &source))
    })
    .await
}

/// Listeners of one consumer.
pub(super) type Bound = Vec<(Family, socket2::Socket)>;

/// Puts listeners into a consumer's slots. No rule names them yet; dropping the sockets empties the slots.
fn fill_consumer(
    instance: &Instance,
    consumer: u32,
    listeners: &Bound,
    target: &Target,
) -> Result<(), Error> {
    listeners.iter().try_for_each(|(family, socket)| {
        let filled = instance.set_listener(slot(consumer, family.bit()), socket.as_fd());
        filled.map_err(|source| failed("attach", target, &source))
    })
}

/// One listener for each family that the kernel has, in this namespace and in no other.
fn bind_both(fd: &OwnedFd, netns: NetnsCookie, target: &Target) -> Result<Bound, Error> {
    let error = |error: &(dyn std::error::Error + 'static)| failed("attach", target, error);
    let made = netns::enter(fd, listener::bind_pair);
    let sockets = made.map_err(|source| error(&source))?.map_err(|source| error(&source))?;
    for (_, socket) in &sockets {
        // The kernel would take a listener of another namespace, and no handshake would ever complete.
        let (_, cookie) = listener::cookies(socket.as_fd()).map_err(|source| error(&source))?;
        if cookie != netns {
            let message =
                format!("attach `{target}`: a listener came up in namespace {cookie} instead of {netns}");
            return Err(Error::new(Code::Failed, message));
        }
    }
    Ok(sockets)
}

/// What may surprise the user.
fn warnings(existing: Option<&Namespace>, rule: &Rule, found: &Found) -> Vec<String> {
    let mut warnings = Vec::new();
    for matching in &rule.matches {
        if let Some(prefix) = &matching.prefix
            && !found.survey.is_local(prefix)
        {
            warnings.push(format!(
                "match `{matching}`: no address of `{prefix}` is local there; only traffic that is delivered locally is steered"
            ));
        }
    }
    if found.survey.somaxconn < 128 {
        warnings.push(format!(
            "net.core.somaxconn is {} there: that few connections wait at once to be accepted, more must retry",
            found.survey.somaxconn
        ));
    }
    if let Some(netns) = existing {
        let current = Arc::clone(&netns.published.load().current);
        let twin = current.rules().iter().find(|state| {
            state.rule.name != rule.name && state.rule.matches.iter().any(|one| rule.matches.contains(one))
        });
        if let Some(state) = twin {
            let (first, second) = if state.rule.name < rule.name {
                (&state.rule.name, &rule.name)
            } else {
                (&rule.name, &state.rule.name)
            };
            warnings.push(format!(
                "rules `{first}` and `{second}` have a match in common, which `{first}` takes; to change a rule name it by `--name`"
            ));
        }
    }
    warnings
}
