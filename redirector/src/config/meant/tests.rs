//! Each message suggests what was meant, and nothing that is refused.

use std::fmt::Display;

use super::*;
use crate::config::{Destination, Interface, Match, RuleName, Source, Span, Target};

/// What a message tells to write.
fn suggested(message: &str) -> Vec<&str> {
    let told = message.split_once("did you mean ").map_or("", |(_, told)| told);
    told.split('`').skip(1).step_by(2).collect()
}

/// Each line: what was typed, and the first thing that is suggested; nothing for a dash.
fn check<T: Meant + std::str::FromStr<Err = ParseError> + Display>(cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (typed, expected) in cases {
        let Err(error) = typed.parse::<T>() else {
            wrong.push(format!("`{typed}` is taken"));
            continue;
        };
        let message = error.to_string();
        let suggestions = suggested(&message);
        if suggestions.first().unwrap_or(&"-") != expected {
            wrong.push(format!("`{typed}`: expected `{expected}`: {message}"));
        }
        for one in suggestions {
            assert!(one.parse::<T>().is_ok(), "`{typed}` suggests `{one}`, which is refused: {message}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_told_of_a_destination_is_one() {
    check::<Destination>(&[
        ("8080", "127.0.0.1:8080"),
        (":8080", "127.0.0.1:8080"),
        ("*:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("localhost", "localhost:80"),
        ("127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.1:", "127.0.0.1:80"),
        ("127.0.0.1 8080", "127.0.0.1:8080"),
        (" 127.0.0.1:8080", "127.0.0.1:8080"),
        ("'127.0.0.1:8080'", "127.0.0.1:8080"),
        ("127.0.0.1/8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080/tcp", "127.0.0.1:8080"),
        ("127.0.0.1:http", "127.0.0.1:80"),
        ("127.0.0.1:80-90", "127.0.0.1:*"),
        ("127.0.0.1:all", "127.0.0.1:*"),
        ("::1:8080", "[::1]:8080"),
        ("fd00::1:8080", "[fd00::1]:8080"),
        ("::1", "[::1]:80"),
        ("fd00:1:2:3:4:5:6:7", "[fd00:1:2:3:4:5:6:7]:80"),
        ("[::1]", "[::1]:80"),
        ("[::1]8080", "[::1]:8080"),
        ("[127.0.0.1]:80", "127.0.0.1:80"),
        ("tcp:127.0.0.1:8080", "127.0.0.1:8080"),
        ("tcp://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://127.0.0.1:8080/x", "127.0.0.1:8080"),
        ("http://example.com", "example.com:80"),
        ("HTTPS://example.com/", "example.com:443"),
        ("127.0.0.1:5777,127.0.0.1:5778", "127.0.0.1:5777"),
        ("docker:web", "docker:web/127.0.0.1:80"),
        ("docker:web:80", "docker:web/127.0.0.1:80"),
        ("docker:web/80", "docker:web/127.0.0.1:80"),
        ("docker:web/:80", "docker:web/127.0.0.1:80"),
        ("docker:web/localhost:80", "docker:web/127.0.0.1:80"),
        ("docker:web/10.0.0.1", "docker:web/10.0.0.1:80"),
        ("docker:web/::1:80", "docker:web/[::1]:80"),
        ("docker:514", "docker.:514"),
        ("netns=web/127.0.0.1:80", "netns:web/127.0.0.1:80"),
        ("web/127.0.0.1:80", "docker:web/127.0.0.1:80"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("unix:run/x.sock", "unix:/run/x.sock"),
        ("UNIX:/run/X.sock", "unix:/run/X.sock"),
        ("unix://@name", "unix:@name"),
        ("@name", "unix:@name"),
        ("deny", "reject"),
        ("REJECT", "reject"),
        ("allow", "pass"),
        ("orignal", "original"),
        ("blackhole", "drop"),
        ("300.1.1.1:80", "-"),
        ("a b c", "-"),
        ("fe80::1%eth0:80", "-"),
    ]);
}

#[test]
fn what_is_told_of_a_match_is_one() {
    check::<Match>(&[
        ("80", "tcp:80"),
        ("80,443", "tcp:80,443"),
        ("80/tcp", "tcp:80"),
        ("53/udp", "udp:53"),
        ("tcp/80", "tcp:80"),
        ("tcp80", "tcp:80"),
        ("tcp 80", "tcp:80"),
        ("tcp=80", "tcp:80"),
        ("tcp://80", "tcp:80"),
        ("tcp", "tcp:*"),
        ("", "tcp:*"),
        ("TCP:80", "tcp:80"),
        ("Udp:53", "udp:53"),
        ("tpc:80", "tcp:80"),
        ("http", "tcp:80"),
        ("http:8080", "tcp:8080"),
        ("tcp:80/tcp", "tcp:80"),
        ("tcp:80,", "tcp:80"),
        ("tcp:80-", "tcp:80-65535"),
        ("tcp:-1024", "tcp:1-1024"),
        ("tcp:80,,81", "tcp:80,81"),
        ("tcp:80 443", "tcp:80,443"),
        ("tcp:80,tcp:443", "tcp:80,443"),
        ("tcp:80..90", "tcp:80-90"),
        ("tcp:90-80", "tcp:80-90"),
        ("tcp:http,https", "tcp:80,443"),
        ("tcp:any", "tcp:*"),
        ("tcp:0", "tcp:*"),
        ("tcp:0-65535", "tcp:*"),
        ("tcp:*:80", "tcp:80"),
        ("tcp::80", "tcp:80"),
        ("tcp4:80", "tcp:0.0.0.0/0:80"),
        ("tcp6:80", "tcp:[::/0]:80"),
        ("10.0.0.1:80", "tcp:10.0.0.1:80"),
        ("10.0.0.1", "tcp:10.0.0.1:*"),
        ("[fd00::1]:80", "tcp:[fd00::1]:80"),
        ("tcp:10.0.0.1", "tcp:10.0.0.1:*"),
        ("tcp:10.0.0.0/8", "tcp:10.0.0.0/8:*"),
        ("tcp:10.0.0.1/8:80", "tcp:10.0.0.0/8:80"),
        ("tcp:10.0.0.0/255.0.0.0:80", "tcp:10.0.0.0/8:80"),
        ("tcp:10.0.0.*:80", "tcp:10.0.0.0/24:80"),
        ("tcp:fd00::1:80", "tcp:[fd00::1]:80"),
        ("tcp:fd00::/16:80", "tcp:[fd00::/16]:80"),
        ("tcp:[fd00::1]", "tcp:[fd00::1]:*"),
        ("tcp:[fd00::]/16:80", "tcp:[fd00::/16]:80"),
        ("tcp:[10.0.0.1]:80", "tcp:10.0.0.1:80"),
        ("tcp:[::ffff:10.0.0.1]:80", "tcp:10.0.0.1:80"),
        ("tcp:example.com:80", "-"),
        ("sctp:53", "-"),
        ("tcp:65536", "-"),
    ]);
}

#[test]
fn what_is_told_of_a_target_is_one() {
    check::<Target>(&[
        ("web", "docker:web"),
        ("web:80", "docker:web"),
        ("12", "pid:12"),
        ("localhost", "host"),
        ("HOST", "host"),
        ("host:", "host"),
        ("self:1", "self"),
        ("netns=web1", "netns:web1"),
        ("netns/web1", "netns:web1"),
        ("netns web1", "netns:web1"),
        ("netns://web1", "netns:web1"),
        ("NETNS:web1", "netns:web1"),
        ("netsn:web1", "netns:web1"),
        ("ns:web1", "netns:web1"),
        ("dokcer:web", "docker:web"),
        ("container:web", "docker:web"),
        ("docker:web:80", "docker:web"),
        ("docker:/web", "docker:web"),
        ("docker:web/127.0.0.1:80", "docker:web"),
        ("podman: web", "podman:web"),
        ("/run/netns/x", "path:/run/netns/x"),
        ("netns:/run/netns/x", "netns:x"),
        ("netns:/var/run/netns/x", "netns:x"),
        ("netns:/tmp/x", "path:/tmp/x"),
        ("path:run/netns/x", "path:/run/netns/x"),
        ("pid=12", "pid:12"),
        ("pid:self", "self"),
        ("cookie=7", "cookie:7"),
        ("", "-"),
        ("docker:library/web", "-"),
        ("pid:0", "-"),
    ]);
}

#[test]
fn what_is_told_of_the_rest_can_be_read() {
    check::<Source>(&[
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[fd00::1]:80", "fd00::1"),
        ("[fd00::]/8", "fd00::/8"),
        ("10.0.0.*", "10.0.0.0/24"),
        ("10/8", "10.0.0.0/8"),
        ("10.0.0.0/255.255.0.0", "10.0.0.0/16"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("10.0.0.1,10.0.0.2", "-"),
        ("localhost", "-"),
    ]);
    check::<Span>(&[
        ("5", "5s"),
        ("1,5s", "1s 500ms"),
        ("0,5", "500ms"),
        ("5S", "5s"),
        ("1:30", "1m 30s"),
        ("never", "-"),
        ("-5s", "-"),
    ]);
    check::<RuleName>(&[("my rule", "my-rule"), ("-x", "x"), ("a/b", "a-b"), ("", "-")]);
    check::<Interface>(&[
        ("! lo", "!lo"),
        ("not lo", "!lo"),
        ("!=lo", "!lo"),
        ("eth0:", "eth0"),
        ("eth0:1", "eth0"),
        ("", "-"),
    ]);
}
