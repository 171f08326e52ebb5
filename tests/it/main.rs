//! The integration tests, one binary. `README.md` in the folder above says how to write one.

mod api;
mod attach;
mod backlog;
mod changes;
mod cleanup;
mod death;
mod destinations;
mod discover;
mod doctor;
mod drop;
mod elsewhere;
mod ends;
mod engine_answers;
mod exec;
mod explain;
mod features;
mod files;
mod foreign;
mod handoff;
mod harness;
mod hostile;
mod inputs;
mod interfaces;
mod kernel_selftests;
mod last_words;
mod list;
mod listen_as;
mod loops;
mod lost;
mod model;
mod original;
mod patience;
mod places;
mod ports;
mod progress;
mod relay;
mod residue;
mod rules;
mod servers;
mod targets;
mod tubular;
mod udp;

/// What a specification that gives no figure means by "at once".
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
