//! What is found out about a namespace before anything is changed there, and what of it may surprise.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use redirector_ebpf::PROTOCOL_UDP;

use crate::{
    config::{Destination, Match, Rule, RuleSpec, Target},
    control::Error,
    kernel::{self, AttachedProgram},
    locate::{ContainerId, OpenNetns},
    netns::{self, NetnsCookie, NetnsFile, Survey},
    supervisor::{blocking, failed, namespace::Namespace},
};

/// What was found out about a namespace, before anything is changed there.
pub(in crate::supervisor) struct Found {
    pub(in crate::supervisor) fd: OwnedFd,
    pub(in crate::supervisor) file: NetnsFile,
    pub(in crate::supervisor) cookie: NetnsCookie,
    pub(in crate::supervisor) survey: Survey,
    pub(in crate::supervisor) programs: Vec<AttachedProgram>,
    pub(in crate::supervisor) existing_connections: u64,
    pub(in crate::supervisor) container: Option<ContainerId>,
    pub(in crate::supervisor) host: bool,
}

/// Goes and looks, and changes nothing. Connections that are open are counted that a rule would have taken.
pub(in crate::supervisor) async fn find_out(
    opened: OpenNetns,
    target: &Target,
    spec: Option<&RuleSpec>,
) -> Result<Found, Error> {
    let OpenNetns { fd, file, container, host, .. } = opened;
    let spec = spec.cloned();
    let target = target.clone();
    blocking(move || {
        let accepts =
            |spec: &RuleSpec| netns::established(|local, remote: SocketAddr| spec.takes(remote.ip(), local));
        let error = |error: &(dyn std::error::Error + 'static)| failed("look at", &target, error);
        let look = || {
            let cookie = NetnsCookie::here().map_err(std::io::Error::other)?;
            std::io::Result::Ok((cookie, netns::survey()?, spec.as_ref().map_or(Ok(0), accepts)?))
        };
        let (cookie, survey, existing_connections) =
            netns::enter(&fd, look).and_then(|result| result).map_err(|source| error(&source))?;
        let programs = kernel::attached_programs(fd.as_fd()).map_err(|source| error(&source))?;
        Ok(Found { fd, file, cookie, survey, programs, existing_connections, container, host })
    })
    .await
}

/// Whether both name the same thing, or neither anything.
fn have_one_in_common<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.iter().any(|named| other.contains(named)) || (one.is_empty() && other.is_empty())
}

/// What may surprise the user.
pub(in crate::supervisor) fn warnings(
    existing: Option<&Namespace>,
    rule: &Rule,
    found: &Found,
) -> Vec<String> {
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
    let (low, high) = found.survey.local_ports;
    let of_clients = |(first, last): &(u16, u16)| *first <= high && low <= *last;
    let takes_answers =
        |one: &&Match| one.protocol.includes(PROTOCOL_UDP) && one.ports.ranges().iter().any(of_clients);
    if let Some(matching) = rule.matches.iter().find(takes_answers)
        && rule.to != Destination::Pass
    {
        warnings.push(format!(
            "match `{matching}`: UDP ports {low}-{high} are those of clients there; answers to them are taken as well, those of name servers for example"
        ));
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
            state.rule.name != rule.name
                && have_one_in_common(&state.rule.from, &rule.from)
                && have_one_in_common(&state.rule.interfaces, &rule.interfaces)
                && state.rule.priority == rule.priority
                && state.rule.matches.iter().any(|one| rule.matches.contains(one))
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
