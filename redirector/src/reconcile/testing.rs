//! What tests of plans have of namespaces: what is in force there, and what was found there. Nothing is opened but `/dev/null`.
//!
//! A scene is told as what is wanted is (`intent::testing`), and each rule that has a place is in force there. Of one whose place has
//! a `?` that is not said; one that is `none`'s is in force, and nobody wants it.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs::File,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use redirector_ebpf::{CONSUMER_RELAY, MAX_CONSUMERS, MAX_RULES};

use super::{part::Part, standing::Standing};
use crate::{
    config::{Rule, Target},
    dial::{Remotes, Whereabouts},
    intent::{
        Store,
        testing::{lines, rule, says, store, target},
    },
    kernel::{AttachedProgram, PROGRAM},
    locate::{ContainerId, Opener, Watch},
    netns::{InterfaceIndex, Location, NetnsCookie, NetnsFile, Survey},
    steer::{Found, RuleState},
};

/// The program of a namespace that is steered.
pub(crate) const OURS: u32 = 1;

/// What there is.
#[derive(Default)]
pub(crate) struct Scene {
    pub(crate) standing: BTreeMap<NetnsCookie, Standing>,
    pub(crate) store: Store,
}

impl Scene {
    /// As lines tell it.
    pub(crate) fn of(text: &str) -> Self {
        let (forced, wanted): (Vec<_>, Vec<_>) =
            lines(text).partition(|line| line.split(' ').nth(3) == Some("none"));
        let mut scene = Self { standing: BTreeMap::new(), store: store(&wanted.join(";")) };
        for line in forced.into_iter().chain(wanted) {
            let words: Vec<_> = line.split(' ').collect();
            if let Ok(place) = words[0].parse() {
                scene.force(place, rule(words[1], words[2]), Whereabouts::default());
            }
        }
        scene
    }

    /// A rule is in force there, unless one of that name is.
    pub(crate) fn force(&mut self, place: u64, rule: Arc<Rule>, whereabouts: Whereabouts) {
        let cookie = NetnsCookie(place);
        let standing = self.standing.entry(cookie).or_insert_with(|| Standing {
            cookie,
            target: target(&format!("netns:n{place}")),
            rules: Vec::new(),
            program: Some(OURS),
        });
        if standing.get(&rule.name).is_some() {
            return;
        }
        let index = standing.rules.len() as u32;
        let is_lease = rule.to == crate::config::Destination::Handoff;
        let consumer = if is_lease { standing.free_consumer().expect("one is free") } else { CONSUMER_RELAY };
        standing.rules.push(Arc::new(RuleState::new(rule, (index, consumer), whereabouts)));
    }

    /// As many rules as fit, but for some.
    pub(crate) fn full_but(place: u64, room: usize) -> Self {
        let mut scene = Self::default();
        let state = |index: u32| {
            let rule = rule(&format!("r{index}"), &(index + 1).to_string());
            Arc::new(RuleState::new(rule, (index, CONSUMER_RELAY), Whereabouts::default()))
        };
        scene.force(place, rule("r0", "1"), Whereabouts::default());
        let standing = scene.standing.get_mut(&NetnsCookie(place)).expect("it was made");
        standing.rules = (0..(MAX_RULES - room) as u32).map(state).collect();
        scene
    }

    /// A program for each consumer.
    pub(crate) fn full_of_programs(place: u64) -> Self {
        let mut scene = Self::default();
        for index in 1..MAX_CONSUMERS {
            let rule = rule(&format!("r{index}"), &format!("{index}>handoff"));
            scene.force(place, rule, Whereabouts::default());
        }
        scene
    }

    pub(crate) fn standing(&self, place: u64) -> Option<&Standing> {
        self.standing.get(&NetnsCookie(place))
    }
}

/// A network as most are: `lo` is up, and `eth0` there.
pub(crate) fn survey() -> Survey {
    let local = ["127.0.0.0/8", "10.0.0.1/32", "fd00::1/128"].map(|net| net.parse().expect("a prefix"));
    Survey {
        loopback_up: true,
        somaxconn: 4096,
        local_ports: (32_768, 60_999),
        local: local.to_vec(),
        interfaces: vec![("lo".into(), InterfaceIndex(1)), ("eth0".into(), InterfaceIndex(2))],
    }
}

/// A namespace that somebody has looked at.
pub(crate) fn found(place: u64, container: Option<ContainerId>) -> Found {
    Found {
        named_by: Arc::default(),
        fd: File::open("/dev/null").expect("open /dev/null").into(),
        file: NetnsFile { dev: 0, inode: place },
        cookie: NetnsCookie(place),
        survey: survey(),
        bystanders: Vec::new(),
        programs: Vec::new(),
        existing_connections: 0,
        container,
        host: false,
    }
}

/// The program of a redirector.
pub(crate) fn redirector(id: u32) -> AttachedProgram {
    AttachedProgram { id, name: PROGRAM.into() }
}

/// A destination in another namespace, which is there. Of a process where its target is one.
pub(crate) fn elsewhere(of: &Target, place: u64) -> Whereabouts {
    static REMOTES: LazyLock<Arc<Remotes>> = LazyLock::new(|| {
        let watch = Arc::new(Watch::new().expect("watch").0);
        Arc::new(Remotes::new(watch, 1, Duration::ZERO))
    });
    let file = NetnsFile { dev: 0, inode: place };
    let location =
        Location { path: PathBuf::new(), file, cookie: NetnsCookie(place), processes: Arc::default() };
    let elsewhere = REMOTES.elsewhere(of, &Opener::default(), Some(location));
    Whereabouts { elsewhere: Some(elsewhere), ..Whereabouts::default() }
}

/// What a namespace will have: each rule with its index, and a `+` behind what is new; `-` where nothing is other.
pub(crate) fn in_force(part: Option<&Part>) -> String {
    let Some(part) = part.filter(|part| part.is_other()) else { return "-".into() };
    let told = |state: &Arc<RuleState>| {
        let is_new = part.new.iter().any(|one| Arc::ptr_eq(one, state));
        let new = if is_new { "+" } else { "" };
        format!("{} {} #{}{new}", state.rule.name, says(&state.rule), state.index)
    };
    let mut rules: Vec<_> = part.rules.iter().map(told).collect();
    rules.sort();
    if rules.is_empty() { "nothing".into() } else { rules.join(", ") }
}

/// The name of a variant.
pub(crate) fn variant(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    text.split(|one: char| !one.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
