//! `attach`: validate, make, publish. Whatever fails, the state before is the state after.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use redirector_ebpf::{MAX_CELLS, MAX_RULES};

use super::{
    Supervisor, blocking,
    dial::Itself,
    namespace::{Namespace, Parts},
    onward::Dialer,
    resolver::Resolver,
    rules::{RuleState, RuleTable},
    source_ports::SourcePorts,
    steering,
};
use crate::{
    config::{Destination, Host, Rule, RuleSpec, Target},
    control::{AttachRequest, AttachResult, Attached, Caller, Code, Error, SCHEMA, chain},
    kernel::{self, AttachedProgram, Bypass, Instance},
    listener::{self, BindError, Listener},
    netns::{self, Family, NetnsCookie, NetnsFile, SocketFactory, Survey},
    sys,
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
}

impl Supervisor {
    pub(super) async fn attach_rule(
        &self,
        caller: Caller,
        request: AttachRequest,
    ) -> Result<Attached, Error> {
        let AttachRequest { target, rule: spec, dry_run, host_netns } = request;
        spec.validate().map_err(|error| Error::new(Code::Usage, error.to_string()))?;
        // Before the lock: a name server that does not answer must not hold up other changes.
        let resolver = resolver(&spec).await?;
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
                OpenNetns { fd, file: known.file, host: false }
            }
            _ => self.open(target.clone(), caller).await?,
        };
        if opened.host && !host_netns {
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
        let plan = plan(existing.as_deref(), spec)?;
        let warnings = warnings(existing.as_deref(), &plan.rule, &found);
        let ours: Vec<u32> = existing.iter().filter_map(|netns| netns.instance.program_id().ok()).collect();
        let foreign: Vec<_> = found.programs.iter().filter(|one| !ours.contains(&one.id)).cloned().collect();
        let answer = Attached {
            schema: SCHEMA,
            result: plan.result,
            dry_run,
            target: target.clone(),
            cookie: found.cookie.0,
            rule: plan.rule.name.clone(),
            warnings,
            foreign_programs: foreign.clone(),
            existing_connections: found.existing_connections,
        };
        let state = Arc::new(RuleState::new(plan.rule, plan.index, resolver));
        let rules = with(existing.as_deref(), state)?;
        if dry_run || plan.result == AttachResult::Unchanged {
            return Ok(answer);
        }
        match existing {
            Some(netns) => {
                change(Arc::clone(&netns), rules, plan.index, plan.result).await?;
                *netns.foreign_programs.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = foreign;
            }
            None => {
                let netns = self.begin(&target, found, rules, foreign).await?;
                table.insert(netns.cookie, netns);
            }
        }
        tracing::info!(netns = %target, cookie = answer.cookie, rule = %answer.rule, result = ?answer.result, "attach");
        Ok(answer)
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
                    .with_hint("the daemon needs CAP_BPF, CAP_NET_ADMIN and Linux 5.14 or newer"),
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
        let itself = |bypass: &Arc<Bypass>| Itself {
            bypass: Arc::clone(bypass),
            ports: SourcePorts::outside(survey.local_ports),
        };
        let dialer = Dialer {
            factory: SocketFactory::new(),
            inside: itself(&instance.bypass),
            host: Arc::clone(&self.host),
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
        for listener in netns.listeners() {
            netns.acceptors.spawn(steering::accept(Arc::clone(&netns), listener));
        }
        // Before the link: a namespace that dies from here on is noticed, and what we dial in our own passes.
        self.watch.add(file);
        if cookie == self.own_cookie {
            self.host.store(Some(Arc::new(itself(&netns.instance.bypass))));
        }
        match netns.instance.attach(fd.as_fd()) {
            Ok(link) => netns.set_link(link),
            Err(source) => {
                if !self.draining.contains(file) {
                    self.watch.remove(file);
                }
                if cookie == self.own_cookie {
                    self.host.store(None);
                }
                netns.abort().await;
                return Err(failed("attach", target, &source));
            }
        }
        Ok(netns)
    }
}

fn failed(call: &str, target: &Target, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::new(Code::Failed, format!("{call} `{target}`: {}", chain(error)))
}

/// Goes and looks, and changes nothing.
async fn find_out(opened: OpenNetns, target: &Target, spec: &RuleSpec) -> Result<Found, Error> {
    let OpenNetns { fd, file, host: _ } = opened;
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
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
            let cookie = NetnsCookie(sys::socket::netns_cookie(&socket)?);
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
fn plan(existing: Option<&Namespace>, spec: RuleSpec) -> Result<Plan, Error> {
    let Some(netns) = existing else {
        let name = spec.name.clone().unwrap_or_else(|| crate::config::RuleName::numbered(1));
        return Ok(Plan { result: AttachResult::Attached, rule: spec.named(name), index: 0 });
    };
    let published = netns.published.load();
    let current = &published.current;
    let given = spec.name.clone();
    let rule = spec.named(given.clone().unwrap_or_else(|| current.free_name()));
    let same = match &given {
        Some(name) => current.get(name),
        None => current.rules().iter().find(|state| state.rule.is_like(&rule)),
    };
    if let Some(state) = same {
        let unchanged = state.rule.is_like(&rule);
        let result = if unchanged { AttachResult::Unchanged } else { AttachResult::Changed };
        let rule = if unchanged { state.rule.clone() } else { rule };
        return Ok(Plan { result, rule, index: state.index });
    }
    let index = current.free_index().ok_or_else(|| {
        Error::new(Code::Failed, format!("rule `{}`: the namespace has {MAX_RULES} rules already", rule.name))
    })?;
    Ok(Plan { result: AttachResult::Attached, rule, index })
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

type Bound = Vec<(Family, socket2::Socket)>;

/// One listener for each family that the kernel has, in this namespace and in no other.
fn bind_both(fd: &OwnedFd, netns: NetnsCookie, target: &Target) -> Result<Bound, Error> {
    let error = |error: &(dyn std::error::Error + 'static)| failed("attach", target, error);
    let made = netns::enter(fd, || {
        let mut sockets = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            match listener::bind(family) {
                Ok(socket) => sockets.push((family, socket)),
                // None of its packets can come either.
                Err(BindError::NoFamily(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sockets)
    });
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
