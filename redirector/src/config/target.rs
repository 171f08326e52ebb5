//! How a user names a namespace.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{
    Container, Engine, ParseError,
    meant::{Meant as _, read_or_guess},
};

/// A namespace as the user names it: `netns:NAME`, `path:/ABS`, `pid:N`, `self`, `host`, `docker:NAME`,
/// `podman:NAME` or `cookie:N`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A name that `ip netns` knows.
    Netns(String),
    /// An absolute path of an nsfs file.
    Path(PathBuf),
    /// A process of the daemon's PID namespace.
    Pid(u32),
    /// The namespace of the process that asks.
    Caller,
    /// The namespace of this host: that of PID 1 where the daemon runs.
    Host,
    /// That of a running container.
    Container(Container),
    /// A namespace that is steered already, by its netns cookie.
    Cookie(u64),
}

impl Target {
    /// Whether it says by itself that it is a process, whose number means another one later: `pid:N`, or a path in
    /// `/proc`.
    #[must_use]
    pub fn is_process(&self) -> bool {
        match self {
            Self::Pid(_) => true,
            Self::Path(path) => path.starts_with("/proc"),
            Self::Netns(_) | Self::Caller | Self::Host | Self::Container(_) | Self::Cookie(_) => false,
        }
    }

    /// Whether it is a name that may lead to another namespace later, and is meant to: rules can wait for what has it, and
    /// follow it.
    #[must_use]
    pub fn can_be_followed(&self) -> bool {
        match self {
            Self::Netns(_) | Self::Container(_) => true,
            Self::Path(_) => !self.is_process(),
            Self::Pid(_) | Self::Caller | Self::Host | Self::Cookie(_) => false,
        }
    }

    /// The container that it names.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::Container(container) => Some(container),
            _ => None,
        }
    }
}

impl From<&Container> for Target {
    fn from(container: &Container) -> Self {
        Self::Container(container.clone())
    }
}

/// Whether there is something to suggest.
fn is_guessed(text: &str) -> bool {
    Target::guesses(text).iter().any(|guess| {
        guess != text
            && guess.split_once(':').is_some_and(|(kind, _)| KINDS.contains(&kind))
            && parse(guess).is_ok()
    })
}

/// What a target can begin with.
const KINDS: [&str; 6] = ["netns", "path", "pid", "cookie", "docker", "podman"];

const FORMS: &str =
    "`netns:NAME`, `path:/ABS`, `pid:N`, `self`, `host`, `docker:NAME`, `podman:NAME` or `cookie:N`";

/// Words that begin a target, now or in a later version, so that they are not taken for host names.
pub(super) const KEYWORDS: [&str; 12] = [
    "netns",
    "path",
    "pid",
    "self",
    "cookie",
    "docker",
    "podman",
    "containerd",
    "cri",
    "pod",
    "unit",
    "unix",
];

impl FromStr for Target {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read_or_guess("target", text)
    }
}

/// Says why a text is no target, and does not repeat it.
pub(super) fn parse(text: &str) -> Result<Target, ParseError> {
    let error = |why: String| Err(ParseError(why));
    match text {
        "self" => return Ok(Target::Caller),
        "host" => return Ok(Target::Host),
        "" => return error(format!("needs a kind: {FORMS}")),
        _ => {}
    }
    let Some((kind, rest)) = text.split_once(':') else {
        return error("needs a kind".into());
    };
    match kind {
        "netns" => match rest {
            "" => error("the name is empty".into()),
            "." | ".." => error("not a name".into()),
            _ if rest.contains('/') => error("a name holds no `/`; a file is named by `path:`".into()),
            _ if rest.contains('\0') => error("a name holds no NUL".into()),
            _ if rest.len() > 255 => error("the name is longer than 255 bytes".into()),
            _ => Ok(Target::Netns(rest.into())),
        },
        "path" if !rest.starts_with('/') => error("the path is not absolute".into()),
        "path" if rest.contains('\0') => error("a path holds no NUL".into()),
        "path" if rest.len() > 4095 => error("the path is longer than 4095 bytes".into()),
        "path" => Ok(Target::Path(rest.into())),
        "pid" => match rest.parse::<u32>() {
            Ok(pid) if pid > 0 && i32::try_from(pid).is_ok() => Ok(Target::Pid(pid)),
            _ => error(format!("`{}` is not a process id", rest.escape_debug())),
        },
        "docker" => Container::parse(Engine::Docker, rest).map(Target::Container),
        "podman" => Container::parse(Engine::Podman, rest).map(Target::Container),
        "cookie" => match rest.parse::<u64>() {
            Ok(cookie) if cookie > 0 => Ok(Target::Cookie(cookie)),
            _ => error(format!("`{}` is not a netns cookie", rest.escape_debug())),
        },
        "self" | "host" => error(format!("`{kind}` takes nothing after it")),
        _ if is_guessed(text) => error(format!("unknown kind `{}`", kind.escape_debug())),
        _ => error(format!("unknown kind `{}`; a target is {FORMS}", kind.escape_debug())),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(name) => write!(f, "netns:{name}"),
            Self::Path(path) => write!(f, "path:{}", path.display()),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Caller => f.write_str("self"),
            Self::Host => f.write_str("host"),
            Self::Container(container) => container.fmt(f),
            Self::Cookie(cookie) => write!(f, "cookie:{cookie}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for text in [
            "netns:ns1",
            "netns:a b",
            "path:/proc/1/ns/net",
            "pid:1",
            "self",
            "host",
            "cookie:18446744073709551615",
            "docker:web",
            "podman:my_web.1-a",
            "docker:0a1b",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_targets_are_refused_by_name() {
        for (text, part) in [
            ("", "needs a kind"),
            ("ns1", "did you mean `docker:ns1` or `podman:ns1` or `netns:ns1`?"),
            ("12", "`pid:12` or `docker:12`"),
            ("host:", "did you mean `host`?"),
            ("/run/netns/a", "did you mean `path:/run/netns/a`?"),
            ("a\nb", "did you mean `netns:a\\nb`?"),
            ("netns:", "empty"),
            ("netns:a/b", "no `/`"),
            ("netns:..", "not a name"),
            ("path:proc/1/ns/net", "not absolute"),
            ("pid:0", "`0`"),
            ("pid:-1", "`-1`"),
            ("pid:99999999999", "not a process id"),
            ("cookie:0", "not a netns cookie"),
            ("self:1", "nothing after it"),
            ("docker:", "empty"),
            ("docker:/web", "`docker:web`"),
            ("docker:library/web", "is an image"),
            ("podman:-web", "does not begin with"),
            ("podman:we b", "holds no ` `"),
            ("containerd:web", "unknown kind `containerd`"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
