//! One table of a file, from which what is wrong is taken out.

use std::{collections::HashSet, ops::Range};

use toml::{Spanned, de::DeValue};

/// Any value, and where it stands.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A table of which something may have been taken out.
pub(super) struct Table<'a> {
    pub(super) value: Value<'a>,
    /// Keys of which something was.
    pub(super) damaged: Vec<String>,
    /// Lists that have been read element by element.
    read: HashSet<String>,
}

impl<'a> Table<'a> {
    pub(super) fn new(value: Value<'a>) -> Self {
        Self { value, damaged: Vec::new(), read: HashSet::new() }
    }

    /// Takes out the list that a span is about, and where it stands. Each is taken out once: what is wrong with one that had
    /// been read is not an element.
    pub(super) fn take_list(
        &mut self,
        span: &Range<usize>,
    ) -> Option<(String, Range<usize>, Vec<Value<'a>>)> {
        let DeValue::Table(table) = self.value.get_mut() else { return None };
        let is_it = |value: &Value<'_>| {
            let whole = value.span();
            value.get_ref().is_array() && whole.start <= span.start && span.end <= whole.end
        };
        let key = table.iter().find(|(_, value)| is_it(value)).map(|(key, _)| key.get_ref().to_string())?;
        if !self.read.insert(key.clone()) {
            return None;
        }
        let list = table.remove(&*key)?;
        let whole = list.span();
        match list.into_inner() {
            DeValue::Array(array) => Some((key, whole, array.into_iter().collect())),
            _ => None,
        }
    }

    pub(super) fn put_list(&mut self, key: String, span: Range<usize>, elements: Vec<Value<'a>>) {
        if let DeValue::Table(table) = self.value.get_mut() {
            let array = Spanned::new(span, DeValue::Array(elements.into_iter().collect()));
            table.insert(Spanned::new(0..0, key.into()), array);
        }
    }

    /// Takes out what a span is about: an element of a list, else a key with its value. Gives the key, and where its whole
    /// value stands.
    pub(super) fn take_out(&mut self, span: &Range<usize>) -> Option<(String, Range<usize>)> {
        let DeValue::Table(table) = self.value.get_mut() else { return None };
        let is_about = |inner: &Range<usize>| inner.start <= span.start && span.end <= inner.end;
        let (key, value) =
            table.iter().find(|(key, value)| is_about(&key.span()) || is_about(&value.span()))?;
        let (key, whole) = (key.clone(), value.span());
        let name = key.get_ref().to_string();
        if !is_about(&key.span())
            && let Some(value) = table.get_mut(&*name)
            && let DeValue::Array(array) = value.get_mut()
            && let Some(index) = array.iter().position(|element| is_about(&element.span()))
        {
            // There is no way to take one out of it.
            let elements = array.clone().into_iter();
            *array =
                elements.enumerate().filter(|(at, _)| *at != index).map(|(_, element)| element).collect();
        } else {
            table.remove(&*name);
        }
        Some((name, whole))
    }

    /// Where a value stands; where the table begins if there is none.
    pub(super) fn at(&self, key: &str, item: Option<usize>) -> usize {
        let value = self.value.get_ref().as_table().and_then(|table| table.get(key));
        let element = || value?.get_ref().as_array()?.get(item?);
        element().or(value).unwrap_or(&self.value).span().start
    }
}
