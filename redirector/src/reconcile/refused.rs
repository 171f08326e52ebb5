//! Why a change is refused: what reconciling itself finds. Calls that fail, and what opening a target finds, have errors of
//! their own.

use redirector_ebpf::{MAX_CONSUMERS, MAX_RULES};

use crate::{
    config::{Destination, Interface, RuleName, SetName, Target},
    control::{Code, Error},
    matcher::CompileError,
};

/// Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the daemon is stopping")]
    Stopping,
    #[error("target `{0}`: this namespace is not steered")]
    NotSteered(Target),
    #[error("rule `{rule}`: `{target}` has no such rule")]
    NoSuchRule { target: Target, rule: RuleName },
    #[error("target `{0}`: that is the host's own network namespace")]
    Host(Target),
    #[error("target `{0}`: that container uses the host's own network namespace")]
    HostOfContainer(Target),
    #[error(
        "target `{0}`: only a container, `netns:NAME` or `path:/ABS` can be followed or waited for, and no process"
    )]
    CannotBeFollowed(Target),
    #[error("{0}")]
    CannotFollow(String),
    #[error("target `{0}`: the loopback device `lo` is down there, `original` needs it")]
    LoopbackDown(Target),
    #[error("this kernel does not tell by which interface a connection comes")]
    NoIngress,
    #[error("target `{target}`: it has no interface `{absent}`")]
    NoInterface { target: Target, absent: Interface, there: Vec<String> },
    #[error("target `{target}`: another redirector is attached there already, with program {program}")]
    OtherRedirector { target: Target, program: u32 },
    #[error(
        "destination `{0}`: it is in the namespace itself, where another redirector may take what is on its way there, so not with `coexist`"
    )]
    CoexistInside(Destination),
    #[error("`{0}`: {most} programs hold listeners there already", most = MAX_CONSUMERS - 1)]
    TooManyPrograms(Target),
    #[error("rule `{rule}`: there is a rule of that name in `{target}`")]
    NameTaken { target: Target, rule: RuleName },
    #[error("rule `{rule}`: there is another rule of that name in `{target}`")]
    NameTakenThere { target: Target, rule: RuleName },
    #[error("rule `{rule}`: in `{target}` it is that of a configuration file")]
    OfFile { target: Target, rule: RuleName },
    #[error("rule `{rule}`: for `{target}` it is that of a configuration file")]
    OfFileFor { target: Target, rule: RuleName },
    #[error("rule `{0}`: the namespace has {MAX_RULES} rules already")]
    TooManyRules(RuleName),
    #[error("target `{0}`: a namespace has at most {MAX_RULES} rules")]
    MoreThanFit(Target),
    #[error("rule `{rule}`: {MAX_RULES} rules follow `{target}` already")]
    TooManyFollow { target: Target, rule: RuleName },
    #[error("rule `{rule}`: {why}")]
    Compile { rule: RuleName, why: String },
    #[error("target `{target}`: {why}")]
    CompileAll { target: Target, why: String },
    #[error("`{target}`: without what is to be detached: {why}")]
    CompileRest { target: Target, why: String },
    #[error("{0}: it leads through a process, whose number may be another process's by now")]
    Recycled(String),
    #[error("rule `{0}`: it was changed meanwhile by somebody else")]
    Changed(RuleName),
    #[error("another file was applied meanwhile")]
    OtherFile,
    #[error("rule `{0}`: its container was started again meanwhile")]
    StartedAgain(RuleName),
    #[error("rule `{rule}`: `{target}` is the same namespace, and the file has that rule there itself")]
    FilesOwn { target: Target, rule: RuleName },
    #[error("rule `{rule}`: `{target}` is the same namespace, and has another rule of that name")]
    Twin { target: Target, rule: RuleName },
    #[error("rule `{rule}`: in `{target}` a program has listeners by a rule of that name")]
    OfProgram { target: Target, rule: RuleName },
    #[error("rule `{rule}`: for `{target}` the set `{set}` has a rule of that name already")]
    OfSet { target: Target, rule: RuleName, set: SetName },
    #[error("rule `{rule}`: in `{target}` there is one of `attach` that says something else")]
    OfAttach { target: Target, rule: RuleName },
}

impl Refused {
    /// That some rules cannot be compiled with `rule`.
    pub(crate) fn compile(rule: &RuleName, error: &CompileError) -> Self {
        Self::Compile { rule: rule.clone(), why: error.to_string() }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotSteered(_) | Self::NoSuchRule { .. } => Code::NotFound,
            Self::CannotBeFollowed(_) => Code::Usage,
            _ => Code::Failed,
        }
    }

    /// A known mend.
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Host(_) | Self::HostOfContainer(_) => {
                "steering it takes traffic of the whole host; if you mean it, add `--host-netns`, in a file `host_netns = true`"
            }
            Self::CannotFollow(_) => {
                "name its namespace, or its container; or add `--no-follow`, in a file `follow = false`"
            }
            Self::LoopbackDown(_) => "`ip link set lo up` inside the namespace",
            Self::NoIngress => "`interface` needs Linux 5.17 or newer",
            Self::NoInterface { there, .. } => {
                return Some(format!("there are: {}", there.join(", ")).escape_debug().to_string());
            }
            Self::OtherRedirector { .. } => {
                "detach it there; `--coexist` attaches beside it: of two that steer a connection the first has it"
            }
            Self::NameTaken { .. } => "detach it first, or take another name",
            Self::OfFile { .. } | Self::OfFileFor { .. } => {
                "change it in the file and `apply` that, or take another name"
            }
            Self::CompileRest { .. } => "detach other rules first, or the whole namespace",
            Self::Recycled(_) => {
                "when it is the process that is meant, apply the file again: `redirector apply FILE`, or SIGHUP for the daemon's own"
            }
            Self::Changed(_) => "try again",
            Self::FilesOwn { .. } | Self::Twin { .. } => "give one of them another name",
            Self::OfProgram { .. } => "take another name, or end that program",
            Self::OfSet { .. } => {
                "take another name; or change it there; or, to have all rules of files replaced, add `--replace`"
            }
            Self::OfAttach { .. } => "detach it, take another name, or add `--prune`",
            _ => return None,
        };
        Some(hint.into())
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let error = Self::new(refused.code(), refused.to_string());
        match refused.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::testing::{name, target};

    /// Each line: why, the kind of error, a word of the text, a word of the mend where one is known.
    #[test]
    fn a_refusal_says_what_it_is_about_and_what_can_be_done() {
        let (to, rule) = (|| target("netns:n"), || name("web"));
        let cases = [
            (Refused::Stopping, Code::Failed, "stopping", None),
            (Refused::NotSteered(to()), Code::NotFound, "`netns:n`", None),
            (Refused::NoSuchRule { target: to(), rule: rule() }, Code::NotFound, "`web`", None),
            (Refused::CannotBeFollowed(to()), Code::Usage, "`netns:n`", None),
            (Refused::Host(to()), Code::Failed, "host's own", Some("--host-netns")),
            (Refused::HostOfContainer(to()), Code::Failed, "that container", Some("--host-netns")),
            (Refused::CannotFollow("it is so".into()), Code::Failed, "it is so", Some("name its namespace")),
            (Refused::LoopbackDown(to()), Code::Failed, "`original`", Some("`ip link set lo up`")),
            (Refused::NoIngress, Code::Failed, "interface", Some("5.17")),
            (
                Refused::NoInterface {
                    target: to(),
                    absent: "eth9".parse().unwrap(),
                    there: vec!["lo".into(), "eth\u{1b}0".into()],
                },
                Code::Failed,
                "`eth9`",
                Some("there are: lo, eth\\u{1b}0"),
            ),
            (
                Refused::OtherRedirector { target: to(), program: 5 },
                Code::Failed,
                "program 5",
                Some("--coexist"),
            ),
            (Refused::NameTaken { target: to(), rule: rule() }, Code::Failed, "`web`", Some("another name")),
            (Refused::NameTakenThere { target: to(), rule: rule() }, Code::Failed, "another rule", None),
            (
                Refused::OfFile { target: to(), rule: rule() },
                Code::Failed,
                "configuration file",
                Some("`apply`"),
            ),
            (
                Refused::OfFileFor { target: target("docker:x"), rule: rule() },
                Code::Failed,
                "`docker:x`",
                Some("`apply`"),
            ),
            (Refused::TooManyPrograms(to()), Code::Failed, "15 programs", None),
            (Refused::TooManyRules(rule()), Code::Failed, "16384 rules", None),
            (
                Refused::CompileRest { target: to(), why: "so".into() },
                Code::Failed,
                "so",
                Some("other rules first"),
            ),
            (Refused::Recycled("target".into()), Code::Failed, "process", Some("SIGHUP")),
            (Refused::Changed(rule()), Code::Failed, "meanwhile", Some("try again")),
            (
                Refused::Twin { target: to(), rule: rule() },
                Code::Failed,
                "same namespace",
                Some("another name"),
            ),
            (
                Refused::FilesOwn { target: to(), rule: rule() },
                Code::Failed,
                "the file has",
                Some("another name"),
            ),
            (
                Refused::OfProgram { target: to(), rule: rule() },
                Code::Failed,
                "a program",
                Some("end that program"),
            ),
            (
                Refused::OfSet { target: to(), rule: rule(), set: SetName::new("/etc/a.toml") },
                Code::Failed,
                "`/etc/a.toml`",
                Some("--replace"),
            ),
            (Refused::OfAttach { target: to(), rule: rule() }, Code::Failed, "`attach`", Some("--prune")),
        ];
        for (refused, code, word, mend) in cases {
            let error = Error::from(refused.clone());
            assert_eq!(error.code, code, "{refused:?}");
            assert!(error.message.contains(word), "{error:?}");
            let is_as_known = match (&error.hint, mend) {
                (Some(hint), Some(mend)) => hint.contains(mend),
                (None, None) => true,
                _ => false,
            };
            assert!(is_as_known, "{error:?}");
        }
    }
}
