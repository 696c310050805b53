//! Drives what decides about signed documents through random events, and requires that each document and each call that
//! waits comes to an end in time.
//!
//! The clock, the disk and the peers are fakes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may panic outside its test functions too, and prints what it measured"
)]

use policies::{
    document_intake::{
        Attempts, COMPARE_INTERVAL, DocumentIntake, MAX_POLL_RETRY_DELAY, Offer, PollDelays,
        PollOutcome, RETRY_DELAY,
    },
    names::Prefix,
    rng::Rng,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const SEED: u64 = 0x7761_7272_656e;
const SEQUENCES: u32 = 100_000;
/// The timeout of a call to a peer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time that the disk takes for a document.
const MAX_WRITE_TIME: Duration = Duration::from_millis(500);
/// A waiting document is verified when the seven before it and the one that was being written are on disk.
const MAX_WAITED: Duration = MAX_WRITE_TIME.saturating_mul(9);
/// How long a call goes on once its peer answers, or is a neighbour no more: one that times out, the longest delay, and another one.
const MAX_CALLING: Duration = Duration::from_secs(2 + 60 + 2);
/// The longest interval between two comparisons, the calls of two of them, since the first one may bring only one document,
/// and the disk.
const MAX_OUTDATED: Duration = Duration::from_secs(2 * (450 + 2) + 5);

fn peer(number: u64) -> Prefix {
    Prefix::new(u32::try_from(number).unwrap(), 16).unwrap()
}

/// One of the two kinds, by number.
type Kind = usize;

#[derive(Clone, Copy, Debug)]
struct Document {
    kind: Kind,
    version: u64,
    is_valid: bool,
    offered_at: Uptime,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Compare,
    Fetch(Kind),
    Post(Kind),
}

#[derive(Clone, Copy, Debug)]
struct Call {
    action: Action,
    peer: Prefix,
    attempts: Attempts,
    /// When the first attempt started.
    since: Uptime,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Written(Document, Option<Prefix>),
    Started(Call),
    Answered(Call),
    CompareDue,
}

/// The longest times from the begin of a wait to its end.
#[derive(Debug, Default)]
struct Longest {
    waited: Duration,
    calling: Duration,
    outdated: Duration,
}

struct Node {
    now: Uptime,
    intake: DocumentIntake<Document>,
    current: [u64; 2],
    neighbours: BTreeSet<Prefix>,
    /// The versions of each peer, and whether it answers.
    peers: BTreeMap<Prefix, ([u64; 2], bool)>,
    /// When each peer last began to answer or ceased to be a neighbour.
    changed: BTreeMap<Prefix, Uptime>,
    newest: [u64; 2],
    events: Vec<(Uptime, Event)>,
    longest: Longest,
    sequence: u32,
}

impl Node {
    fn new(sequence: u32, longest: Longest) -> Self {
        let now = Uptime::from_secs(1_000);
        Self {
            now,
            intake: DocumentIntake::default(),
            current: [1, 1],
            neighbours: BTreeSet::new(),
            peers: (2..6)
                .map(|number| (peer(number), ([1, 1], true)))
                .collect(),
            changed: BTreeMap::new(),
            newest: [1, 1],
            events: vec![(now + COMPARE_INTERVAL, Event::CompareDue)],
            longest,
            sequence,
        }
    }

    fn at(&mut self, at: Uptime, event: Event) {
        self.events.push((at, event));
    }

    fn call(&mut self, action: Action, peer: Prefix, attempts: Attempts) {
        let since = self.now;
        let call = Call {
            action,
            peer,
            attempts,
            since,
        };
        self.at(since, Event::Started(call));
    }

    fn offer(&mut self, document: Document, from: Option<Prefix>, rng: &mut Rng) {
        if document.is_valid && self.current.get(document.kind) == Some(&document.version) {
            return;
        }
        if let Some(offer) = self.intake.offer(document, from, self.now) {
            self.verify(offer, rng);
        }
    }

    fn verify(&mut self, (document, from): Offer<Document>, rng: &mut Rng) {
        let waited = self.now.since(document.offered_at);
        self.longest.waited = self.longest.waited.max(waited);
        assert!(waited <= MAX_WAITED, "{}: waited {waited:?}", self.place());
        let ours = *self.current.get(document.kind).unwrap();
        if !document.is_valid || document.version == ours {
            return;
        }
        if document.version < ours {
            if let Some(peer) = from {
                self.call(
                    Action::Post(document.kind),
                    peer,
                    Attempts::until_answered(),
                );
            }
            return;
        }
        self.intake.on_write_started();
        let written_at = self.now + rng.span(Duration::from_millis(1), MAX_WRITE_TIME);
        self.at(written_at, Event::Written(document, from));
    }

    /// Lets the time pass until `until`, and what is due happen.
    fn pass_to(&mut self, until: Uptime, rng: &mut Rng) {
        loop {
            let next = self.events.iter().enumerate();
            let next = next.min_by_key(|(_, (at, _))| *at);
            let Some((index, (at, _))) = next.filter(|(_, (at, _))| *at <= until) else {
                break;
            };
            self.now = self.now.max(*at);
            let (_, event) = self.events.swap_remove(index);
            self.happen(event, rng);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event, rng: &mut Rng) {
        match event {
            Event::Written(document, from) => {
                self.intake.on_write_finished();
                *self.current.get_mut(document.kind).unwrap() = document.version;
                for peer in self.neighbours.clone() {
                    if Some(peer) != from {
                        self.call(
                            Action::Post(document.kind),
                            peer,
                            Attempts::until_answered(),
                        );
                    }
                }
                while let Some(offer) = self.intake.take_next() {
                    self.verify(offer, rng);
                }
            }
            Event::Started(call) => {
                let answers = self.peers.get(&call.peer).unwrap().1;
                let takes = if answers {
                    rng.span(Duration::from_millis(1), Duration::from_millis(300))
                } else {
                    CALL_TIMEOUT
                };
                self.at(self.now + takes, Event::Answered(call));
            }
            Event::Answered(call) => self.on_answer(call, rng),
            Event::CompareDue => {
                let index = rng.below(u64::try_from(self.neighbours.len().max(1)).unwrap());
                let mut neighbours = self.neighbours.iter();
                if let Some(peer) = neighbours.nth(usize::try_from(index).unwrap()).copied() {
                    self.call(Action::Compare, peer, Attempts::one());
                }
                let delay = rng.span(COMPARE_INTERVAL / 2, COMPARE_INTERVAL * 3 / 2);
                self.at(self.now + delay, Event::CompareDue);
            }
        }
    }

    fn on_answer(&mut self, call: Call, rng: &mut Rng) {
        let (theirs, answers) = *self.peers.get(&call.peer).unwrap();
        let changed = self.changed.get(&call.peer).copied();
        if answers || !self.neighbours.contains(&call.peer) {
            let calling = self
                .now
                .since(changed.unwrap_or(call.since).max(call.since));
            self.longest.calling = self.longest.calling.max(calling);
            assert!(
                calling <= MAX_CALLING,
                "{}: {call:?} {calling:?}",
                self.place()
            );
        }
        if !answers {
            // A fetch is not repeated; the next comparison leads to another one.
            let is_repeated = !matches!(call.action, Action::Fetch(_));
            let is_neighbour = self.neighbours.contains(&call.peer);
            if let Some((delay, attempts)) =
                call.attempts.after_failure(is_neighbour && is_repeated)
            {
                self.at(self.now + delay, Event::Started(Call { attempts, ..call }));
            }
            return;
        }
        match call.action {
            Action::Compare => {
                for kind in 0..2 {
                    let (ours, theirs) = (self.current.get(kind), theirs.get(kind));
                    if theirs < ours {
                        self.call(Action::Post(kind), call.peer, Attempts::until_answered());
                    } else if theirs > ours {
                        self.call(Action::Fetch(kind), call.peer, Attempts::one());
                    }
                }
            }
            Action::Fetch(kind) => {
                let document = self.document(kind, *theirs.get(kind).unwrap());
                self.offer(document, Some(call.peer), rng);
            }
            Action::Post(kind) => {
                let ours = *self.current.get(kind).unwrap();
                let (theirs, _) = self.peers.get_mut(&call.peer).unwrap();
                let theirs = theirs.get_mut(kind).unwrap();
                *theirs = ours.max(*theirs);
            }
        }
    }

    fn document(&self, kind: Kind, version: u64) -> Document {
        Document {
            kind,
            version,
            is_valid: true,
            offered_at: self.now,
        }
    }

    /// Something happens to the node from outside.
    fn disturb(&mut self, rng: &mut Rng) {
        let kind = usize::try_from(rng.below(2)).unwrap();
        let sender = peer(2 + rng.below(4));
        let newest = self.newest.get_mut(kind).unwrap();
        match rng.below(8) {
            0 => {
                *newest += 1;
                let document = self.document(kind, *self.newest.get(kind).unwrap());
                let (theirs, _) = self.peers.get_mut(&sender).unwrap();
                *theirs.get_mut(kind).unwrap() = document.version;
                self.offer(document, Some(sender), rng);
            }
            1 => {
                let document = self.document(kind, *self.newest.get(kind).unwrap());
                self.offer(document, None, rng);
            }
            2 | 3 => {
                let version = 1 + rng.below(*newest);
                let mut document = self.document(kind, version);
                document.is_valid = rng.below(3) > 0;
                self.offer(document, Some(sender), rng);
            }
            4 => {
                let (_, answers) = self.peers.get_mut(&sender).unwrap();
                *answers = !*answers;
                self.changed.insert(sender, self.now);
            }
            5 => {
                if self.neighbours.insert(sender) {
                    self.call(Action::Compare, sender, Attempts::until_answered());
                } else {
                    self.neighbours.remove(&sender);
                    self.changed.insert(sender, self.now);
                }
            }
            _ => {}
        }
    }

    fn place(&self) -> String {
        format!("seed {SEED:#x}, sequence {}", self.sequence)
    }
}

#[test]
fn waiting_documents_and_calls_end_and_the_newest_documents_arrive_within_their_limits() {
    let mut rng = Rng::new(SEED);
    let mut longest = Longest::default();
    for sequence in 0..SEQUENCES {
        let mut node = Node::new(sequence, longest);
        for _ in 0..rng.below(40) {
            node.disturb(&mut rng);
            if rng.below(3) == 0 {
                let until = node.now + rng.span(Duration::ZERO, Duration::from_secs(20));
                node.pass_to(until, &mut rng);
            }
        }
        // From now on all peers answer, and have what is newest.
        let newest = node.newest;
        node.peers
            .values_mut()
            .for_each(|known| *known = (newest, true));
        node.neighbours.insert(peer(2));
        let since = node.now;
        node.changed = node.peers.keys().map(|peer| (*peer, since)).collect();
        while node.current != newest || !node.intake.is_idle() {
            let until = node.events.iter().map(|(at, _)| *at).min().unwrap();
            node.pass_to(until, &mut rng);
            let outdated = node.now.since(since);
            node.longest.outdated = node.longest.outdated.max(outdated);
            assert!(
                outdated <= MAX_OUTDATED,
                "{}: {:?} and not {newest:?}, {:?}",
                node.place(),
                node.current,
                node.intake
            );
        }
        node.pass_to(node.now.max(since + MAX_CALLING), &mut rng);
        let is_old = |event: &Event| match event {
            Event::Started(call) | Event::Answered(call) => call.since < since,
            Event::Written(..) | Event::CompareDue => false,
        };
        assert!(
            !node.events.iter().any(|(_, event)| is_old(event)),
            "{}: {:?}",
            node.place(),
            node.events
        );
        longest = node.longest;
    }
    println!("documents: {SEQUENCES} sequences from seed {SEED:#x}: {longest:?}");
}

#[test]
fn a_long_poll_follows_the_last_one_within_the_limit() {
    let mut rng = Rng::new(SEED);
    let mut longest = Duration::ZERO;
    for sequence in 0..SEQUENCES {
        let mut delays = PollDelays::default();
        for _ in 0..rng.below(40) {
            let outcome = match rng.below(6) {
                0 => PollOutcome::Document,
                1 => PollOutcome::NoNews,
                _ => PollOutcome::Failed,
            };
            let delay = delays.after(outcome);
            longest = longest.max(delay);
            let is_prompt = outcome == PollOutcome::Failed || delay <= RETRY_DELAY;
            assert!(
                is_prompt && delay <= MAX_POLL_RETRY_DELAY,
                "seed {SEED:#x}, sequence {sequence}: {outcome:?}, {delay:?}"
            );
        }
        assert!(delays.after(PollOutcome::NoNews).is_zero());
    }
    println!("polls: {SEQUENCES} sequences from seed {SEED:#x}: at most {longest:?} apart");
}
