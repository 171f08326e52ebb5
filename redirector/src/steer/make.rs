//! From a namespace that is not steered to one that is.

use std::{os::fd::AsFd as _, sync::Arc};

use tokio::sync::mpsc;

use super::{
    all::All,
    end::How,
    error::{blocking, failed},
    limits::Limits,
    look::Found,
    places::Share,
    rules::RuleTable,
    settle::{make_sockets, settle},
    slots,
    steered::{Steered, SteeredParts, WentDown},
};
use crate::{
    config::Target,
    control::{Code, Error},
    dial::{Dialer, Itself, Outgoing, Selves, SourcePorts},
    kernel::{AttachedProgram, Ingress, Instance, Shared},
    locate::Watch,
    netns::{NetnsCookie, SocketFactory},
};

/// What all steered namespaces have in common, and are made with.
#[derive(Debug)]
pub(crate) struct Maker {
    /// Of connections.
    pub(crate) limits: Arc<Limits>,
    /// Tells when one has died.
    pub(crate) watch: Arc<Watch>,
    /// What programs share.
    pub(crate) kernel: Arc<Shared>,
    /// What is dialled in each of them passes its program.
    pub(crate) selves: Arc<Selves>,
    /// The daemon's own connections, so that none is taken twice.
    pub(crate) outgoing: Arc<Outgoing>,
    /// Of the daemon's own namespace.
    pub(crate) own: NetnsCookie,
    /// Hears of rules whose destination does not answer.
    pub(crate) went_down: mpsc::UnboundedSender<WentDown>,
    /// Those that there are.
    pub(crate) all: All,
}

/// A namespace that can be steered from now on. Who does not start it aborts it.
pub(crate) struct Ready {
    pub(crate) netns: Arc<Steered>,
    found: Arc<Found>,
    inside: Arc<Itself>,
}

impl Maker {
    /// Makes everything for a namespace that is not steered yet, but the link, which is what counts.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a part of it. Nothing is left of it then.
    pub(crate) async fn make(
        &self,
        target: &Target,
        found: &Arc<Found>,
        rules: Arc<RuleTable>,
        foreign_programs: Vec<AttachedProgram>,
    ) -> Result<Ready, Error> {
        let Some(share) = Share::reserve(&self.limits.places) else {
            let message = format!("attach `{target}`: too few open files are left for another namespace");
            let hint = "raise the daemon's limit: LimitNOFILE= of a systemd unit, `ulimit -Hn`; or lower `max_connections`";
            return Err(Error::new(Code::Failed, message).with_hint(hint));
        };
        let Found { file, cookie, ref survey, ref container, host, .. } = **found;
        let (of_rules, there) = (Arc::clone(&rules), Arc::clone(found));
        let (for_error, shared) = (target.clone(), Arc::clone(&self.kernel));
        let (for_sockets, anchor, instance) = blocking(move || {
            let error = |error: &(dyn std::error::Error + 'static)| failed("attach", &for_error, error);
            let anchor = slots::anchor(&there.fd, cookie, &for_error)?;
            let for_sockets = there.fd.try_clone().map_err(|source| error(&source))?;
            let (rule_set, count) = (&of_rules.rule_set, of_rules.counters());
            let loaded = Instance::load_with(&shared, rule_set, count, Ingress::Read);
            let instance = loaded.map_err(|source| match source.raw_os_error() {
                Some(nix::libc::EPERM | nix::libc::EINVAL) => error(&source)
                    .with_hint("the daemon needs CAP_BPF, CAP_NET_ADMIN and Linux 5.10 or newer; `redirector doctor` tries it"),
                _ => error(&source),
            })?;
            Ok((for_sockets, anchor, instance))
        })
        .await?;
        let inside = Arc::new(Itself {
            bypass: Arc::clone(&instance.bypass),
            ports: SourcePorts::outside(survey.local_ports),
        });
        let dialer = Dialer {
            factory: SocketFactory::new(self.limits.stock()),
            inside: Arc::clone(&inside),
            selves: Arc::clone(&self.selves),
            own: self.own,
            outgoing: Arc::clone(&self.outgoing),
        };
        // `self` would be another namespace for everyone who reads it.
        let known_as = if *target == Target::Caller { Target::Cookie(cookie.0) } else { target.clone() };
        let parts = |watched| SteeredParts {
            target: known_as,
            cookie,
            file,
            watched,
            container: container.clone(),
            host,
            limits: Arc::clone(&self.limits),
            share,
            instance,
            dialer,
            table: Arc::clone(&rules),
            anchor,
            foreign_programs,
            went_down: self.went_down.clone(),
        };
        // Before the link: a namespace that dies from here on is noticed.
        let netns = self.all.add(|| Steered::new(parts(self.watch.add(file))));
        netns.watched.named_by(&found.named_by);
        make_sockets(&netns, for_sockets, rules.needs()).await?;
        settle(&netns);
        Ok(Ready { netns, found: Arc::clone(found), inside })
    }

    /// Starts to steer. Where that fails the namespace is aborted.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the link.
    pub(crate) async fn start(&self, target: &Target, ready: &Ready) -> Result<(), Error> {
        let Ready { netns, found, inside } = ready;
        // Before the link: what we dial there passes.
        self.selves.insert(netns.cookie, inside);
        if let Err(source) = netns.instance.attach(found.fd.as_fd()) {
            self.selves.remove(netns.cookie);
            netns.end(How::Abort).await;
            return Err(failed("attach", target, &source));
        }
        Ok(())
    }
}
