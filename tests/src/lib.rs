//! What the integration tests stand on: namespaces, the daemon, its command line, clients and servers.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`inject`] | a daemon whose n-th system call fails, or kills it |
//! | [`command`] | a program that is run to its end, with what it said |
//! | [`holder`] | a process that holds something |
//! | [`engine`], [`fake_engine`] | a container engine, and one that answers what a test wants |
//! | [`exec`] | `redirector exec`, and programs for it to run |
//! | [`dir`] | a directory of one's own, removed afterwards |
//! | [`eventually`] | the only place that waits by looking again |
//! | [`name_server`] | a name server that answers what a test wants, and a daemon that asks it |
//! | [`netns`] | a network namespace, by name or held by a process |
//! | [`kernel`] | what the running kernel is |
//! | [`tcp`] | what the kernel says of connections |
//! | [`topology`] | a pod and a client, joined |
//! | [`server`], [`client`] | who answers, and who asks |
//! | [`features`], [`probe`] | which kernel has what, and what this one has |
//! | [`mixed_rules`] | many rules of all kinds |
//! | [`pattern`], [`scale`] | bytes that both ends know, and how many |
//! | [`daemon`], [`cli`], [`http`] | the daemon, its command line, its API |
//! | [`log`] | where its log goes when nobody reads it |
//! | [`snapshot`] | what a namespace looks like, to find residue |
//! | [`world`] | all of it, as most tests want it |
//!
//! Everything here panics when it cannot do what it is asked for, at the line of the test that asked.

#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod command;
pub mod daemon;
pub mod dir;
pub mod engine;
pub mod eventually;
pub mod exec;
pub mod fake_engine;
pub mod features;
pub mod holder;
pub mod http;
pub mod inject;
pub mod kernel;
pub mod log;
pub mod mixed_rules;
pub mod name_server;
pub mod netns;
pub mod pattern;
pub mod probe;
pub mod scale;
pub mod server;
pub mod snapshot;
pub mod tcp;
pub mod topology;
pub mod udp;
pub mod world;

use std::time::Duration;

/// The longest that a blocking call waits. No test depends on it: it only turns a hang into a failure.
pub const HANG: Duration = Duration::from_secs(100);
