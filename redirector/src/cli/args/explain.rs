//! Of `redirector explain`.

use std::path::PathBuf;

use super::targets::TARGETS;
use crate::config::{FlowSpec, ParseError, Target};

#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
FLOW is PROTOCOL SOURCE:PORT -> DESTINATION:PORT [dev NAME], as
  'tcp 10.0.0.2:40000 -> 10.0.0.1:80'  'udp [fd00::2]:5000 -> [fd00::1]:53 dev eth0'
Quote it: to shells > is a redirection. Without an interface it is the one by which an answer would go.

It asks the routing of the namespace, then the kernel program, and nothing is counted. It says why rules that come first
do not match, which socket gets the packet, and which programs of others could decide otherwise.

{TARGETS}"))]
pub(in crate::cli) struct Explain {
    /// The namespace
    pub(in crate::cli) target: Target,

    /// The packet
    #[arg(value_name = "FLOW", required_unless_present = "shadowed", conflicts_with = "shadowed")]
    words: Vec<String>,

    /// Say of every rule that comes first why it does not match, not of 20 only
    #[arg(long, conflicts_with = "shadowed")]
    pub(in crate::cli) all_reasons: bool,

    /// Ask a configuration file, and neither a daemon nor a namespace: which of its rules for this target would take the packet
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,

    /// List the rules that can never decide, and those that take what they would
    #[arg(long)]
    pub(in crate::cli) shadowed: bool,

    /// Print a JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

impl Explain {
    /// What to do where the shell took `> DESTINATION` for a redirection: then the flow ends with what is left of `->`, and
    /// stdout is a file that is called as the destination is.
    pub(in crate::cli) fn swallowed(&self) -> Option<String> {
        let words = self.words.join(" ");
        let source = words.strip_suffix('-')?.trim();
        let file = std::fs::read_link("/proc/self/fd/1").ok();
        let name = file.as_ref().and_then(|file| file.file_name()?.to_str());
        let whole =
            name.map(|name| format!("{source} -> {name}")).filter(|flow| flow.parse::<FlowSpec>().is_ok());
        Some(match (whole, name) {
            (Some(flow), Some(name)) => format!(
                "the shell took `> {name}` for a file, which is there now; quote the flow: \
                 `redirector explain {} '{flow}'`",
                self.target
            ),
            _ => {
                "the shell took `>` for a redirection; quote the flow: `'tcp 10.0.0.2:40000 -> 10.0.0.1:80'`"
                    .into()
            }
        })
    }

    /// The packet, of one word or several.
    pub(in crate::cli) fn flow(&self) -> Result<FlowSpec, ParseError> {
        self.words.join(" ").parse()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::{
        args::{Args, Command},
        words,
    };

    #[test]
    fn a_flow_is_one_word_or_several() {
        let flow = "tcp 10.0.0.2:1 -> 10.0.0.1:80 dev eth0";
        let words: Vec<_> = flow.split(' ').collect();
        for words in [&[flow][..], &words] {
            let begin = ["redirector", "explain", "self"].iter().chain(words).chain(&["--json"]);
            let args = Args::parse_from(words::of(begin.map(Into::into)));
            let Command::Explain(explain) = args.command else { panic!("explain") };
            assert!(explain.json);
            assert_eq!(explain.flow().unwrap().to_string(), flow);
        }
        for words in [&["self"][..], &["self", flow, "--shadowed"], &["self", "--shadowed", "--all-reasons"]]
        {
            assert!(
                Args::try_parse_from(["redirector", "explain"].iter().chain(words)).is_err(),
                "{words:?}"
            );
        }
    }
}
