//! Conversations as they are, and any sequence of messages.

use fixer_common::{abi::Hook, verdict::Verdict};
use proptest::prelude::*;

use super::*;
use crate::event::fixture;

const PATIENCE: Duration = Duration::from_secs(30);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);
const YOURS: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 129);

/// A message of a client, or to it, at this second, after a change to the event.
fn at(second: f64, message_type: &'static str, change: impl FnOnce(&mut Event)) -> Event {
    let mut event = fixture::event(Verdict::Valid, |_| ());
    event.monotonic = Duration::from_secs_f64(100.0 + second);
    let dhcp = event.dhcp.as_mut().unwrap();
    dhcp.message_type = message_type;
    if !["offer", "ack"].contains(&message_type) {
        (dhcp.your_ip, dhcp.server_id) = (None, None);
    }
    change(&mut event);
    event
}

fn xid(number: u32) -> impl FnOnce(&mut Event) {
    move |event| event.dhcp.as_mut().unwrap().xid = Xid::V4(number)
}

fn from(server: Ipv4Addr) -> impl FnOnce(&mut Event) {
    move |event| event.dhcp.as_mut().unwrap().server_id = Some(ServerId::Address(server))
}

fn same(_: &mut Event) {}

fn now(second: f64) -> Now {
    let monotonic = Duration::from_secs_f64(100.0 + second);
    Now { monotonic, time: "2026-11-21T10:16:53Z".parse().unwrap() }
}

/// What is told of these events; every exchange but the last has to be over with the last event.
fn told(events: impl IntoIterator<Item = Event>) -> (Tracker, Vec<Exchange>) {
    let mut tracker = Tracker::new(PATIENCE);
    let over = events.into_iter().flat_map(|event| tracker.see(&event).over);
    let over = over.map(|ending| ending.exchange).collect();
    (tracker, over)
}

/// The one exchange that these events are, ended by the last of them or by silence.
fn one(events: impl IntoIterator<Item = Event>) -> Exchange {
    let (mut tracker, mut over) = told(events);
    over.extend(tracker.tick(now(1000.0)).over.into_iter().map(|ending| ending.exchange));
    assert!(tracker.is_empty() && tracker.turns.is_empty());
    let [exchange] = &over[..] else { panic!("not one: {over:#?}") };
    exchange.clone()
}

#[test]
fn a_lease_tells_who_gave_it_and_how_long_it_took() {
    let exchange = one([
        at(0.0, "discover", same),
        at(0.5, "offer", same),
        at(0.75, "offer", from(OTHER)),
        at(1.0, "request", from(SERVER)),
        at(1.25, "ack", same),
    ]);
    let expected = Exchange {
        outcome: Lease,
        xid: Xid::V4(0x6ce6_e42e),
        client_mac: Some(fixture::CLIENT),
        pxe: false,
        began_with: "discover",
        seconds: 1.25,
        retries: 0,
        servers: vec![SERVER, OTHER],
        boot_servers: vec![],
        server: Some(SERVER),
        your_ip: Some(YOURS),
        messages: exchange.messages.clone(),
        offered: Some(YOURS),
    };
    assert_eq!(exchange, expected);
    assert_eq!(exchange.messages.to_string(), "DO2RA");
}

#[test]
fn a_client_may_change_the_transaction_from_message_to_message() {
    let exchange = one([
        at(0.0, "discover", xid(1)),
        at(1.0, "discover", xid(2)),
        // The answer to the first one, late.
        at(1.1, "offer", xid(1)),
        at(1.2, "request", xid(3)),
        at(1.3, "ack", xid(3)),
    ]);
    assert_eq!((exchange.outcome, exchange.retries, exchange.xid), (Lease, 1, Xid::V4(3)));
    assert_eq!(exchange.servers, [SERVER]);
}

#[test]
fn a_reply_to_another_transaction_is_not_its_answer() {
    let exchange = one([at(0.0, "request", xid(1)), at(0.1, "ack", xid(2))]);
    assert_eq!(exchange.outcome, Outcome::NoAck);
}

/// The ISC failover fault: both servers hold back, and the PXE client times out for a minute.
#[test]
fn a_pxe_client_that_nobody_answers() {
    let pxe = |event: &mut Event| {
        event.dhcp.as_mut().unwrap().vendor_class = Some("PXEClient:Arch:00000".to_owned());
    };
    let seconds = [0.0, 4.0, 12.0, 28.0];
    let (mut tracker, over) = told(seconds.map(|second| at(second, "discover", pxe)));
    assert_eq!(over, []);
    assert_eq!(tracker.tick(now(57.9)), Told::default());
    let over = tracker.tick(now(58.0)).over;
    let exchange = &over[0].exchange;
    assert_eq!((exchange.outcome, exchange.pxe, exchange.retries), (Outcome::NoOffer, true, 3));
    assert_eq!((exchange.seconds, exchange.server), (58.0, None));
    assert_eq!((exchange.servers.len(), over.len()), (0, 1));
}

#[test]
fn an_offer_without_an_address_is_about_what_to_boot() {
    let boot = |event: &mut Event| event.dhcp.as_mut().unwrap().your_ip = None;
    let exchange = one([at(0.0, "discover", same), at(0.1, "offer", boot)]);
    assert_eq!((exchange.outcome, exchange.boot_servers), (Outcome::NoOffer, vec![SERVER]));
}

#[test]
fn what_is_missing_is_told() {
    let exchange = one([at(0.0, "discover", same), at(0.1, "offer", same)]);
    assert_eq!((exchange.outcome, exchange.servers), (Outcome::UnansweredOffer, vec![SERVER]));
    let exchange = one([
        at(0.0, "discover", same),
        at(0.1, "offer", same),
        at(0.2, "request", from(SERVER)),
        at(3.2, "request", from(SERVER)),
    ]);
    assert_eq!((exchange.outcome, exchange.retries), (Outcome::NoAck, 1));
    assert_eq!(exchange.server, Some(SERVER));
    let exchange = one([at(0.0, "request", same), at(0.1, "nak", from(SERVER))]);
    assert_eq!((exchange.outcome, exchange.began_with), (Nak, "request"));
    assert_eq!((exchange.server, exchange.your_ip), (Some(SERVER), None));
    let exchange = one([at(0.0, "inform", same), at(0.1, "ack", same)]);
    assert_eq!((exchange.outcome, exchange.your_ip), (Informed, None));
    assert_eq!(one([at(0.0, "inform", same)]).outcome, Outcome::NoAck);
}

#[test]
fn a_client_that_starts_over_has_given_up_what_it_asked_for() {
    let (tracker, over) =
        told([at(0.0, "request", xid(1)), at(4.0, "request", xid(1)), at(9.0, "discover", xid(2))]);
    assert_eq!((over[0].outcome, over[0].seconds, tracker.len()), (Outcome::NoAck, 9.0, 1));
}

/// It is never silent for long enough, and nobody must wait for ever to hear of it.
#[test]
fn a_client_that_never_stops_is_told_of_again_and_again() {
    let discovers = (0..40).map(|number| at(f64::from(number) * 10.0, "discover", same));
    let (tracker, over) = told(discovers);
    assert_eq!(tracker.len(), 1);
    assert_eq!(over.len(), 6);
    for exchange in over {
        assert_eq!((exchange.outcome, exchange.retries), (Outcome::NoOffer, 5));
        assert_eq!(exchange.seconds, 60.0);
    }
}

#[test]
fn what_is_seen_on_several_interfaces_is_told_once() {
    let port = |event: &mut Event| (event.ifindex, event.hook) = (9, Hook::Ingress);
    let exchange = one([
        at(0.0, "discover", port),
        at(0.0, "discover", same),
        at(0.1, "offer", same),
        at(0.1, "offer", port),
        at(0.2, "request", port),
        at(0.2, "request", same),
        at(0.3, "ack", same),
        at(0.3, "ack", port),
    ]);
    assert_eq!((exchange.outcome, exchange.retries), (Lease, 0));
    assert_eq!(exchange.servers.len(), 1);
    assert_eq!(one([at(0.0, "release", port), at(0.0, "release", same)]).outcome, Released);
    assert_eq!(one([at(0.0, "decline", port), at(0.0, "decline", same)]).outcome, Declined);
}

#[test]
fn a_copy_of_what_was_answered_is_no_question() {
    let port = |event: &mut Event| (event.ifindex, event.hook) = (9, Hook::Ingress);
    let begun = [at(0.0, "discover", same), at(0.1, "request", same), at(0.2, "ack", same)];
    let late = |second, place: fn(&mut Event)| {
        let (tracker, over) = told(begun.iter().cloned().chain([at(second, "request", place)]));
        assert_eq!((over.len(), over[0].outcome), (1, Lease));
        tracker.len()
    };
    assert_eq!((late(0.3, port), late(2.2, port)), (0, 0));
    // What comes from the client itself, or much later, is a question again.
    assert_eq!((late(0.3, |_| ()), late(2.3, port)), (1, 1));
    let exchange = one([at(0.0, "request", same), at(0.1, "nak", same), at(0.2, "request", port)]);
    assert_eq!(exchange.outcome, Nak);
    // Of a new exchange it is a message as any other.
    let again = [at(0.3, "request", same), at(0.4, "request", port), at(0.5, "ack", same)];
    let (tracker, over) = told(begun.iter().cloned().chain(again));
    assert_eq!((tracker.len(), over.len(), over[1].retries), (0, 2, 0));
}

#[test]
fn answered_exchanges_are_remembered_for_a_while_only() {
    let mut tracker = Tracker::new(PATIENCE);
    for number in 0..2 * MOST as u32 {
        tracker.see(&at(0.0, "request", of_client(number)));
        tracker.see(&at(0.1, "ack", of_client(number)));
    }
    assert_eq!(tracker.closed.len(), (MOST, MOST));
    tracker.see(&at(5.0, "request", same));
    tracker.see(&at(5.1, "ack", same));
    assert_eq!(tracker.closed.len(), (1, 1));
}

/// What is told, and how many exchanges are forgotten, where events were lost half a second after the first
/// of two messages. That is noticed before the message at this place is seen.
fn with_a_loss(events: [&'static str; 2], place: usize) -> (Vec<Exchange>, usize) {
    let mut tracker = Tracker::new(PATIENCE);
    let (mut over, mut forgotten) = (Vec::new(), 0);
    for (number, name) in events.into_iter().enumerate() {
        if number == place {
            tracker.doubt(&Arc::from("host"), Duration::from_millis(100_500));
        }
        let told = tracker.see(&at(number as f64, name, same));
        over.extend(told.over);
        forgotten += told.forgotten.len();
    }
    let told = tracker.tick(now(100.0));
    over.extend(told.over);
    assert!(tracker.is_empty() && tracker.turns.is_empty());
    (over.into_iter().map(|ending| ending.exchange).collect(), forgotten + told.forgotten.len())
}

#[test]
fn silence_proves_nothing_where_events_were_lost() {
    let outcomes = |(over, forgotten): (Vec<Exchange>, usize)| {
        (over.iter().map(|exchange| exchange.outcome).collect::<Vec<_>>(), forgotten)
    };
    // The loss is noticed before the message that it came after, or behind it.
    for place in [0, 1] {
        assert_eq!(outcomes(with_a_loss(["discover", "offer"], place)), (vec![], 1));
        assert_eq!(outcomes(with_a_loss(["discover", "request"], place)), (vec![], 1));
        assert_eq!(outcomes(with_a_loss(["request", "ack"], place)), (vec![Lease], 0));
        assert_eq!(outcomes(with_a_loss(["request", "nak"], place)), (vec![Nak], 0));
        // The client starts over, or asks again, and now everything is heard.
        let anew = (vec![Outcome::NoOffer], 1);
        assert_eq!(outcomes(with_a_loss(["discover", "discover"], place)), anew);
        let anew = (vec![Outcome::NoAck], 1);
        assert_eq!(outcomes(with_a_loss(["request", "request"], place)), anew);
    }
    let elsewhere = |event: &mut Event| event.netns = "pod".into();
    let mut tracker = Tracker::new(PATIENCE);
    tracker.see(&at(0.0, "discover", elsewhere));
    tracker.doubt(&Arc::from("host"), Duration::from_secs(200));
    assert_eq!(tracker.tick(now(100.0)).over.len(), 1);
}

#[test]
fn what_is_no_part_of_an_exchange_is_left_alone() {
    let elsewhere = |event: &mut Event| event.packet.sport = Some(4011);
    let six = |event: &mut Event| event.dhcp.as_mut().unwrap().xid = Xid::V6(1);
    let (tracker, over) = told([
        at(0.0, "ack", same),
        at(0.0, "offer", same),
        at(0.0, "nak", same),
        at(0.0, "request", elsewhere),
        at(0.0, "request", six),
        at(0.0, "bootp-request", same),
    ]);
    assert_eq!((tracker.len(), over), (0, vec![]));
}

#[test]
fn namespaces_do_not_hear_each_other() {
    let there = |event: &mut Event| event.netns = "pod".into();
    let exchange = one([at(0.0, "discover", same), at(0.1, "offer", there), at(0.2, "ack", there)]);
    assert_eq!((exchange.outcome, exchange.servers), (Outcome::NoOffer, vec![]));
}

fn of_client(number: u32) -> impl FnOnce(&mut Event) {
    move |event| {
        let [a, b, c, d] = number.to_be_bytes();
        event.dhcp.as_mut().unwrap().client_mac = Some(Mac([2, 0, a, b, c, d]));
    }
}

#[test]
fn a_flood_makes_room_at_the_expense_of_those_that_are_silent() {
    let mut tracker = Tracker::new(PATIENCE);
    let mut forgotten = 0;
    for number in 0..3 * MOST as u32 {
        let told = tracker.see(&at(0.0, "discover", of_client(number)));
        forgotten += told.forgotten.len();
        assert_eq!(told.over, []);
        if number.is_multiple_of(1000) {
            // This one goes on, and is not forgotten.
            tracker.see(&at(0.0, "discover", of_client(0)));
        }
    }
    assert_eq!((tracker.len(), tracker.turns.len()), (MOST, MOST));
    assert_eq!(forgotten, 2 * MOST);
    tracker.see(&at(0.1, "request", of_client(0)));
    let over = tracker.see(&at(0.2, "ack", of_client(0))).over;
    assert_eq!((over[0].exchange.outcome, over[0].exchange.retries), (Lease, 13));
    let over = tracker.tick(now(40.0)).over;
    assert!(tracker.is_empty());
    assert_eq!(over.len(), MOST - 1);
}

#[test]
fn a_flood_of_servers_and_transactions_is_no_long_list() {
    let mut tracker = Tracker::new(PATIENCE);
    for number in 0..1000 {
        tracker.see(&at(0.0, "discover", xid(number)));
        tracker.see(&at(0.0, "offer", |event| {
            xid(number)(event);
            from(Ipv4Addr::from_bits(number))(event);
        }));
        tracker.see(&at(0.0, "release", xid(number)));
    }
    assert_eq!((tracker.len(), tracker.recent.len()), (1, RECENT));
    let exchange = &tracker.tick(now(100.0)).over[0].exchange;
    assert_eq!(exchange.servers.len(), 8);
    assert_eq!(exchange.servers[0], Ipv4Addr::UNSPECIFIED);
}

const TYPES: [&str; 10] = [
    "discover",
    "offer",
    "request",
    "ack",
    "nak",
    "decline",
    "release",
    "inform",
    "unknown",
    "bootp-reply",
];

#[derive(Clone, Debug)]
enum Step {
    See { message_type: usize, client: u32, xid: u32, second: f64, place: u32, server: u32 },
    Tick(f64),
}

fn steps() -> impl Strategy<Value = Step> {
    let see = (0..TYPES.len(), 0u32..4, 0u32..4, 0.0..200.0, 0u32..2, 0u32..3);
    let see = see.prop_map(|(message_type, client, xid, second, place, server)| Step::See {
        message_type,
        client,
        xid,
        second,
        place,
        server,
    });
    prop_oneof![9 => see, 1 => (0.0..200.0).prop_map(Step::Tick)]
}

proptest! {
    /// Also when time goes backwards.
    #[test]
    fn any_sequence_is_followed_to_its_end(steps in prop::collection::vec(steps(), 0..200)) {
        let mut tracker = Tracker::new(PATIENCE);
        let (mut begun, mut over, mut clients) = (0, Vec::new(), 0);
        for step in steps {
            let told = match step {
                Step::Tick(second) => tracker.tick(now(second)),
                Step::See { message_type, client, xid: number, second, place, server } => {
                    let before = tracker.len();
                    let event = at(second, TYPES[message_type], |event| {
                        xid(number)(event);
                        from(Ipv4Addr::from_bits(server))(event);
                        event.ifindex = place;
                        if client > 0 {
                            of_client(client)(event);
                        } else {
                            event.dhcp.as_mut().unwrap().client_mac = None;
                        }
                    });
                    clients += usize::from([0, 2, 5, 6, 7].contains(&message_type));
                    let told = tracker.see(&event);
                    begun += (tracker.len() + told.over.len()).saturating_sub(before);
                    told
                }
            };
            prop_assert!(told.forgotten.is_empty());
            over.extend(told.over);
            prop_assert_eq!(tracker.open.len(), tracker.turns.len());
            prop_assert!(tracker.open.values().all(|open| tracker.turns.contains_key(&open.turn)));
        }
        over.extend(tracker.tick(now(1000.0)).over);
        prop_assert!(tracker.is_empty() && tracker.turns.is_empty());
        prop_assert_eq!(over.len(), begun);
        prop_assert!(over.len() <= clients);
        for Ending { exchange, .. } in over {
            prop_assert!(exchange.servers.len() <= 8 && exchange.boot_servers.len() <= 8);
            prop_assert!(exchange.seconds >= 0.0);
            prop_assert!(exchange.retries as usize <= clients);
            prop_assert_eq!(exchange.outcome == Lease, exchange.your_ip.is_some());
        }
    }
}
