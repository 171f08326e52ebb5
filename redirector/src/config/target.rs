//! How a user names a namespace.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{Container, Engine, ParseError};

/// A namespace as the user names it: `netns:NAME`, `path:/ABS`, `pid:N`, `self`, `docker:NAME`, `podman:NAME` or
/// `cookie:N`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A name that `ip netns` knows.
    Netns(String),
    /// An absolute path of an nsfs file.
    Path(PathBuf),
    /// A process of the daemon's PID namespace.
    Pid(u32),
    /// The namespace of the process that asks.
    Caller,
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
            Self::Netns(_) | Self::Caller | Self::Container(_) | Self::Cookie(_) => false,
        }
    }
}

const FORMS: &str = "`netns:NAME`, `path:/ABS`, `pid:N`, `self`, `docker:NAME`, `podman:NAME` or `cookie:N`";

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
        let error = |why: String| Err(ParseError(format!("target `{}`: {why}", text.escape_debug())));
        if text == "self" {
            return Ok(Self::Caller);
        }
        let Some((kind, rest)) = text.split_once(':') else {
            return error(format!("needs a kind: {}", readings(text)));
        };
        match kind {
            "netns" => match rest {
                "" => error("the name is empty".into()),
                "." | ".." => error("not a name".into()),
                _ if rest.contains('/') => {
                    error("a name holds no `/`; for a file use `path:/ABSOLUTE/PATH`".into())
                }
                _ if rest.contains('\0') => error("a name holds no NUL".into()),
                _ if rest.len() > 255 => error("the name is longer than 255 bytes".into()),
                _ => Ok(Self::Netns(rest.into())),
            },
            "path" if !rest.starts_with('/') => {
                error(format!("the path is not absolute; use `path:/…/{}`", rest.escape_debug()))
            }
            "path" if rest.contains('\0') => error("a path holds no NUL".into()),
            "path" if rest.len() > 4095 => error("the path is longer than 4095 bytes".into()),
            "path" => Ok(Self::Path(rest.into())),
            "pid" => match rest.parse::<u32>() {
                Ok(pid) if pid > 0 && i32::try_from(pid).is_ok() => Ok(Self::Pid(pid)),
                _ => error(format!("`{}` is not a process id", rest.escape_debug())),
            },
            "docker" => Container::parse(Engine::Docker, rest)
                .map(Self::Container)
                .or_else(|ParseError(why)| error(why)),
            "podman" => Container::parse(Engine::Podman, rest)
                .map(Self::Container)
                .or_else(|ParseError(why)| error(why)),
            "cookie" => match rest.parse::<u64>() {
                Ok(cookie) if cookie > 0 => Ok(Self::Cookie(cookie)),
                _ => error(format!("`{}` is not a netns cookie", rest.escape_debug())),
            },
            "self" => error("`self` takes nothing after it".into()),
            _ => error(format!("unknown kind `{}`; a target is {FORMS}", kind.escape_debug())),
        }
    }
}

/// What a word without a kind could have meant.
fn readings(word: &str) -> String {
    let kinds = if word.starts_with('/') {
        &["path"][..]
    } else if word.is_empty() {
        return FORMS.to_owned();
    } else if word.bytes().all(|byte| byte.is_ascii_digit()) {
        &["pid", "docker", "podman", "netns"][..]
    } else {
        &["docker", "podman", "netns"]
    };
    let readings: Vec<_> = kinds.iter().map(|kind| format!("{kind}:{word}")).collect();
    let readings = readings.iter().filter(|reading| reading.parse::<Target>().is_ok());
    let readings: Vec<_> = readings.map(|reading| format!("`{}`", reading.escape_debug())).collect();
    if readings.is_empty() { FORMS.to_owned() } else { format!("did you mean {}?", readings.join(" or ")) }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(name) => write!(f, "netns:{name}"),
            Self::Path(path) => write!(f, "path:{}", path.display()),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Caller => f.write_str("self"),
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
