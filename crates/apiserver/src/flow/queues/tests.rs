use std::collections::HashSet;

use super::*;

const QUEUING: Queuing = Queuing { queues: 64, hand_size: 6, length: 50 };

/// A set, and the clock.
struct Sim {
    set: QueueSet<&'static str>,
    now: Instant,
}

impl Sim {
    fn new(queuing: Queuing, limit: u32) -> Self {
        let now = Instant::now();
        Self { set: QueueSet::new(queuing, limit, now), now }
    }

    fn arrive(&mut self, who: &'static str, flow: u64, seats: u32) -> Answer {
        self.set.arrive(flow, seats, self.now, || who)
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn finish(&mut self, queue: usize, seats: u32, millis: u64) {
        self.set.finish(queue, seats, Duration::from_millis(millis), self.now);
    }

    fn next(&mut self) -> Option<Granted<&'static str>> {
        self.set.next(self.now)
    }
}

#[test]
fn a_hand_has_different_queues_and_is_always_the_same() {
    let hand = |hash| {
        let mut cards = Vec::new();
        deal(hash, 64, 6, |at| cards.push(at));
        cards
    };
    let mut seen = HashSet::new();
    for hash in (0..2000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let cards = hand(hash);
        assert_eq!(cards.iter().collect::<HashSet<_>>().len(), 6, "{cards:?}");
        assert!(cards.iter().all(|card| *card < 64));
        assert_eq!(cards, hand(hash));
        seen.extend(cards);
    }
    assert_eq!(seen.len(), 64, "every queue is dealt to somebody");
    let mut all = Vec::new();
    deal(12_345, 3, 8, |at| all.push(at));
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2], "no hand is larger than the deck");
}

#[test]
fn without_queues_what_is_too_much_is_turned_away() {
    let mut sim = Sim::new(Queuing { queues: 0, hand_size: 1, length: 0 }, 2);
    let (Answer::Go(one), Answer::Go(_)) = (sim.arrive("a", 1, 1), sim.arrive("b", 2, 1)) else { panic!() };
    assert_eq!(sim.arrive("c", 3, 1), Answer::Full);
    sim.finish(one, 1, 1);
    assert!(matches!(sim.arrive("c", 3, 1), Answer::Go(_)));
}

#[test]
fn a_flood_does_not_keep_others_waiting() {
    let mut sim = Sim::new(QUEUING, 4);
    // The flood takes all seats and fills all of its queues.
    let mut executing = Vec::new();
    let mut turned_away = 0;
    for _ in 0..1000 {
        match sim.arrive("flood", 7, 1) {
            Answer::Go(queue) => executing.push(queue),
            Answer::Full => turned_away += 1,
            Answer::Wait(..) => {}
        }
    }
    assert_eq!(executing.len(), 4);
    assert!(turned_away >= 1000 - 4 - 300, "{turned_away}");
    // Another flow, whose hand has a queue that is not the flood's, gets every second seat at least.
    let quiet = (0..).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).find(|flow| {
        let hand = |flow| {
            let mut cards = HashSet::new();
            deal(flow, 64, 6, |at| {
                cards.insert(at);
            });
            cards
        };
        hand(*flow).is_disjoint(&hand(7))
    });
    for _ in 0..10 {
        assert!(matches!(sim.arrive("quiet", quiet.unwrap(), 1), Answer::Wait(..)));
    }
    let mut order = Vec::new();
    while order.len() < 40 {
        sim.pass(10);
        let ended = executing.remove(0);
        sim.finish(ended, 1, 40);
        let granted = sim.next().unwrap();
        order.push(granted.grant);
        executing.push(granted.queue);
    }
    let last = order.iter().rposition(|who| *who == "quiet").unwrap();
    assert_eq!(order.iter().filter(|who| **who == "quiet").count(), 10);
    assert!(last < 22, "{order:?}");
}

#[test]
fn who_comes_while_a_flood_runs_is_next() {
    let mut sim = Sim::new(QUEUING, 49);
    let mut executing = std::collections::VecDeque::new();
    for _ in 0..350 {
        if let Answer::Go(queue) = sim.arrive("flood", 7, 1) {
            executing.push_back((queue, sim.now));
        }
    }
    // Each takes 100 ms, for there are so many: every two of them one ends, and another comes.
    let mut turn = |sim: &mut Sim| {
        sim.pass(2);
        let (queue, began) = executing.pop_front().unwrap();
        sim.finish(queue, 1, (sim.now - began).as_millis() as u64);
        let granted = sim.next().unwrap();
        executing.push_back((granted.queue, sim.now));
        granted.grant
    };
    for _ in 0..500 {
        assert_eq!(turn(&mut sim), "flood");
        sim.arrive("flood", 7, 1);
    }
    for flow in (1..=50_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let hand = |flow| {
            let mut cards = HashSet::new();
            deal(flow, 64, 6, |at| {
                cards.insert(at);
            });
            cards
        };
        if !hand(flow).is_subset(&hand(7)) {
            assert!(matches!(sim.arrive("quiet", flow, 1), Answer::Wait(..)));
            assert_eq!(turn(&mut sim), "quiet");
            // Until what it did has ended.
            for _ in 0..60 {
                assert_eq!(turn(&mut sim), "flood");
                sim.arrive("flood", 7, 1);
            }
        }
    }
}

#[test]
fn wide_requests_are_neither_starved_nor_stuck() {
    let mut sim = Sim::new(Queuing { queues: 1, hand_size: 1, length: 50 }, 4);
    let Answer::Go(narrow) = sim.arrive("narrow", 1, 1) else { panic!() };
    // Wider than the limit: it gets all seats once they are free, and nobody slips in before.
    assert!(matches!(sim.arrive("wide", 1, 9), Answer::Wait(..)));
    assert!(matches!(sim.arrive("later", 1, 1), Answer::Wait(..)));
    assert!(sim.next().is_none());
    sim.finish(narrow, 1, 5);
    let wide = sim.next().unwrap();
    assert_eq!((wide.grant, wide.seats), ("wide", 9));
    assert!(sim.next().is_none());
    sim.finish(wide.queue, 9, 5);
    assert_eq!(sim.next().unwrap().grant, "later");
    assert_eq!((sim.set.executing_seats, sim.set.waiting), (1, 0));
}

#[test]
fn who_gives_up_leaves_no_trace() {
    let mut sim = Sim::new(Queuing { queues: 1, hand_size: 1, length: 1 }, 1);
    let Answer::Go(queue) = sim.arrive("a", 1, 1) else { panic!() };
    let Answer::Wait(place, number) = sim.arrive("b", 1, 1) else { panic!() };
    assert_eq!(sim.arrive("c", 1, 1), Answer::Full);
    assert!(sim.set.abandon(place, number, sim.now));
    assert!(!sim.set.abandon(place, number, sim.now));
    assert!(matches!(sim.arrive("c", 1, 1), Answer::Wait(..)));
    sim.finish(queue, 1, 1);
    assert_eq!(sim.next().unwrap().grant, "c");
    sim.finish(0, 1, 1);
    assert_eq!(((sim.set.executing_seats, sim.set.waiting), sim.set.active), ((0, 0), 0));
}

#[test]
fn fewer_queues_lose_nobody() {
    let mut sim = Sim::new(QUEUING, 1);
    let Answer::Go(queue) = sim.arrive("first", 99, 1) else { panic!() };
    for flow in 0..40_u64 {
        sim.arrive("waits", flow.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1);
    }
    sim.set.configure(Queuing { queues: 2, hand_size: 1, length: 50 }, sim.now);
    sim.finish(queue, 1, 1);
    let mut served = 0;
    while let Some(granted) = sim.next() {
        served += 1;
        sim.finish(granted.queue, 1, 1);
    }
    assert_eq!(served, 40);
    sim.set.configure(Queuing { queues: 2, hand_size: 1, length: 50 }, sim.now);
    assert_eq!(sim.set.queues.len(), 2);
}
