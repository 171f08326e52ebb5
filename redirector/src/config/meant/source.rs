//! Clients' addresses that are written otherwise.

use super::{Meant, address, bare};
use crate::config::{ParseError, Source, source};

impl Meant for Source {
    fn read(text: &str) -> Result<Self, ParseError> {
        source::parse(text)
    }

    fn guesses(text: &str) -> Vec<String> {
        let text = bare(text);
        let without_port = text.rsplit_once(':').map(|(address, _)| address);
        let bracketed = without_port.filter(|address| address.ends_with(']') || !address.contains(':'));
        let whole = Some(text).filter(|text| !text.contains("]:"));
        [whole, bracketed].into_iter().flatten().filter_map(address::address).collect()
    }
}
