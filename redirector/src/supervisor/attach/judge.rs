//! Whether a rule can be in force in a namespace.

use super::survey::Found;
use crate::{
    config::{Destination, Rule, Target},
    control::{Code, Error},
    dial::Whereabouts,
    kernel::{self, AttachedProgram},
    locate::OpenNetns,
    supervisor::{Supervisor, namespace::Namespace, opening::Missing},
};

impl Supervisor {
    /// Whether a rule can be in force there as the namespace is now, beside these programs of others.
    pub(in crate::supervisor) fn judge(
        &self,
        target: &Target,
        rule: &Rule,
        (found, foreign): (&Found, &[AttachedProgram]),
        (whereabouts, missing): (&Whereabouts, Missing),
    ) -> Result<(), Error> {
        if rule.to == Destination::Original && !found.survey.loopback_up {
            let message =
                format!("target `{target}`: the loopback device `lo` is down there, `original` needs it");
            return Err(
                Error::new(Code::Failed, message).with_hint("`ip link set lo up` inside the namespace")
            );
        }
        self.judge_interfaces(target, rule, (&found.survey, missing))?;
        if !rule.coexist {
            return no_other_redirector(target, foreign);
        }
        if whereabouts.elsewhere.as_ref().is_some_and(|one| one.is_in(found.cookie)) {
            let message = format!(
                "destination `{}`: it is in the namespace itself, where another redirector may take what is on its way there, so not with `coexist`",
                rule.to
            );
            return Err(Error::new(Code::Failed, message));
        }
        Ok(())
    }
}

/// Whether the namespace is one that the user may mean.
pub(in crate::supervisor) fn may_be_meant(
    target: &Target,
    opened: &OpenNetns,
    host_netns: super::HostNetns,
) -> Result<(), Error> {
    if !opened.host || host_netns == super::HostNetns::Allowed {
        return Ok(());
    }
    let message = match &opened.container {
        None => format!("target `{target}`: that is the host's own network namespace"),
        Some(_) => format!("target `{target}`: that container uses the host's own network namespace"),
    };
    let hint = "steering it takes traffic of the whole host; if you mean it, add `--host-netns`, in a file `host_netns = true`";
    Err(Error::new(Code::Failed, message).with_hint(hint))
}

/// Programs of others there.
pub(in crate::supervisor) fn foreign_programs(
    existing: Option<&Namespace>,
    found: &Found,
) -> Vec<AttachedProgram> {
    let ours = existing.and_then(|netns| netns.instance.program_id().ok());
    found.programs.iter().filter(|one| Some(one.id) != ours).cloned().collect()
}

/// Whether nobody else's redirector is attached there: of two programs that steer the same connection the first has it.
fn no_other_redirector(target: &Target, foreign: &[AttachedProgram]) -> Result<(), Error> {
    let Some(other) = foreign.iter().find(|one| one.name == kernel::PROGRAM) else { return Ok(()) };
    let message =
        format!("target `{target}`: another redirector is attached there already, with program {}", other.id);
    let hint =
        "detach it there; `--coexist` attaches beside it: of two that steer a connection the first has it";
    Err(Error::new(Code::Failed, message).with_hint(hint))
}
