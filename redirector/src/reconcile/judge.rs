//! Whether a rule can be in force in a namespace as that is now.

use super::{destinations::Missing, refused::Refused};
use crate::{
    config::{Destination, Rule, RuleSpec, Target},
    dial::Whereabouts,
    kernel::{self, AttachedProgram},
    netns::Survey,
    steer::Found,
};

/// What the kernel can tell of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// By which interface it came, among others.
    Ingress,
    NoIngress,
}

impl From<&kernel::Shared> for Tells {
    fn from(shared: &kernel::Shared) -> Self {
        if shared.reads_ingress() { Self::Ingress } else { Self::NoIngress }
    }
}

/// Whether a rule can be in force there, beside these programs of others.
///
/// # Errors
///
/// What is in its way.
pub(crate) fn judge(
    target: &Target,
    rule: &Rule,
    (found, foreign, tells): (&Found, &[AttachedProgram], Tells),
    (whereabouts, missing): (&Whereabouts, Missing),
) -> Result<(), Refused> {
    if rule.to == Destination::Original && !found.survey.loopback_up {
        return Err(Refused::LoopbackDown(target.clone()));
    }
    can_tell_interfaces(rule, tells)?;
    are_interfaces_there(target, rule, (&found.survey, missing))?;
    if !rule.coexist {
        return no_other_redirector(target, foreign);
    }
    if whereabouts.elsewhere.as_ref().is_some_and(|one| one.is_in(found.cookie)) {
        return Err(Refused::CoexistInside(rule.to.clone()));
    }
    Ok(())
}

/// Whether the kernel tells what a rule asks for.
///
/// # Errors
///
/// When it does not.
pub(crate) fn can_tell_interfaces(spec: &RuleSpec, tells: Tells) -> Result<(), Refused> {
    if spec.interfaces.is_empty() || tells == Tells::Ingress { Ok(()) } else { Err(Refused::NoIngress) }
}

fn are_interfaces_there(
    target: &Target,
    spec: &RuleSpec,
    (survey, missing): (&Survey, Missing),
) -> Result<(), Refused> {
    let is_there = |name: &str| survey.interfaces.iter().any(|(there, _)| there == name);
    match spec.interfaces.iter().find(|one| !is_there(one.as_str())) {
        Some(absent) if missing != Missing::Down => {
            let there = survey.interfaces.iter().map(|(name, _)| name.clone()).collect();
            Err(Refused::NoInterface { target: target.clone(), absent: absent.clone(), there })
        }
        _ => Ok(()),
    }
}

/// Whether nobody else's redirector is attached there: of two programs that steer the same connection the first has it.
fn no_other_redirector(target: &Target, foreign: &[AttachedProgram]) -> Result<(), Refused> {
    match foreign.iter().find(|one| one.name == kernel::PROGRAM) {
        None => Ok(()),
        Some(other) => Err(Refused::OtherRedirector { target: target.clone(), program: other.id }),
    }
}

/// Programs there that are not ours.
pub(crate) fn foreign_programs(ours: Option<u32>, found: &[AttachedProgram]) -> Vec<AttachedProgram> {
    found.iter().filter(|one| Some(one.id) != ours).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        intent::testing::{check, rule, target},
        reconcile::testing::{elsewhere, found, redirector, variant},
    };

    /// Each line: what the rule says, what is not as usual, what is in its way. `netns:here` is the namespace itself.
    #[tokio::test]
    async fn a_rule_can_be_unless_something_there_is_in_its_way() {
        let cases = [
            ["80", "", ""],
            ["80>original", "", ""],
            ["80>original", "lo-is-down", "LoopbackDown"],
            ["80", "lo-is-down", ""],
            ["80>pass", "lo-is-down", ""],
            ["80%eth0", "", ""],
            ["80%eth0", "no-ingress", "NoIngress"],
            ["80", "no-ingress", ""],
            ["80%eth9", "", "NoInterface"],
            ["80%eth9", "may-come", ""],
            ["80%eth9", "may-come no-ingress", "NoIngress"],
            ["80", "other-program", ""],
            ["80", "other-redirector", "OtherRedirector"],
            ["80", "other-program other-redirector", "OtherRedirector"],
            ["80~", "other-redirector", ""],
            ["80>netns:here/127.0.0.1:1", "", ""],
            ["80>netns:here/127.0.0.1:1~", "", "CoexistInside"],
            ["80>netns:there/127.0.0.1:1~", "", ""],
            ["80>netns:there/127.0.0.1:1~", "other-redirector", ""],
        ];
        check(&cases, |case| {
            let (mut seen, mut foreign) = (found(7, None), Vec::new());
            let (mut tells, mut missing) = (Tells::Ingress, Missing::Refused);
            for word in case[1].split_whitespace() {
                match word {
                    "lo-is-down" => seen.survey.loopback_up = false,
                    "no-ingress" => tells = Tells::NoIngress,
                    "may-come" => missing = Missing::Down,
                    "other-program" => foreign.push(AttachedProgram { id: 5, name: "other".into() }),
                    _ => foreign.push(redirector(6)),
                }
            }
            let rule = rule("a", case[0]);
            let whereabouts = match &rule.to {
                Destination::Inside { target: to, .. } => {
                    elsewhere(to, if to.to_string() == "netns:here" { 7 } else { 8 })
                }
                _ => Whereabouts::default(),
            };
            let judged = judge(&target("netns:n"), &rule, (&seen, &foreign, tells), (&whereabouts, missing));
            judged.err().map(|refused| variant(&refused)).unwrap_or_default()
        });
    }

    #[test]
    fn a_program_of_others_is_each_that_is_not_ours() {
        let all = [redirector(1), redirector(2)];
        assert_eq!(foreign_programs(Some(1), &all), [redirector(2)]);
        assert_eq!(foreign_programs(None, &all), all);
        assert_eq!(foreign_programs(Some(9), &[]), []);
    }
}
