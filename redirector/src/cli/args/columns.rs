//! What the columns and lines of `list` mean.

/// For the long help of `list`, in lines that no terminal wraps.
pub(super) const COLUMNS: &str = "\
There is one line per rule. Its counters begin at 0 when the rule is put into force. They count
look-ups, not connections: the kernel asks the rules once for each new connection, once more for
each SYN that is sent again, and for each look-up that a packet filter in the namespace makes by
itself (`socket`, TPROXY). What a packet filter drops first is not counted.

  RULE         its name
  MATCH        what it takes
  TO           where it leads
  STATE        up; down, with the reason, and since when (UTC, as in the log); waiting, while the
               program that holds its listeners does not listen; follows, of a rule that goes with
               its container; found by label; took nothing yet
  ORIGIN       who made it: file (`apply`, `run --config`), api (`attach`), lease (`exec`, hand-off)
  STEERED      look-ups that it gave to its listener
  PASSED       look-ups that it left to the application: it leads to pass
  REJECTED     look-ups that it refused: it leads to reject
  DROPPED      look-ups that it left without an answer: it leads to drop
  BYPASSED     redirector's own connections to the application, which it let pass
  UNAVAILABLE  look-ups while it was down or nobody listened, with the reasons;
               --on-unavailable decided
  FAILED       connections that the relay accepted and that did not reach the destination, with
               the reasons

Below the rules of a namespace:

  unmatched    look-ups for new TCP connections that no rule takes; if this grows and traffic is
               missing, a match is wrong
  connections  those that are active; and since the namespace is steered: those that the relay
               accepted, that reached their destination, and that failed
  bytes from clients, from destinations
               what was read from either side; lost are bytes that a client saw acknowledged and
               that did not reach the destination";
