//! redirector takes the traffic that arrives in a network namespace and gives it to a socket you choose.
//!
//! Each module uses those above it in this table, never those below (`tests/manual/modules.rs` looks).
//!
//! | module | |
//! | --- | --- |
//! | [`sys`] | the only `unsafe` |
//! | [`text`] | what others have said, as text for people |
//! | [`config`] | what the user wrote → validated rules |
//! | [`observe`] | counters and logs |
//! | [`matcher`] | rules → the image that kernel and relay decide by |
//! | [`netns`] | the only `setns`: a closure on a thread that then ends; sockets made inside a namespace |
//! | [`locate`] | what the user named → a namespace, and how we learn that it died |
//! | `intent` | what is wanted, and by whom |
//! | [`kernel`] | load, attach, publish, ask; one program instance per namespace |
//! | [`listener`] | listening sockets, accept, back-off |
//! | [`relay`] | one TCP connection, both ways |
//! | [`dial`] | how a connection gets its second leg |
//! | [`control`] | the API: server, client, shared types |
//! | `steer` | one steered namespace: its rules in force, the way of its connections, its end |
//! | `lease` | listeners that programs hold |
//! | `reconcile` | from what is wanted to what is steered |
//! | `report` | `list`, `explain`, `export` |
//! | [`daemon`] | what the daemon does by itself, what it is asked for, its end |
//! | [`doctor`] | what works on this machine, by trying it |
//! | [`cli`] | parse, call, print |

#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dial;
pub mod doctor;
mod intent;
pub mod kernel;
mod lease;
pub mod listener;
pub mod locate;
pub mod matcher;
pub mod netns;
pub mod observe;
mod reconcile;
pub mod relay;
mod report;
mod steer;
#[expect(unsafe_code, reason = "the one door to system calls that no crate wraps")]
pub mod sys;
pub mod text;
