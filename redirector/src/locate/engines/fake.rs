//! An engine that says what a test wants.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::StreamExt as _;

use super::{
    answer::{ContainerId, Happened, Inspected, Labelled, Labels},
    error::NoAnswer,
    runtime::{Asking, Happenings, Runtime},
};
use crate::config::Label;

/// What it says of each container, one after the other; the last answer for ever.
#[derive(Debug, Default)]
pub(in crate::locate) struct Fake {
    pub(in crate::locate) inspected: Mutex<VecDeque<Result<Inspected, NoAnswer>>>,
    pub(in crate::locate) labelled: Vec<Labelled>,
    pub(in crate::locate) happens: Vec<Result<Happened, NoAnswer>>,
    /// How often it was asked for a container.
    pub(in crate::locate) asked: Arc<AtomicUsize>,
}

impl Fake {
    pub(in crate::locate) fn says(answers: impl IntoIterator<Item = Result<Inspected, NoAnswer>>) -> Self {
        Self { inspected: Mutex::new(answers.into_iter().collect()), ..Self::default() }
    }

    /// A container `web` that runs as this process.
    pub(in crate::locate) fn running() -> Inspected {
        Inspected {
            id: Self::id('a'),
            name: "web".into(),
            status: "running".into(),
            pid: i32::try_from(std::process::id()).ok(),
            started_at: "today".into(),
            sandbox: None,
            is_in_host_network: false,
        }
    }

    /// An id of this digit.
    pub(in crate::locate) fn id(digit: char) -> ContainerId {
        ContainerId::new(digit.to_string().repeat(64)).unwrap()
    }
}

impl Runtime for Fake {
    fn inspect<'a>(&'a self, _name: &'a str) -> Asking<'a, Inspected> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.inspected.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async { answer.unwrap() })
    }

    fn labelled<'a>(&'a self, _label: &'a Label) -> Asking<'a, Vec<Labelled>> {
        Box::pin(async { Ok(self.labelled.clone()) })
    }

    fn names(&self) -> Asking<'_, Vec<String>> {
        Box::pin(async { Ok(self.labelled.iter().map(|one| one.name.clone()).collect()) })
    }

    fn image_labels<'a>(&'a self, image: &'a str) -> Asking<'a, Labels> {
        Box::pin(async move { Err(NoAnswer::Refused(format!("no image `{image}`"))) })
    }

    fn events(&self) -> Asking<'_, Happenings> {
        let happens = self.happens.clone();
        Box::pin(async { Ok(futures_util::stream::iter(happens).boxed()) })
    }

    fn api_version(&self) -> String {
        "0".into()
    }
}
