//! Another user for CMD, and no capability.

use std::{ffi::CString, io};

use nix::{
    sys::prctl,
    unistd::{Gid, Uid, initgroups, setgid, setgroups, setuid},
};

use super::Failure;
use crate::sys;

/// A user that is not root.
#[derive(Debug)]
pub(super) struct User {
    uid: Uid,
    gid: Gid,
    /// For the supplementary groups; a bare number has none.
    name: Option<CString>,
}

impl User {
    /// By name, or by number.
    pub(super) fn find(text: &str) -> Result<Self, Failure> {
        let error = |why: &str| {
            Failure::failed(&io::Error::other(format!("user `{}`: {why}", text.escape_debug()))).of_exec()
        };
        let by_name = nix::unistd::User::from_name(text).map_err(|errno| error(errno.desc()))?;
        let known = match (by_name, text.parse::<u32>()) {
            (Some(user), _) => Some(user),
            (None, Ok(uid)) => {
                nix::unistd::User::from_uid(Uid::from_raw(uid)).map_err(|errno| error(errno.desc()))?
            }
            (None, Err(_)) => return Err(error("there is no such user")),
        };
        let user = match (known, text.parse::<u32>()) {
            (Some(user), _) => Self { uid: user.uid, gid: user.gid, name: CString::new(user.name).ok() },
            (None, Ok(uid)) => Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(uid), name: None },
            (None, Err(_)) => return Err(error("there is no such user")),
        };
        if user.uid.is_root() {
            return Err(error("root keeps its capabilities; leave `--user` out or name another user"));
        }
        Ok(user)
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Changes this process for good: groups, then group, then user. What it runs has no capability, and can gain
    /// none.
    pub(super) fn become_it(&self) -> Result<(), Failure> {
        let Self { uid, gid, name } = self;
        let failed = |call: &'static str| {
            move |errno: nix::errno::Errno| {
                Failure::failed(&io::Error::other(format!("{call} {uid}: {errno}"))).of_exec()
            }
        };
        match name {
            Some(name) => initgroups(name, *gid).map_err(failed("initgroups"))?,
            None => setgroups(&[*gid]).map_err(failed("setgroups"))?,
        }
        setgid(*gid).map_err(failed("setgid"))?;
        setuid(*uid).map_err(failed("setuid"))?;
        sys::clear_ambient_capabilities().map_err(|error| {
            Failure::failed(&io::Error::other(format!("prctl PR_CAP_AMBIENT_CLEAR_ALL: {error}"))).of_exec()
        })?;
        prctl::set_no_new_privs().map_err(failed("prctl PR_SET_NO_NEW_PRIVS"))
    }
}
