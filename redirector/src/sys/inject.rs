//! Faults by injection, in a test build only (feature `inject`): the n-th system call that this process makes fails, panics, or
//! kills it. `strace -e inject=` counts for each thread, and each visit to a namespace is a thread of its own.
//!
//! Where `$REDIRECTOR_INJECT` names a file, each call looks at it first. While there is no such file nothing is counted. Its
//! text is a plan, one of
//!
//! ```text
//! ROUND count
//! ROUND fail N ERRNO
//! ROUND kill N
//! ROUND panic N
//! ```
//!
//! and another text begins to count at 1 again, so ROUND only has to differ. Each call that is counted adds its name as a line
//! to the file with `.calls` after its name.

/// A place where this process makes the system call of this name. In a product it is nothing.
///
/// # Errors
///
/// What a plan says, in place of making the call.
#[cfg(not(feature = "inject"))]
#[inline(always)]
pub(crate) fn point(_call: &str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "inject")]
pub(crate) use planned::point;

#[cfg(feature = "inject")]
mod planned {
    use std::{
        env,
        ffi::OsString,
        fs::{self, OpenOptions},
        io::{self, Write as _},
        sync::{Mutex, PoisonError},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    /// What is counted.
    struct Count {
        plan: String,
        calls: u64,
    }

    static COUNT: Mutex<Count> = Mutex::new(Count { plan: String::new(), calls: 0 });

    /// A place where this process makes the system call of this name.
    pub(crate) fn point(call: &str) -> io::Result<()> {
        let Some(path) = env::var_os("REDIRECTOR_INJECT") else { return Ok(()) };
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(plan) = fs::read_to_string(&path) else { return Ok(()) };
        if plan != count.plan {
            *count = Count { plan, calls: 0 };
        }
        count.calls += 1;
        note(path, call)?;
        let is_it = |n: &str| n.parse() == Ok(count.calls);
        match count.plan.split_whitespace().collect::<Vec<_>>()[..] {
            [_, "fail", n, errno] if is_it(n) => {
                Err(io::Error::from_raw_os_error(errno.parse().map_err(io::Error::other)?))
            }
            // It ends before this returns.
            [_, "kill", n] if is_it(n) => kill(Pid::this(), Signal::SIGKILL).map_err(io::Error::from),
            [_, "panic", n] if is_it(n) => panic!("at `{call}`, as planned"),
            _ => Ok(()),
        }
    }

    fn note(mut path: OsString, call: &str) -> io::Result<()> {
        path.push(".calls");
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(format!("{call}\n").as_bytes())
    }
}
