//! What else a rule has, written otherwise: names and times.

use std::time::Duration;

use super::{Meant, bare};
use crate::config::{ParseError, RuleName, Span, rule};

impl Meant for RuleName {
    fn read(text: &str) -> Result<Self, ParseError> {
        rule::parse_name(text)
    }

    fn guesses(text: &str) -> Vec<String> {
        let is_good = |one: char| one.is_ascii_alphanumeric() || "._-".contains(one);
        let name: String = bare(text).chars().map(|one| if is_good(one) { one } else { '-' }).collect();
        vec![name.trim_matches(|one: char| !one.is_ascii_alphanumeric()).into()]
    }
}

impl Meant for Span {
    fn read(text: &str) -> Result<Self, ParseError> {
        rule::parse_span(text)
    }

    fn guesses(text: &str) -> Vec<String> {
        let text = bare(text).to_lowercase();
        let mut guesses = vec![format!("{text}s"), text.clone()];
        let number = text.trim_end_matches(|one: char| one.is_ascii_alphabetic() || one == ' ');
        let unit = match text[number.len()..].trim() {
            "" | "s" | "sec" | "secs" | "seconds" => Some(1.0),
            "ms" => Some(0.001),
            "m" | "min" | "minutes" => Some(60.0),
            "h" | "hours" => Some(3600.0),
            _ => None,
        };
        let seconds =
            number.replace(',', ".").parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit);
        let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        guesses.extend(seconds.map(|time| {
            Span(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))).to_string()
        }));
        if let Some((minutes, seconds)) = text.split_once(':') {
            guesses.push(format!("{minutes}m {seconds}s"));
        }
        guesses
    }
}
