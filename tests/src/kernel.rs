//! The running kernel, as far as what must happen depends on it.

use std::fs;

/// Its version: `(6, 12)`.
#[track_caller]
#[must_use]
pub fn version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's release");
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    number().zip(number()).unwrap_or_else(|| panic!("`{release}` is no version"))
}

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
