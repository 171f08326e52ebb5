//! What the kernel says now, and what is wanted: `list`, `explain`, `export`. Nothing is changed here.

mod explain;
mod export;
mod health;
mod list;
mod state;

pub(crate) use explain::{explanation, shadows};
pub(crate) use export::exported;
pub(crate) use list::listing;
