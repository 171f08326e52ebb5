//! One steered namespace: what it is made of, its rules in force, the way of its connections, and its end.
//!
//! It does not know who wants its rules. Which namespaces there are, and whose turn it is to change them, is beside it. The data
//! path takes no lock of a change: a connection knows its [`Steered`] and reads the rules in force from there.

mod accept;
mod all;
mod backoff;
mod black_hole;
mod connection;
mod draining;
mod end;
mod error;
mod files;
mod handshakes;
pub(crate) mod interfaces;
mod limits;
mod lingering;
mod look;
mod make;
mod places;
mod roster;
mod rules;
mod settle;
pub(crate) mod slots;
mod steered;
mod switch;
mod table;
mod tally;
mod turns;

pub(crate) use all::All;
pub(crate) use backoff::backoff;
pub(crate) use draining::Draining;
pub(crate) use end::How;
pub(crate) use error::{blocking, failed};
pub use limits::{ConnectionLimits, affordable_connections, raise_limits};
pub(crate) use limits::{Limits, instances_in_stock};
pub(crate) use look::{Found, find_out};
pub(crate) use make::{Maker, Ready};
pub(crate) use rules::{RuleState, RuleTable};
pub(crate) use settle::{complete_black_hole, make_sockets, mend, mend_link, settle};
pub(crate) use slots::is_healthy;
pub(crate) use steered::{Steered, WentDown};
pub(crate) use switch::{Switch, expire, prepare, publish_marks, switch, switch_back};
pub(crate) use table::Table;
pub(crate) use tally::{Down, FailedDial};
pub(crate) use turns::{Scope, Turn, Turns};
