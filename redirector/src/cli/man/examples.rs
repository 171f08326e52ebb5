//! Examples for each command: what one wants, and the command line for it.

/// What for, and the command line.
pub(super) type Example = (&'static str, &'static str);

/// Of a command, `redirector` itself included.
pub(super) fn of(command: &str) -> &'static [Example] {
    match command {
        "redirector" => &[
            ("See whether it works here:", "redirector doctor"),
            ("Start the daemon:", "redirector run"),
            (
                "In another terminal, steer what arrives on port 80 of a namespace to a service of the host:",
                "redirector attach netns:web --match 'tcp:80' --to 127.0.0.1:5000",
            ),
            ("See what is steered, and how many connections were:", "redirector list"),
            ("Stop steering it:", "redirector detach netns:web"),
        ],
        "run" => &[
            ("Start the daemon on the usual socket:", "redirector run"),
            (
                "With the rules of a file, which SIGHUP applies again:",
                "redirector run --config /etc/redirector.toml",
            ),
            (
                "The same with each file of a directory, which need not be there:",
                "redirector run --optional-config /etc/redirector.d",
            ),
            (
                "Give relayed connections two minutes to end when the daemon is stopped:",
                "redirector run --drain-timeout 2m",
            ),
            (
                "A second daemon, on a socket of its own, for at most 1000 connections:",
                "redirector --socket /run/redirector/test.sock run --max-connections 1000",
            ),
        ],
        "attach" => &[
            (
                "Ports 80 and 443 of a namespace to a service of the host:",
                "redirector attach netns:web --match 'tcp:80,443' --to 127.0.0.1:5000 --name http",
            ),
            (
                "Everything that process 4711's namespace gets, on whatever port, to the same port of another host:",
                "redirector attach pid:4711 --match 'tcp:*' --to '192.0.2.1:*'",
            ),
            (
                "One IPv6 prefix to a Unix socket; while nobody listens there, to the application:",
                "redirector attach netns:web --match 'tcp:[fd00::/64]:8000-8999' --to unix:/run/proxy.sock --on-unavailable pass",
            ),
            (
                "A container's port to a server on the loopback of another one, through restarts of both:",
                "redirector attach docker:web --match 'tcp:80' --to docker:proxy/127.0.0.1:8080",
            ),
            (
                "A namespace that is not there yet, each time it is made:",
                "redirector attach netns:web --match 'tcp:80' --to 127.0.0.1:5000 --follow --wait",
            ),
            (
                "Look first what it would do:",
                "redirector attach netns:web --match 'tcp:22' --to reject --dry-run",
            ),
        ],
        "detach" => &[
            ("One rule:", "redirector detach netns:web --rule http"),
            ("Every rule, of a namespace whose name is gone:", "redirector detach cookie:4321"),
            ("And the connections that were made by it:", "redirector detach netns:web --rule http --close"),
        ],
        "close" => &[
            ("The connections of one client:", "redirector close netns:web --client 10.0.0.2"),
            (
                "Those of a network, by one rule:",
                "redirector close netns:web --client 10.0.0.0/8 --rule http",
            ),
        ],
        "list" => &[
            ("Everything:", "redirector list"),
            ("One namespace, for a program:", "redirector list netns:web --json"),
            ("See the counters grow:", "redirector list --watch"),
        ],
        "check" => &[
            (
                "Look at a file before it is applied, in a pipeline for example:",
                "redirector check redirector.toml",
            ),
            ("The JSON schema, for an editor:", "redirector check --schema > redirector.schema.json"),
        ],
        "apply" => &[
            (
                "See what a file would change; the exit code is 5 when it would:",
                "redirector apply --dry-run redirector.toml",
            ),
            ("Make it so, whole or not at all:", "redirector apply redirector.toml"),
        ],
        "export" => {
            &[("Begin to keep what was attached by hand in a file:", "redirector export > redirector.toml")]
        }
        "explain" => &[
            (
                "Why a client does not get where it should:",
                "redirector explain netns:web 'tcp 10.0.0.2:40000 -> 10.0.0.1:80'",
            ),
            (
                "The same for a program, of what comes by eth1:",
                "redirector explain netns:web 'tcp [fd00::2]:40000 -> [fd00::1]:80 dev eth1' --json",
            ),
            ("Rules that are there for nothing:", "redirector explain netns:web --shadowed"),
            (
                "What a file would do, before it is applied:",
                "redirector explain --config redirector.toml netns:web 'tcp 10.0.0.2:40000 -> 10.0.0.1:80'",
            ),
        ],
        "exec" => &[
            (
                "HAProxy as the server of a namespace, with the true addresses of its clients:",
                "redirector exec netns:web --match 'tcp:80' --render haproxy.cfg.in=haproxy.cfg -- haproxy -db -f haproxy.cfg",
            ),
            (
                "A server that takes no listeners from others, and listens on port 8080:",
                "redirector exec netns:web --match 'tcp:80' --listen-as 8080 -- nginx -g 'daemon off;'",
            ),
            (
                "A socket-activated server, as another user:",
                "redirector exec netns:web --match 'tcp:8080' --user nobody -- python3 server.py",
            ),
        ],
        "doctor" => &[
            ("As the user who will run the daemon:", "redirector doctor"),
            ("For a program, which looks at `works`:", "redirector doctor --json"),
        ],
        "cleanup" => &[
            ("After a daemon was killed:", "redirector cleanup"),
            ("See who else steers a namespace:", "redirector cleanup netns:web"),
        ],
        "completions" => &[
            (
                "For every user of bash:",
                "redirector completions bash > /usr/share/bash-completion/completions/redirector",
            ),
            ("For zsh:", "redirector completions zsh > /usr/local/share/zsh/site-functions/_redirector"),
            ("For fish:", "redirector completions fish > /etc/fish/completions/redirector.fish"),
        ],
        "man" => &[
            ("Install the manual:", "redirector man /usr/local/share/man/man1"),
            ("Read one page without that:", "redirector man /tmp/manual"),
        ],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::args::Args;

    /// A command line as a shell takes it, up to a redirection. Single quotes are the only ones in use here.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap();
        let mut words = vec![String::new()];
        for (index, part) in line.split('\'').enumerate() {
            let last = words.last_mut().unwrap();
            if index % 2 == 1 {
                last.push_str(part);
            } else {
                let mut pieces = part.split(' ');
                last.push_str(pieces.next().unwrap());
                words.extend(pieces.map(str::to_owned));
            }
        }
        words
    }

    #[test]
    fn each_command_has_examples_and_each_is_a_command_line_of_it() {
        let command = Args::command();
        assert!(!of("redirector").is_empty());
        for name in command.get_subcommands().map(clap::Command::get_name).chain(["redirector"]) {
            assert!(!of(name).is_empty(), "{name}");
            for (what, line) in of(name) {
                assert!(what.ends_with(':'), "{what}");
                let words = words(line);
                let parsed = Args::try_parse_from(&words);
                assert!(parsed.is_ok(), "{line}: {words:?}: {}", parsed.unwrap_err());
                assert!(name == "redirector" || words.iter().any(|word| word == name), "{line}");
            }
        }
    }
}
