//! Waiting until the kernel has come to an end with the packets that it was working on.

use std::io;

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
    thread::{MembarrierCommand, membarrier},
};

use crate::sys::inject::point;

/// Waits until all that packets have led to which were being worked on when this was called is there: a socket for a SYN, for
/// example, that a program has steered which is detached now. The kernel takes a packet from the look-up of its socket to the
/// end in one RCU read-side critical section, so one RCU grace period is what is waited for. It blocks.
///
/// # Errors
///
/// Where neither of two calls that wait for one can be had.
pub fn wait_for_packets() -> io::Result<()> {
    // `rcu_expedited` for one caller: tens of microseconds, where an ordinary grace period takes 5 to 20 ms.
    expedited().or_else(|error| {
        tracing::debug!(%error, "open_tree: waiting for an ordinary RCU grace period");
        ordinary()
    })
}

/// A mount that is in nobody's mount namespace: closing it unmounts it, and that waits for an expedited grace period
/// (`namespace_unlock`, fs/namespace.c). Linux 5.2 and CAP_SYS_ADMIN; the daemon's mount namespace is not changed.
fn expedited() -> io::Result<()> {
    point("open_tree")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    drop(open_tree(CWD, c"/proc", flags)?);
    Ok(())
}

/// `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (kernel/sched/membarrier.c). `EINVAL` where the kernel was booted with `nohz_full`.
fn ordinary() -> io::Result<()> {
    point("membarrier")?;
    membarrier(MembarrierCommand::Global).map_err(Errno::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_grace_period_can_be_waited_for_by_everybody() {
        ordinary().unwrap();
        wait_for_packets().unwrap();
    }
}
