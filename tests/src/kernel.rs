//! The running kernel, as far as what must happen depends on it.

use std::fs;

/// A sysctl, by its path under /proc/sys.
#[must_use]
pub fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|value| value.trim().to_owned())
}

/// Whether this process has a capability, by its number.
#[track_caller]
#[must_use]
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff");
    u64::from_str_radix(set.trim(), 16).expect("hexadecimal") & (1 << number) != 0
}
