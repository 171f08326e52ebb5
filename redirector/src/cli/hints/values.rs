//! Values that cannot be read, and what they could have meant.

use clap::error::{ContextKind, ContextValue};

use crate::config::{
    Destination, Interface, Match, RuleName, Source, Span, Target,
    meant::{meant, word_meant},
};

/// What a value could have meant. `argument` is as clap writes it: `--to <DEST>`, `<TARGET>`.
pub(super) fn instead_of(error: &clap::Error, argument: &str, value: &str) -> Option<String> {
    let name = argument.split(['<', '>']).nth(1).unwrap_or_default();
    let first = |meant: Vec<String>| meant.into_iter().next();
    match name {
        "DEST" => first(meant::<Destination>(value)),
        "MATCH" => first(meant::<Match>(value)),
        "TARGET" => first(meant::<Target>(value)),
        "RULE" => first(meant::<RuleName>(value)),
        "ADDRESS[/LEN]" => first(meant::<Source>(value)),
        // Names of interfaces are the only ones that are excluded.
        "NAME" => first(meant::<Interface>(value)),
        "TIME" => first(meant::<Span>(value)).or_else(|| {
            let is_never = matches!(
                &*value.to_lowercase(),
                "never" | "none" | "off" | "no" | "infinite" | "inf" | "forever"
            );
            (is_never && argument.starts_with("--idle-timeout")).then(|| "0s".into())
        }),
        "PORT" | "N" => number(value),
        _ => one_of(error, value),
    }
}

/// The only number in a text.
fn number(text: &str) -> Option<String> {
    let mut numbers = text.split(|one: char| !one.is_ascii_digit()).filter(|one| !one.is_empty());
    let last = numbers.next_back()?;
    (last != text && !text.starts_with('-')).then(|| last.to_owned())
}

/// Of a value that is one of some words.
fn one_of(error: &clap::Error, value: &str) -> Option<String> {
    let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue) else { return None };
    word_meant(value, valid.iter().map(String::as_str)).map(str::to_owned)
}
