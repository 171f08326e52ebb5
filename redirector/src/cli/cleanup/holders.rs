//! Which processes hold which BPF programs.

use std::{collections::HashMap, fs, io};

use serde::Serialize;

/// A process that has a program or a link to it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ProgramHolder {
    /// In this PID namespace.
    pub(super) pid: i32,
    /// As in `/proc/PID/comm`.
    pub(super) command: String,
}

impl ProgramHolder {
    pub(super) fn is_redirector(&self) -> bool {
        self.command == "redirector"
    }
}

/// The holders of each program, by its id. Processes that may not be looked at are left out.
pub(super) fn of_programs() -> io::Result<HashMap<u32, Vec<ProgramHolder>>> {
    let mut found: HashMap<u32, Vec<ProgramHolder>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for program in programs_of(pid) {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let holder = ProgramHolder { pid, command: command.trim_end().to_owned() };
            let holders = found.entry(program).or_default();
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    Ok(found)
}

/// The programs that one process has open, by themselves or by links.
fn programs_of(pid: i32) -> Vec<u32> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
    let bpf = fds.filter(|fd| {
        fs::read_link(fd.path()).is_ok_and(|link| link.to_string_lossy().starts_with("anon_inode:bpf"))
    });
    let programs = bpf.filter_map(|fd| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_str()?)).ok()?;
        info.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
    });
    programs.collect()
}
