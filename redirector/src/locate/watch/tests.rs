use std::{
    collections::{HashSet, VecDeque},
    fs::{self, File},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use nix::sys::stat::makedev;

use super::*;
use crate::locate::witness::{Tables, Witness, Witnesses};

type Event = Box<dyn FnOnce(&World) + Send>;

/// A world in which namespaces are mounted, as a file says, that counts how often it is looked at.
#[derive(Clone)]
struct World(Arc<Mutex<Inner>>);

struct Inner {
    dir: tempfile::TempDir,
    mounted: HashSet<u64>,
    looks: usize,
    /// What happens before each look.
    events: VecDeque<Event>,
    answer: fn(Witnesses) -> io::Result<Witnesses>,
    shows_all: bool,
}

fn file(inode: u64) -> NetnsFile {
    NetnsFile { dev: makedev(0, 4), inode }
}

impl World {
    fn new() -> Self {
        let (dir, mounted) = (tempfile::tempdir().unwrap(), HashSet::new());
        let (answer, events) = (Ok as fn(_) -> _, VecDeque::new());
        let world =
            Self(Arc::new(Mutex::new(Inner { dir, mounted, looks: 0, events, answer, shows_all: true })));
        world.mount([]);
        world
    }

    fn table(&self) -> PathBuf {
        self.0.lock().unwrap().dir.path().join("mountinfo")
    }

    fn mount(&self, inodes: impl IntoIterator<Item = u64>) {
        let mounted: HashSet<_> = inodes.into_iter().collect();
        let line = |inode: &u64| format!("28 25 0:4 net:[{inode}] /n rw - nsfs nsfs rw\n");
        fs::write(self.table(), mounted.iter().map(line).collect::<String>()).unwrap();
        self.0.lock().unwrap().mounted = mounted;
    }

    /// Before the next look, the one after it and so on.
    fn before_looks(&self, events: impl IntoIterator<Item = Event>) {
        self.0.lock().unwrap().events.extend(events);
    }

    fn looks(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().looks)
    }
}

impl Look for World {
    fn find(&self, wanted: &HashSet<NetnsFile>) -> io::Result<Witnesses> {
        let event = self.0.lock().unwrap().events.pop_front();
        event.into_iter().for_each(|event| event(self));
        let table = self.table();
        let mut world = self.0.lock().unwrap();
        world.looks += 1;
        let seen = wanted.iter().filter(|file| world.mounted.contains(&file.inode));
        let of = seen.map(|file| (*file, Witness::Mount(table.clone()))).collect();
        (world.answer)(Witnesses { of, hidden: 0 })
    }

    fn sees_host(&self) -> bool {
        self.0.lock().unwrap().shows_all
    }
}

struct Test {
    world: World,
    watch: Arc<Watch>,
    watcher: Watcher<World>,
    deaths: mpsc::UnboundedReceiver<Died>,
}

impl Test {
    fn new() -> Self {
        let world = World::new();
        let (watch, watcher, deaths) = Watch::by(world.clone());
        Self { world, watch: Arc::new(watch), watcher, deaths }
    }

    /// Namespaces that are watched, and have been seen.
    async fn with(inodes: impl Iterator<Item = u64> + Clone) -> (Self, Vec<Registration>) {
        let mut test = Self::new();
        test.world.mount(inodes.clone());
        let registrations = inodes.map(|inode| test.watch.add(file(inode))).collect();
        assert_eq!(test.died().await.len(), 0);
        assert_eq!(test.world.looks(), 1, "one for all of them");
        (test, registrations)
    }

    /// The batches that one look of the watcher tells.
    async fn died(&mut self) -> Vec<Died> {
        self.watcher.look().await;
        let mut died = Vec::new();
        while let Ok(batch) = self.deaths.try_recv() {
            died.push(batch);
        }
        died
    }
}

#[tokio::test]
async fn all_that_die_at_once_are_found_by_one_look_and_the_one_that_confirms_it() {
    let (mut test, registrations) = Test::with(1..=1000).await;
    test.world.mount([7]);
    let died = test.died().await;
    assert_eq!(test.world.looks(), 2);
    assert_eq!(died.len(), 1, "in one batch");
    assert_eq!(died[0].0.len(), 999);
    for registration in &registrations {
        assert_eq!(died[0].has(registration), registration.file.inode != 7, "{registration:?}");
    }
    assert_eq!(test.died().await.len(), 0, "each once");
    assert_eq!(test.world.looks(), 0, "the one that is left has its witness");
}

#[tokio::test]
async fn a_mount_table_that_tells_of_its_changes_is_read_when_it_has_told_of_one() {
    let mut test = Test::new();
    test.watcher.tables = Tables::telling(vec![test.world.table()]);
    test.world.mount([1, 2]);
    let registrations: Vec<_> = [1, 2].map(|inode| test.watch.add(file(inode))).into();
    assert_eq!(test.died().await.len(), 0);
    assert_eq!(test.world.looks(), 0, "both are in the table");
    test.world.mount([2]);
    assert_eq!(test.died().await.len(), 0);
    assert_eq!(test.world.looks(), 0, "nothing has been told");
    test.watcher.tables.changed();
    let died = test.died().await;
    assert!(died.len() == 1 && died[0].has(&registrations[0]) && !died[0].has(&registrations[1]));
    assert_eq!(test.world.looks(), 2, "what is not there is looked for, twice");
}

#[tokio::test]
async fn a_namespace_that_no_table_has_that_was_read_before_is_looked_for() {
    let mut test = Test::new();
    test.watcher.tables = Tables::telling(vec![test.world.table()]);
    test.world.mount([1]);
    let first = test.watch.add(file(1));
    assert_eq!(test.died().await.len(), 0);
    test.world.mount([1, 2]);
    let second = test.watch.add(file(2));
    assert_eq!(test.died().await.len(), 0);
    assert_eq!(test.world.looks(), 1, "the table may have changed without a word until now");
    drop((first, second));
}

#[tokio::test]
async fn those_that_die_while_others_are_confirmed_share_that_look() {
    let (mut test, registrations) = Test::with(1..=4).await;
    test.world.mount([2, 3, 4]);
    // What goes while others are looked for is looked for next.
    test.world.before_looks([
        Box::new(|world: &World| world.mount([3, 4])) as Event,
        Box::new(|world: &World| world.mount([4])),
    ]);
    let died = test.died().await;
    let dead: Vec<Vec<u64>> = died
        .iter()
        .map(|died| registrations.iter().filter(|one| died.has(one)).map(|one| one.file.inode).collect())
        .collect();
    assert_eq!(dead, [[1], [2], [3]]);
    assert_eq!(test.world.looks(), 4, "one for each that follows, not two");
}

#[tokio::test]
async fn what_is_not_surely_dead_is_not_told() {
    let cases: [(&str, Event, Event, usize); 5] = [
        ("it is mounted while it is suspect", Box::new(|_| {}), Box::new(|world| world.mount([1])), 2),
        (
            "a look fails",
            Box::new(|world| world.0.lock().unwrap().answer = |_| Err(io::ErrorKind::Other.into())),
            Box::new(|_| {}),
            1,
        ),
        (
            "the look that confirms fails",
            Box::new(|_| {}),
            Box::new(|world| world.0.lock().unwrap().answer = |_| Err(io::ErrorKind::Other.into())),
            2,
        ),
        (
            "a process is hidden that may keep it",
            Box::new(|_| {}),
            Box::new(|world| world.0.lock().unwrap().answer = |found| Ok(Witnesses { hidden: 1, ..found })),
            2,
        ),
        (
            "the host is not seen any more",
            Box::new(|world| world.0.lock().unwrap().shows_all = false),
            Box::new(|_| {}),
            1,
        ),
    ];
    for (case, first, second, looks) in cases {
        let (mut test, _registrations) = Test::with(1..=1).await;
        test.world.mount([]);
        test.world.before_looks([first, second]);
        assert_eq!(test.died().await.len(), 0, "{case}");
        assert_eq!(test.world.looks(), looks, "{case}");
    }
}

#[tokio::test]
async fn after_a_look_that_failed_two_in_a_row_are_needed_again() {
    let (mut test, registrations) = Test::with(1..=1).await;
    test.world.mount([]);
    test.world.before_looks([
        Box::new(|_: &World| {}) as Event,
        Box::new(|world: &World| world.0.lock().unwrap().answer = |_| Err(io::ErrorKind::Other.into())),
        Box::new(|world: &World| world.0.lock().unwrap().answer = Ok),
    ]);
    assert_eq!(test.died().await.len(), 0);
    let died = test.died().await;
    assert!(died.len() == 1 && died[0].has(&registrations[0]));
    assert_eq!(test.world.looks(), 4, "two before the failure do not count");
}

#[tokio::test]
async fn a_registration_that_was_let_go_of_says_nothing_about_the_next_with_its_inode() {
    let (mut test, mut registrations) = Test::with(1..=1).await;
    test.world.mount([]);
    let (old, watch) = (registrations.remove(0), Arc::clone(&test.watch));
    let number = old.number;
    let next = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&next);
    test.world.before_looks([
        Box::new(|_: &World| {}) as Event,
        // In the middle of the look that confirms.
        Box::new(move |_: &World| {
            drop(old);
            *kept.lock().unwrap() = Some(watch.add(file(1)));
        }),
    ]);
    let died = test.died().await;
    let next = next.lock().unwrap().take().unwrap();
    assert_ne!(next.number, number);
    assert!(died.iter().all(|died| !died.has(&next)), "the verdict is about the one before");
    test.world.mount([1]);
    assert_eq!(test.died().await.len(), 0);
    test.world.mount([]);
    assert!(test.died().await[0].has(&next), "it is watched");
}

#[tokio::test]
async fn a_suspects_inode_that_is_registered_anew_is_looked_at_twice_again() {
    let (mut test, registrations) = Test::with(1..=1).await;
    test.world.mount([]);
    let (watch, next) = (Arc::clone(&test.watch), Arc::new(Mutex::new(None)));
    let kept = Arc::clone(&next);
    test.world.before_looks([Box::new(move |_: &World| {
        *kept.lock().unwrap() = Some(watch.add(file(1)));
    }) as Event]);
    let died = test.died().await;
    assert_eq!(test.world.looks(), 3);
    let next = next.lock().unwrap().take().unwrap();
    assert!(died.len() == 1 && died[0].has(&registrations[0]) && died[0].has(&next));
}

#[tokio::test]
async fn each_who_has_registered_a_namespace_is_told_and_who_has_let_go_is_not() {
    let (mut test, mut registrations) = Test::with([1, 1, 1].into_iter()).await;
    drop(registrations.remove(1));
    assert_eq!(test.died().await.len(), 0, "two are left");
    test.world.mount([]);
    let died = test.died().await;
    assert!(died.len() == 1 && died[0].0.len() == 2);
    assert!(registrations.iter().all(|registration| died[0].has(registration)));
    let again = test.watch.add(file(1));
    assert!(!died[0].has(&again), "a number is used once");
    drop((again, registrations));
    test.world.looks();
    assert_eq!(test.died().await.len(), 0);
    assert_eq!(test.world.looks(), 0, "nobody is interested in anything");
}

#[tokio::test]
async fn the_watch_ends_with_its_handle_and_says_what_dies_before() {
    let Test { world, watch, watcher, mut deaths } = Test::new();
    world.mount([2]);
    let watching = tokio::spawn(watcher.run(Vec::new()));
    let (dead, alive) = (watch.add(file(1)), watch.add(file(2)));
    let died = deaths.recv().await.unwrap();
    assert!(died.has(&dead) && !died.has(&alive));
    drop(watch);
    watching.await.unwrap();
    drop((dead, alive));
}

#[tokio::test]
async fn this_process_keeps_its_namespace() {
    let own = NetnsFile::of(File::open("/proc/self/ns/net").unwrap()).unwrap();
    let (watch, mut watcher, mut deaths) = Watch::by(Proc);
    let _registration = watch.add(own);
    watcher.look().await;
    assert!(deaths.try_recv().is_err());
}
