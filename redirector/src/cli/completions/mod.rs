//! `redirector completions`: what the command line itself says, and for bash, zsh and fish what is known on the machine only.
//! For that the scripts run the program once more, with `$REDIRECTOR_COMPLETE`.

mod names;

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;

pub(super) use self::names::print as print_names;
use super::{args, exit::Failure, output};

/// Into memory first: the generator panics where it cannot write.
pub(super) fn completions(command: &args::Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut args::Args::command(), "redirector", &mut script);
    let script = with_names(command.shell, String::from_utf8(script).map_err(std::io::Error::other)?);
    output::print(|out| out.write_all(script.as_bytes()))?;
    Ok(())
}

/// A script that asks for names as well.
fn with_names(shell: Shell, script: String) -> String {
    match shell {
        Shell::Bash => script + include_str!("../../../completions/names.bash"),
        Shell::Fish => script + include_str!("../../../completions/names.fish"),
        Shell::Zsh => {
            // An argument says after its last colon who completes it.
            let named = script.lines().map(|line| {
                let is_target = line.starts_with("':target -- ") || line.starts_with("'::target -- ");
                match line.rsplit_once(':').filter(|(_, end)| matches!(*end, "' \\" | "_default' \\")) {
                    Some((line, _)) if is_target => format!("{line}:_redirector_targets' \\\n"),
                    Some((line, _)) if line.starts_with("'--rule=") => {
                        format!("{line}:_redirector_rules' \\\n")
                    }
                    _ => format!("{line}\n"),
                }
            });
            let begin = "if [ \"$funcstack[1]\"";
            named.collect::<String>().replacen(
                begin,
                &format!("{}{begin}", include_str!("../../../completions/names.zsh")),
                1,
            )
        }
        _ => script,
    }
}
