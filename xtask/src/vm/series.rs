//! Which kernels: those that are asked for by name, by default, and by `all`.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};

/// A kernel series: `6.18`, or the newest one that is packaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    Numbered(u32, u32),
    Newest,
}

/// The oldest that redirector claims, and the newest long-term one.
pub(crate) const DEFAULT: [Series; 2] = [Series::Numbered(5, 10), Series::Numbered(6, 18)];

pub(crate) const ALL: [Series; 5] = [
    Series::Numbered(5, 10),
    Series::Numbered(6, 1),
    Series::Numbered(6, 12),
    Series::Numbered(6, 18),
    Series::Newest,
];

impl Series {
    /// Whether a kernel that says this of its release is one of them.
    pub(crate) fn is_of(self, release: &str) -> bool {
        match self {
            Self::Numbered(..) => {
                let rest = release.strip_prefix(&self.to_string());
                rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
            }
            Self::Newest => false,
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(major, minor) => write!(f, "{major}.{minor}"),
            Self::Newest => write!(f, "newest"),
        }
    }
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        let numbers = text.split_once('.').map(|(major, minor)| (major.parse(), minor.parse()));
        let Some((Ok(major), Ok(minor))) = numbers else {
            bail!("`{text}` is no kernel series: it should be like `6.18`, or `newest`");
        };
        Ok(Self::Numbered(major, minor))
    }
}

/// Splits `[VERSION…|all] [FILTER…]`. No test has a name like a version.
pub(crate) fn split(arguments: &[std::ffi::OsString]) -> (Vec<Series>, &[std::ffi::OsString]) {
    let mut chosen = Vec::new();
    let mut rest = arguments;
    while let [first, after @ ..] = rest {
        let Some(text) = first.to_str() else { break };
        match text.parse() {
            Ok(series) => chosen.push(series),
            Err(_) if text == "all" => chosen.extend(ALL),
            Err(_) => break,
        }
        rest = after;
    }
    let mut once: Vec<Series> = Vec::new();
    for series in chosen {
        if !once.contains(&series) {
            once.push(series);
        }
    }
    (if once.is_empty() { DEFAULT.to_vec() } else { once }, rest)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn a_release_is_of_one_series() {
        for (series, release, is_of) in [
            ("6.18", "6.18.5", true),
            ("6.18", "6.18-rc1", true),
            ("6.18", "6.18", true),
            ("6.1", "6.18.5", false),
            ("6.1", "6.1.0-32-cloud-amd64", true),
            ("5.10", "6.5.10", false),
            ("newest", "7.3.4", false),
        ] {
            assert_eq!(series.parse::<Series>().unwrap().is_of(release), is_of, "{series} {release}");
        }
    }

    fn split_words(words: &str) -> (Vec<Series>, Vec<String>) {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let (series, rest) = split(&words);
        (series, rest.iter().map(|word| word.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn versions_come_first_and_the_rest_is_the_harness() {
        let newest = Series::Newest;
        assert_eq!(
            split_words("newest residue:: --exact"),
            (vec![newest], vec!["residue::".into(), "--exact".into()])
        );
        assert_eq!(
            split_words("6.1 6.12 6.1"),
            (vec![Series::Numbered(6, 1), Series::Numbered(6, 12)], vec![])
        );
        assert_eq!(split_words("all"), (ALL.to_vec(), vec![]));
    }

    #[test]
    fn without_a_version_it_is_the_oldest_and_the_newest_long_term_one() {
        assert_eq!(split_words("--nocapture"), (DEFAULT.to_vec(), vec!["--nocapture".into()]));
        assert_eq!(split_words("relay:: 6.1").1, ["relay::", "6.1"]);
    }
}
