//! redirector takes the traffic that arrives in a network namespace and gives it to a socket you choose.
//!
//! The data flow is the order of these modules. Each uses those above it, never those below; `supervisor` and
//! `cli` see all, `observe` and `sys` are seen by all.
//!
//! | module | |
//! | --- | --- |
//! | [`config`] | what the user wrote → validated rules |
//! | [`target`] | what the user named → a namespace, and how we learn that it died |
//! | [`netns`] | the only `setns`: a closure on a thread that then ends; sockets made inside a namespace |
//! | [`kernel`] | load, attach, publish, ask; one program instance per namespace |
//! | [`listener`] | listening sockets, accept, back-off |
//! | [`relay`] | one TCP connection, both ways |
//! | [`observe`] | counters and logs |
//! | [`control`] | the API: server, client, shared types |
//! | [`supervisor`] | attach, detach, list, mend, drain |
//! | [`doctor`] | what works on this machine, by trying it |
//! | [`cli`] | parse, call, print |
//! | [`sys`] | the only `unsafe` |

#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod kernel;
pub mod listener;
pub mod matcher;
pub mod netns;
pub mod observe;
pub mod relay;
pub mod supervisor;
#[expect(unsafe_code, reason = "the one door to system calls that no crate wraps")]
pub mod sys;
pub mod target;
