//! Which namespaces a file means.

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};

use super::{AT_ONCE, Request, Supervisor, flaw, refusal};
use crate::{
    config::{Container, Target},
    control::{Caller, Code, Error, Refusal},
    dial::leads_through_process,
    locate::{ContainerId, TargetError},
    netns::NetnsCookie,
    supervisor::attach::{Found, HostNetns, find_out, may_be_meant},
};

/// A namespace that is there.
pub(super) struct There {
    /// As the first that means it has it.
    pub(super) target: Target,
    pub(super) found: Found,
    /// Those that mean it, with the container that each has led to.
    pub(super) entries: Vec<(usize, Option<ContainerId>)>,
}

/// An entry whose rules wait, all or one: its container is not running, or they cannot be in force.
#[derive(Clone)]
pub(super) struct Waits {
    pub(super) entry: usize,
    pub(super) container: Container,
    pub(super) id: ContainerId,
    pub(super) why: String,
}

/// Where the entries of a file lead.
#[derive(Default)]
pub(super) struct Places {
    pub(super) there: Vec<There>,
    pub(super) waits: Vec<Waits>,
    /// Namespaces that stay as they are, because an entry that means them is set aside.
    pub(super) aside: Vec<There>,
}

enum Led {
    There(Found),
    Waits(Waits),
}

impl Supervisor {
    /// Opens what each entry names and looks at it. Changes nothing.
    pub(super) async fn look_at_all(&self, caller: Caller, request: &Request) -> (Places, Vec<Refusal>) {
        let looks = stream::iter(0..request.namespaces.len())
            .map(|entry| async move { self.look_at(caller, entry, request).await });
        let mut looks = looks.buffered(AT_ONCE);
        let (mut places, mut refused, mut entry) = (Places::default(), Vec::new(), 0);
        let mut known: HashMap<NetnsCookie, usize> = HashMap::new();
        while let Some(led) = looks.next().await {
            match led {
                Ok(Led::Waits(waits)) => places.waits.push(waits),
                Ok(Led::There(found)) => match known.get(&found.cookie) {
                    Some(index) => places.there[*index].entries.push((entry, found.container.clone())),
                    None => {
                        known.insert(found.cookie, places.there.len());
                        let target = request.namespaces[entry].target.clone();
                        let entries = vec![(entry, found.container.clone())];
                        places.there.push(There { target, found, entries });
                    }
                },
                Err(_) if request.aside().contains_key(&entry) => {}
                Err(refusal) => refused.push(refusal),
            }
            entry += 1;
        }
        let is_aside =
            |there: &mut There| there.entries.iter().any(|(entry, _)| request.aside().contains_key(entry));
        places.aside = places.there.extract_if(.., is_aside).collect();
        (places, refused)
    }

    async fn look_at(&self, caller: Caller, entry: usize, request: &Request) -> Result<Led, Refusal> {
        let spec = &request.namespaces[entry];
        let target = &spec.target;
        if let Some(waits) = request.waits(entry) {
            return Ok(Led::Waits(waits));
        }
        // One that was found is meant whatever it is called by now.
        let by_id = request.by_id(entry);
        let opened = match self.open_unless_steered(by_id.as_ref().unwrap_or(target), caller).await {
            Ok(Some(opened)) => opened,
            Ok(None) => crate::supervisor::attach::open_again(&*self.table.lock().await, target)
                .map_err(|error| flaw(entry, None, error))?,
            Err(error) => {
                if let (Target::Container(container), TargetError::NotRunning { id, .. }) = (target, &error)
                    && spec.follows()
                {
                    let id = request.discovered(entry).unwrap_or(id).clone();
                    let (container, why) = (container.clone(), error.to_string());
                    return Ok(Led::Waits(Waits { entry, container, id, why }));
                }
                let refuse = if error.is_not_found() { flaw } else { refusal };
                return Err(refuse(entry, None, error.into()));
            }
        };
        let host_netns = if spec.host_netns { HostNetns::Allowed } else { HostNetns::Refused };
        may_be_meant(target, &opened, host_netns).map_err(|error| flaw(entry, None, error))?;
        let is_of_process = leads_through_process(target, &opened.processes);
        let found = find_out(opened, target, None).await.map_err(|error| refusal(entry, None, error))?;
        // Who wrote the file is not there to say which process is meant by now; a cookie is never another namespace's.
        if request.is_again() && is_of_process && request.was_at(entry) != Some(found.cookie) {
            return Err(refusal(entry, None, recycled(&format!("target `{target}`"))));
        }
        Ok(Led::There(found))
    }
}

/// The error about what is looked for again by the number of a process, and `what` that is.
pub(super) fn recycled(what: &str) -> Error {
    let message = format!("{what}: it leads through a process, whose number may be another process's by now");
    let hint = "when it is the process that is meant, apply the file again: `redirector apply FILE`, or SIGHUP for the daemon's own";
    Error::new(Code::Failed, message).with_hint(hint)
}
