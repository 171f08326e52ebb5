//! Who has which place, and who makes room.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::FutureExt as _;

use super::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// As many places as a namespace gets.
fn all_of(share: &Arc<Share>) -> Vec<TakenPlace> {
    std::iter::from_fn(|| share.take(CLIENT).ok()).collect()
}

#[test]
fn one_namespace_gets_three_quarters() {
    for (total, most) in [(1, 1), (2, 2), (3, 3), (4, 3), (400, 300)] {
        let places = Places::new(Files::UNLIMITED, total, None);
        let share = Share::new(&places);
        assert_eq!(all_of(&share).len(), most, "{total}");
        assert_eq!(all_of(&share).len(), most, "{total}, once more");
    }
}

#[test]
fn two_namespaces_cannot_take_what_a_third_is_guaranteed() {
    for (total, guarantee) in [(4000, 64), (400, 64), (60, 10), (6, 1)] {
        let places = Places::new(Files::UNLIMITED, total, None);
        let [a, b, c] = [(); 3].map(|()| Share::new(&places));
        let (of_a, of_b, of_c) = (all_of(&a), all_of(&b), all_of(&c));
        let taken = of_a.len() + of_b.len();
        assert_eq!((taken, of_c.len()), (total - guarantee, guarantee), "{total}");
        drop(of_a);
        assert!(c.take(CLIENT).is_ok(), "{total}: what is free is everybody's");
    }
}

#[test]
fn a_namespace_that_comes_when_all_is_taken_is_served_before_the_others() {
    let places = Places::new(Files::UNLIMITED, 100, None);
    let [a, b] = [(); 2].map(|()| Share::new(&places));
    let (mut of_a, of_b) = (all_of(&a), all_of(&b));
    assert_eq!(of_a.len() + of_b.len(), 100);
    let new = Share::new(&places);
    assert!(new.take(CLIENT).is_err());
    of_a.pop();
    assert!(a.take(CLIENT).is_err(), "it is the new one's");
    assert!(new.take(CLIENT).is_ok());
}

#[test]
fn what_was_guaranteed_is_free_when_the_namespace_goes() {
    let places = Places::new(Files::UNLIMITED, 100, None);
    let [a, b] = [(); 2].map(|()| Share::new(&places));
    let c = Share::new(&places);
    let taken = all_of(&a).len() + all_of(&b).len();
    assert_eq!(taken, 100 - 16);
    c.release();
    drop(c);
    assert_eq!(all_of(&a).len() + all_of(&b).len(), 100);
}

#[test]
fn a_client_gets_no_more_than_its_limit_and_others_go_on() {
    let places = Places::new(Files::UNLIMITED, 100, NonZeroU32::new(3));
    let [a, b] = [(); 2].map(|()| Share::new(&places));
    let mut of_a = all_of(&a);
    assert_eq!(of_a.len(), 3);
    assert_eq!(a.take(CLIENT).err(), Some(NotDelivered::ClientLimit));
    assert!(a.take(Ipv4Addr::UNSPECIFIED.into()).is_ok(), "another address");
    assert_eq!(all_of(&b).len(), 3, "the same address in another namespace is another client");
    of_a.pop();
    assert!(a.take(CLIENT).is_ok());
}

#[test]
fn no_place_is_lost_or_made_by_many_threads_at_the_limit() {
    let places = Places::new(Files::UNLIMITED, 50, None);
    let shares = [(); 4].map(|()| Share::new(&places));
    std::thread::scope(|scope| {
        for share in shares.iter().chain(&shares) {
            scope.spawn(move || {
                for _ in 0..2000 {
                    let some: Vec<_> = (0..10).map_while(|_| share.take(CLIENT).ok()).collect();
                    assert!(share.places.used.load(Ordering::Relaxed) <= 50);
                    drop(some);
                }
            });
        }
    });
    assert_eq!(places.used.load(Ordering::Relaxed), 0);
    assert!(shares.iter().all(|share| share.holds().used == 0));
    assert_eq!(bound(&places), 4 * 6, "what is guaranteed");
}

fn bound(places: &Places) -> u64 {
    places.bound.load(Ordering::Relaxed)
}

#[test]
fn what_is_bound_is_exact_while_namespaces_come_and_go() {
    let places = Places::new(Files::UNLIMITED, 200, None);
    let stays = [(); 3].map(|()| Share::new(&places));
    std::thread::scope(|scope| {
        for share in &stays {
            scope.spawn(|| {
                for round in 0..500 {
                    let some: Vec<_> = (0..round % 70).map_while(|_| share.take(CLIENT).ok()).collect();
                    assert!(share.places.used.load(Ordering::Relaxed) <= 200);
                    drop(some);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let comes = Share::new(&places);
                    drop(comes.take(CLIENT));
                    comes.release();
                }
            });
        }
    });
    assert_eq!(places.used.load(Ordering::Relaxed), 0);
    assert_eq!(bound(&places), 3 * 33);
    drop(stays);
    assert_eq!(bound(&places), 0);
}

#[test]
fn there_is_no_lock_while_places_are_free() {
    let places = Places::new(Files::UNLIMITED, 400, None);
    let shares = [(); 2].map(|()| Share::new(&places));
    // Held by somebody else meanwhile: a take that wanted it would never end.
    let list = places.lock();
    let seats =
        shares.each_ref().map(|share| (0..200).map_while(|_| share.take(CLIENT).ok()).collect::<Vec<_>>());
    drop(list);
    assert_eq!(seats.map(|seats| seats.len()), [200, 200]);
}

const AGE: Duration = Duration::from_secs(60);

/// Connections of a namespace, as many as it gets, of which so many are idle: those, and the seats of the others.
fn all_with_idle(share: &Arc<Share>, idle: usize) -> (Vec<Arc<Carried>>, Vec<TakenPlace>) {
    let mut seats: Vec<_> = std::iter::from_fn(|| share.take_one_more(None)).collect();
    let busy = seats.split_off(idle.min(seats.len()));
    let idle = seats.into_iter().map(|seat| share.roster.enter_idle(Some(seat), AGE)).collect();
    (idle, busy)
}

fn evicted(idle: &[Arc<Carried>]) -> usize {
    idle.iter().filter(|one| one.evicted().now_or_never().is_some()).count()
}

#[test]
fn nobody_is_evicted_where_that_makes_no_room() {
    let places = Places::new(Files::UNLIMITED, 100, None);
    let [a, b] = [(); 2].map(|()| Share::new(&places));
    let (idle, _busy_of_a) = all_with_idle(&a, 40);
    let _of_b: Vec<_> = std::iter::from_fn(|| b.take_one_more(None)).collect();
    assert_eq!(places.used.load(Ordering::Relaxed), 100);
    // For their guarantees there is no room.
    let [new, _other] = [(); 2].map(|()| Share::new(&places));
    for _ in 0..5 {
        assert_eq!(b.take(CLIENT).err(), Some(NotDelivered::ConnectionLimit));
    }
    assert_eq!(evicted(&idle), 0);
    let _own: Vec<_> = (0..12).map(|_| new.take(CLIENT).unwrap()).collect();
    assert_eq!(evicted(&idle), 12, "what is guaranteed makes room, one for one");
    assert_eq!(new.take(CLIENT).err(), Some(NotDelivered::ConnectionLimit));
    assert_eq!(evicted(&idle), 12);
}

#[test]
fn at_the_limit_of_a_namespace_only_its_own_idle_ones_make_room_one_for_one() {
    let places = Places::new(Files::UNLIMITED, 100, None);
    let [a, b] = [(); 2].map(|()| Share::new(&places));
    let (idle_of_a, _busy) = all_with_idle(&a, 5);
    let idle_of_b = [(); 20].map(|()| b.roster.enter_idle(b.take_one_more(None), 2 * AGE));
    assert_eq!(a.holds().used, 75);
    // More are guaranteed than are free: its own places go from one to the other all the same.
    let _late = [(); 3].map(|()| Share::new(&places));
    let used = places.used.load(Ordering::Relaxed);
    let taken: Vec<_> = std::iter::from_fn(|| a.take(CLIENT).ok()).collect();
    assert_eq!((taken.len(), evicted(&idle_of_a), evicted(&idle_of_b)), (5, 5, 0));
    assert_eq!((places.used.load(Ordering::Relaxed), a.holds().used), (used, 75));
}

/// Places that these files allow.
fn of_files(files: u64) -> Arc<Places> {
    Places::new(Files::new(files), usize::MAX, None)
}

#[test]
fn namespaces_take_places_and_give_them_back_when_their_last_connection_has_ended() {
    let places = of_files(1024);
    assert_eq!(places.total(), 384);
    let first = Share::new(&places);
    let mut others: Vec<_> = (1..50).map(|_| Share::new(&places)).collect();
    assert_eq!(places.total(), 198);
    let (last, seat) = others.pop().map(|last| (Arc::downgrade(&last), last.take(CLIENT).unwrap())).unwrap();
    assert_eq!(places.total(), 198, "it is draining");
    drop(seat);
    assert_eq!((places.total(), last.strong_count()), (203, 0));
    first.set_files(Files::OF_NAMESPACE + Files::OF_BLACK_HOLE);
    assert_eq!(places.total(), 200);
    first.set_files(Files::OF_NAMESPACE);
    drop(others);
    assert_eq!((places.total(), first.places.per_namespace()), (384, 288));
}

#[test]
fn what_the_user_allows_is_the_most_that_there_are() {
    for (most, namespaces, total) in [(10, 1, 10), (200, 49, 200), (200, 50, 198), (1, 2, 1)] {
        let places = Places::new(Files::new(1024), most, None);
        let shares: Vec<_> = (0..namespaces).map(|_| Share::new(&places)).collect();
        assert_eq!(places.total(), total, "{most} at most, {namespaces} namespaces");
        drop(shares);
    }
}

#[test]
fn a_namespace_that_comes_has_idle_connections_make_room_for_its_files() {
    let places = of_files(256);
    let [a, b] = [(); 2].map(|()| Share::new(&places));
    let (idle_of_a, busy_of_a) = all_with_idle(&a, 3);
    let (idle_of_b, busy_of_b) = all_with_idle(&b, 3);
    let used = || places.used.load(Ordering::Relaxed);
    assert_eq!(used(), 96);
    let mut others = Vec::new();
    for (namespaces, used_then, evicted_then) in [(3, 96, 0), (4, 92, 4), (5, 90, 6), (6, 90, 6)] {
        others.resize_with(namespaces - 2, || Share::new(&places));
        assert_eq!(used(), used_then, "{namespaces} namespaces");
        assert_eq!(evicted(&idle_of_a) + evicted(&idle_of_b), evicted_then, "{namespaces} namespaces");
    }
    // There are more connections than places, and none is idle: what is free is for the namespaces.
    assert_eq!(places.total(), 82);
    assert!(a.take(CLIENT).is_err() && others[0].take(CLIENT).is_err());
    drop(busy_of_a);
    assert!(others[0].take(CLIENT).is_ok());
    drop(busy_of_b);
}

#[test]
fn at_too_many_connections_an_idle_one_gives_its_place_to_nobody() {
    let places = of_files(256);
    let a = Share::new(&places);
    let (idle, busy) = all_with_idle(&a, 10);
    assert_eq!(busy.len(), 62);
    // As where namespaces have come before these were idle.
    places.total.store(32, Ordering::Relaxed);
    assert!(a.take(CLIENT).is_err());
    assert_eq!((evicted(&idle), places.used.load(Ordering::Relaxed)), (10, 62));
}

#[test]
fn a_namespace_comes_where_files_are_left_for_it_beside_all_connections() {
    for (files, namespaces, connections, comes) in [
        (256, 1, 72, true),
        (256, 2, 96, true),
        (256, 12, 50, true),
        (256, 22, 1, true),
        (256, 23, 1, false),
        (64, 4, 0, false),
    ] {
        let places = of_files(files);
        let shares: Vec<_> = (0..namespaces).map(|_| Share::new(&places)).collect();
        let seats: Vec<_> =
            shares.iter().cycle().take(connections).map(|share| share.take_one_more(None)).collect();
        assert_eq!(
            Share::reserve(&places).is_some(),
            comes,
            "{files} files, {namespaces} namespaces, {connections}"
        );
        drop(seats);
    }
}

#[test]
fn as_many_clients_at_once_as_there_are_idle_connections_get_their_places() {
    let places = Places::new(Files::UNLIMITED, 4000, NonZeroU32::new(4000));
    let share = Share::new(&places);
    let seats: Vec<_> = (0..3000).map(|_| share.take(CLIENT).unwrap()).collect();
    let enter = |seat| share.roster.enter_idle(Some(seat), AGE);
    let idle: Vec<_> = seats.into_iter().map(enter).collect();
    let other = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let taken = std::thread::scope(|scope| {
        let each = [(); 8]
            .map(|()| scope.spawn(|| (0..375).map_while(|_| share.take(other).ok()).collect::<Vec<_>>()));
        each.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!((taken.len(), evicted(&idle)), (3000, 3000));
    assert_eq!(share.take(CLIENT).err(), Some(NotDelivered::ConnectionLimit));
    drop(taken);
    assert_eq!(share.holds().used, 0);
    assert!(share.clients.is_empty());
}
