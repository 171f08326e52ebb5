//! How a target is written.

pub(super) const TARGETS: &str = "\
TARGET is one of
  netns:NAME  a name that `ip netns` knows
  path:/ABS   an nsfs file, as /run/netns/NAME
  pid:N       a process of the daemon's PID namespace
  self        the namespace of this command
  host        the namespace of PID 1 where the daemon runs; naming it stands for --host-netns
  docker:NAME, podman:NAME
              a running container, by its name or id
  cookie:N    a namespace that is steered already, by its netns cookie";
