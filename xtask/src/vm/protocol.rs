//! What PID 1 says on the console so that the other side can tell how far it has come, and where both find things.

/// How a line of PID 1 begins.
const MARK: &str = "redirector-vm: ";

/// Where an image has the xtask that is its PID 1.
pub(crate) const INIT: &str = "/init";
/// The program to run and its arguments, each ended by a NUL.
pub(crate) const JOB: &str = "/redirector-vm/job";
/// Modules, by names that sort in the order in which they are inserted.
pub(crate) const MODULES: &str = "/redirector-vm/modules";
pub(crate) const TESTS: &str = "/redirector-vm/it";
pub(crate) const REDIRECTOR: &str = "/redirector-vm/redirector";
pub(crate) const ENVOY: &str = "/redirector-vm/envoy";

/// A line of PID 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// It runs, on this kernel.
    Started(String),
    /// All is prepared, the tests begin.
    Testing,
    /// The tests ended with exit code 0.
    Passed,
    /// The tests ended otherwise: how.
    Failed(String),
    /// It could not run the tests: why.
    Broken(String),
}

impl Message {
    /// The line, without its end.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Started(release) => format!("{MARK}started on {release}"),
            Self::Testing => format!("{MARK}testing"),
            Self::Passed => format!("{MARK}passed"),
            Self::Failed(status) => format!("{MARK}failed: {status}"),
            Self::Broken(error) => format!("{MARK}broken: {}", error.replace('\n', " ")),
        }
    }

    pub(crate) fn read(line: &str) -> Option<Self> {
        let said = line.strip_prefix(MARK)?;
        if let Some(release) = said.strip_prefix("started on ") {
            return Some(Self::Started(release.to_owned()));
        }
        if let Some(status) = said.strip_prefix("failed: ") {
            return Some(Self::Failed(status.to_owned()));
        }
        if let Some(error) = said.strip_prefix("broken: ") {
            return Some(Self::Broken(error.to_owned()));
        }
        match said {
            "testing" => Some(Self::Testing),
            "passed" => Some(Self::Passed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_meant() {
        let messages = [
            Message::Started("6.18".into()),
            Message::Testing,
            Message::Passed,
            Message::Failed("exit status: 101".into()),
            Message::Broken("insert veth: ENOENT".into()),
        ];
        for message in messages {
            assert_eq!(Message::read(&message.line()), Some(message));
        }
        assert_eq!(Message::read("test redirector-vm: passed"), None);
    }
}
