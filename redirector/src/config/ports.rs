//! A set of ports.

use std::{fmt, str::FromStr};

use super::ParseError;

/// Ports 1 to 65,535, as disjoint, ascending ranges that do not touch. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSet(Vec<(u16, u16)>);

/// Ranges that one set can have after merging.
const MAX_RANGES: usize = 64;

impl PortSet {
    /// The ranges, first and last port both included.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// How many ports: 1 to 65,535.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|(first, last)| u32::from(*last) - u32::from(*first) + 1).sum()
    }

    /// Never, by construction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    fn from_items(mut items: Vec<(u16, u16)>) -> Self {
        items.sort_unstable();
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (first, last) in items {
            match ranges.last_mut() {
                Some(previous) if u32::from(first) <= u32::from(previous.1) + 1 => {
                    previous.1 = previous.1.max(last);
                }
                _ => ranges.push((first, last)),
            }
        }
        Self(ranges)
    }
}

/// Ascending ranges, without those of others, which are ascending too.
pub(crate) fn without(ranges: &[(u16, u16)], others: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut left = Vec::new();
    let mut others = others.iter().map(|(from, to)| (u32::from(*from), u32::from(*to))).peekable();
    for (first, last) in ranges.iter().map(|(first, last)| (u32::from(*first), u32::from(*last))) {
        let mut next = first;
        while let Some((from, to)) = others.peek().copied().filter(|(from, _)| *from <= last) {
            if from > next {
                left.push((next, from - 1));
            }
            next = next.max(to + 1);
            if to > last {
                // It may reach into what comes next.
                break;
            }
            others.next();
        }
        if next <= last {
            left.push((next, last));
        }
    }
    let port = |port| u16::try_from(port).expect("between two ports");
    left.into_iter().map(|(first, last)| (port(first), port(last))).collect()
}

fn port(text: &str) -> Result<u16, ParseError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) => Err(ParseError("port 0 cannot be matched; ports are 1 to 65535, all of them `*`".into())),
        Ok(port) if digits => Ok(port),
        _ => Err(ParseError(format!("`{}` is not a port (1 to 65535)", text.escape_debug()))),
    }
}

impl FromStr for PortSet {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "*" || text == "all" {
            return Ok(Self(vec![(1, u16::MAX)]));
        }
        let mut items = Vec::new();
        for item in text.split(',') {
            items.push(match item.split_once('-') {
                None => {
                    let port = port(item)?;
                    (port, port)
                }
                Some((first, last)) => {
                    let (first, last) = (port(first)?, port(last)?);
                    if first > last {
                        return Err(ParseError(format!("the range `{first}-{last}` is reversed")));
                    }
                    (first, last)
                }
            });
        }
        let set = Self::from_items(items);
        if set.0.len() > MAX_RANGES {
            return Err(ParseError(format!("more than {MAX_RANGES} separate port ranges in one match")));
        }
        Ok(set)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == [(1, u16::MAX)] {
            return f.write_str("*");
        }
        for (index, (first, last)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_sorted_and_merged() {
        for (text, shown, len) in [
            ("80", "80", 1),
            ("443,80", "80,443", 2),
            ("80,81,82-90,85-95", "80-95", 16),
            ("1-65535", "*", 65_535),
            ("*", "*", 65_535),
            ("all", "*", 65_535),
            ("65535,1", "1,65535", 2),
        ] {
            let set: PortSet = text.parse().unwrap();
            assert_eq!(set.to_string(), shown);
            assert_eq!(set.len(), len);
        }
    }

    #[test]
    fn ranges_are_taken_away() {
        let all = 1..=20_u16;
        let sets: [&[(u16, u16)]; 7] = [
            &[],
            &[(1, 20)],
            &[(1, 1)],
            &[(20, 20)],
            &[(3, 5), (7, 9), (15, 16)],
            &[(2, 8), (10, 15)],
            &[(5, 7)],
        ];
        for ranges in sets {
            for others in sets {
                let is_in = |set: &[(u16, u16)], port| {
                    set.iter().any(|(first, last)| (*first..=*last).contains(&port))
                };
                let left = without(ranges, others);
                for port in all.clone() {
                    assert_eq!(
                        is_in(&left, port),
                        is_in(ranges, port) && !is_in(others, port),
                        "{ranges:?} {others:?}"
                    );
                }
            }
        }
        assert_eq!(without(&[(1, u16::MAX)], &[(u16::MAX, u16::MAX)]), [(1, u16::MAX - 1)]);
    }

    #[test]
    fn bad_ports_are_refused() {
        for text in ["", "0", "65536", "80-", "-80", "90-80", "80,,81", "http", "+80", "80 ", "1-2-3"] {
            assert!(text.parse::<PortSet>().is_err(), "{text}");
        }
    }
}
