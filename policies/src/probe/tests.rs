//! Probing on a simulated link, until the peer dies.

use super::*;
use crate::parameters::Parameters;

/// A simulated link: it takes steps of 10 ms, and reads counters every 500 ms at an offset.
struct Link {
    probing: Probing,
    counters: LinkCounters,
    millis: u64,
    rtt_millis: u64,
    /// Frames of payload per second, sent and received.
    payload: (u64, u64),
    /// The moment at which the peer dies, in milliseconds.
    dies: u64,
    replies: VecDeque<(u64, Seq)>,
    sent: Vec<u64>,
    sample_offset: u64,
    hello_millis: u64,
}

impl Link {
    fn new(payload: (u64, u64)) -> Self {
        let pace = ProbePace::new(&Parameters::default(), 8);
        Self {
            probing: Probing::new(pace, Uptime::default()),
            counters: LinkCounters::default(),
            millis: 0,
            rtt_millis: 2,
            payload,
            dies: u64::MAX,
            replies: VecDeque::new(),
            sent: Vec::new(),
            sample_offset: 0,
            hello_millis: 1_000,
        }
    }

    fn now(&self) -> Uptime {
        Uptime::from_millis(self.millis)
    }

    fn alive(&self) -> bool {
        self.millis < self.dies
    }

    fn step(&mut self) -> Liveness {
        self.millis += 10;
        let every = |rate: u64| rate > 0 && self.millis.is_multiple_of((1_000 / rate).max(10));
        let hello = u64::from(self.millis.is_multiple_of(self.hello_millis));
        self.counters.tx_packets += u64::from(every(self.payload.0)) + hello;
        if self.alive() {
            self.counters.rx_packets += u64::from(every(self.payload.1)) + hello;
        }
        while self
            .replies
            .front()
            .is_some_and(|(at, _)| *at <= self.millis)
        {
            let (_, seq) = self.replies.pop_front().unwrap();
            if self.alive() {
                self.counters.rx_packets += 1;
                self.probing.on_reply(seq, self.now());
            }
        }
        if self.millis % 500 == self.sample_offset {
            self.probing.on_counters(self.counters, self.now());
        }
        if let Some(seq) = self.probing.next_probe(self.now()) {
            self.counters.tx_packets += 1;
            self.sent.push(self.millis);
            self.replies.push_back((self.millis + self.rtt_millis, seq));
        }
        self.probing.liveness(self.now())
    }

    fn run(&mut self, millis: u64) -> Liveness {
        (0..millis / 10).map(|_| self.step()).last().unwrap()
    }

    /// Milliseconds until the peer is judged so; `None` if it is not within `millis`.
    fn until(&mut self, liveness: Liveness, millis: u64) -> Option<u64> {
        let from = self.millis;
        (0..millis / 10).find_map(|_| (self.step() >= liveness).then(|| self.millis - from))
    }
}

#[track_caller]
fn check(link: &mut Link, liveness: Liveness, within: std::ops::RangeInclusive<u64>) {
    link.dies = link.millis;
    let took = link.until(liveness, 60_000);
    assert!(
        took.is_some_and(|took| within.contains(&took)),
        "{took:?} not in {within:?}"
    );
}

#[test]
fn a_dead_peer_with_traffic_is_recognised_within_a_second_and_a_quarter() {
    for sample_offset in (0..500).step_by(50) {
        for extra in (0..500).step_by(30) {
            let mut link = Link {
                sample_offset,
                ..Link::new((100, 100))
            };
            assert_eq!(link.run(20_000 + extra), Liveness::Alive);
            check(&mut link, Liveness::Dead, 1_000..=1_280);
        }
    }
}

#[test]
fn a_dead_peer_with_traffic_is_suspect_after_three_quarters_of_a_second() {
    let mut link = Link::new((100, 100));
    link.run(20_000);
    check(&mut link, Liveness::Suspect, 490..=760);
}

#[test]
fn a_dead_idle_peer_is_recognised_once_its_hellos_stay_away() {
    for extra in (0..1_000).step_by(90) {
        let mut link = Link::new((0, 0));
        link.run(40_000 + extra);
        check(&mut link, Liveness::Dead, 1_000..=9_700);
    }
}

#[test]
fn a_dead_idle_peer_is_recognised_at_the_next_idle_probe_if_that_comes_first() {
    let parameters = Parameters {
        idle_probe: Duration::from_secs(2),
        ..Parameters::default()
    };
    let mut link = Link::new((0, 0));
    link.probing.set_pace(ProbePace::new(&parameters, 8));
    link.run(40_000);
    check(&mut link, Liveness::Dead, 1_000..=3_500);
}

#[test]
fn metered_and_accepted_tunnels_are_probed_every_five_minutes_and_hellos_show_that_a_peer_is_dead()
{
    let mut link = Link::new((0, 0));
    link.hello_millis = 30_000;
    link.probing
        .set_pace(ProbePace::new(&Parameters::default(), 8).metered());
    link.run(40_000);
    let sent = link.sent.len();
    assert_eq!(link.run(600_000), Liveness::Alive);
    assert_eq!(link.sent.len() - sent, 2);
    check(&mut link, Liveness::Dead, 1_000..=49_000);
    let mut accepted = Link::new((0, 0));
    accepted
        .probing
        .set_pace(ProbePace::new(&Parameters::default(), 8).accepted());
    accepted.run(640_000);
    assert_eq!(
        accepted.sent.iter().filter(|sent| **sent > 40_000).count(),
        2
    );
    check(&mut accepted, Liveness::Dead, 1_000..=9_700);
    let mut busy = Link::new((100, 100));
    busy.probing
        .set_pace(ProbePace::new(&Parameters::default(), 8).metered());
    busy.run(20_000);
    check(&mut busy, Liveness::Dead, 3_000..=4_500);
}

#[test]
fn a_new_pace_holds_from_the_next_probe_on() {
    let idle_probe = Duration::from_secs(3);
    let mut link = Link::new((0, 0));
    link.run(31_000);
    link.probing.set_pace(ProbePace::new(
        &Parameters {
            idle_probe,
            ..Parameters::default()
        },
        8,
    ));
    let sent = link.sent.len();
    assert_eq!(link.run(30_000), Liveness::Alive);
    assert!(
        (9..=11).contains(&(link.sent.len() - sent)),
        "{:?}",
        link.sent
    );
    check(&mut link, Liveness::Dead, 1_000..=4_500);
}

#[test]
fn an_idle_dead_tunnel_that_gets_payload_is_recognised_at_once() {
    let mut link = Link::new((0, 0));
    link.run(31_000);
    link.dies = link.millis;
    link.run(3_000);
    link.payload = (100, 0);
    let took = link.until(Liveness::Dead, 10_000);
    assert!(took.is_some_and(|took| took <= 1_800), "{took:?}");
}

#[test]
fn a_suspicion_of_a_dead_idle_peer_is_confirmed_within_a_second() {
    for extra in (0..1_000).step_by(90) {
        let mut link = Link::new((0, 0));
        link.run(33_000 + extra);
        link.dies = link.millis;
        link.run(100);
        let sent = link.sent.len();
        link.probing.on_suspicion(link.now());
        let took = link.until(Liveness::Dead, 5_000);
        assert!(
            took.is_some_and(|took| (590..=1_100).contains(&took)),
            "{extra}: {took:?}"
        );
        assert!(link.sent.len() - sent <= 5, "{:?}", link.sent);
    }
}

#[test]
fn a_suspicion_of_a_living_peer_costs_three_probes_and_nothing_else() {
    let mut link = Link::new((0, 0));
    link.run(33_000);
    let sent = link.sent.len();
    link.probing.on_suspicion(link.now());
    assert_eq!(link.until(Liveness::Suspect, 5_000), None);
    assert!(
        (1..=3).contains(&(link.sent.len() - sent)),
        "{:?}",
        link.sent
    );
}

#[test]
fn a_peer_that_never_answered_is_not_judged_while_it_sends_hellos() {
    let mut link = Link {
        rtt_millis: 1_000_000,
        ..Link::new((100, 0))
    };
    assert_eq!(link.until(Liveness::Suspect, 60_000), None);
    assert!(link.probing.lacks_answers(link.now()));
    link.probing.on_suspicion(link.now());
    assert_eq!(link.until(Liveness::Suspect, 5_000), None);
}

#[test]
fn a_peer_that_never_answered_is_dead_once_its_hellos_stay_away() {
    let max_silence = max_silence(Parameters::default().hello_interval);
    let millis = u64::try_from(max_silence.as_millis()).unwrap();
    for payload in [(100, 0), (0, 0)] {
        let mut link = Link {
            dies: 0,
            ..Link::new(payload)
        };
        let took = link.until(Liveness::Dead, 60_000).unwrap();
        assert!((millis..=millis + 1_500).contains(&took), "{took}");
    }
}

#[test]
fn a_peer_whose_echo_fails_but_whose_frames_come_is_not_dead() {
    let mut link = Link::new((100, 100));
    link.run(20_000);
    assert!(!link.probing.lacks_answers(link.now()));
    link.rtt_millis = 1_000_000;
    assert_eq!(link.until(Liveness::Dead, 30_000), None);
}

#[test]
fn a_long_round_trip_is_no_death() {
    let mut link = Link {
        rtt_millis: 900,
        ..Link::new((100, 100))
    };
    assert_eq!(link.until(Liveness::Suspect, 60_000), None);
    check(&mut link, Liveness::Dead, 2_700..=4_500);
}

#[test]
fn the_pace_is_four_a_second_when_busy_and_three_a_minute_when_idle() {
    let mut link = Link::new((100, 100));
    link.run(20_000);
    let sent = link.sent.len();
    link.run(10_000);
    assert_eq!(link.sent.len() - sent, 40);
    link.payload = (0, 0);
    link.run(30_000);
    let sent = link.sent.len();
    link.run(60_000);
    assert_eq!(link.sent.len() - sent, 3);
    let reading = link.probing.reading(Slot::Dialling(0), link.now());
    assert!((2..=3).contains(&reading.sent) && reading.lost == 0);
    link.run(700_000);
    let recent = link.probing.reading(Slot::Dialling(0), link.now()).recent;
    assert!(
        (25..=31).contains(&recent.sent) && recent.lost == 0,
        "{recent:?}"
    );
    assert!(
        reading
            .rtt
            .is_some_and(|rtt| rtt <= Duration::from_millis(20)),
        "{reading:?}"
    );
}

#[test]
fn a_short_call_of_the_daemon_does_not_make_a_tunnel_busy() {
    for offset in (0..1_000).step_by(100) {
        let mut link = Link::new((0, 0));
        link.run(33_000 + offset);
        let sent = link.sent.len();
        // Twelve frames each way in 0.12 s, as a TLS handshake with one answer.
        link.payload = (100, 100);
        link.run(120);
        link.payload = (0, 0);
        link.run(14_000);
        assert!(link.sent.len() - sent <= 1, "{offset}: {:?}", link.sent);
        assert!(!link.probing.is_busy(link.now()));
    }
}

#[test]
fn a_tunnel_is_busy_two_seconds_after_payload_began() {
    let mut link = Link::new((0, 0));
    link.run(33_000);
    link.payload = (100, 100);
    link.run(2_600);
    assert!(link.probing.is_busy(link.now()));
}

#[test]
fn a_first_probe_that_waited_for_the_neighbours_mac_does_not_spoil_the_round_trip() {
    let mut link = Link {
        rtt_millis: 1_000,
        ..Link::new((100, 100))
    };
    link.run(900);
    link.rtt_millis = 2;
    link.run(3_000);
    let reading = link.probing.reading(Slot::Dialling(0), link.now());
    assert!(
        reading
            .rtt
            .is_some_and(|rtt| rtt <= Duration::from_millis(20)),
        "{reading:?}"
    );
    check(&mut link, Liveness::Dead, 1_000..=1_280);
}

#[test]
fn a_process_that_slept_does_not_take_the_peer_for_dead() {
    let mut link = Link::new((100, 100));
    link.run(20_000);
    // Two seconds without a step; the replies wait unread.
    link.millis += 2_000;
    link.replies.clear();
    assert_eq!(link.until(Liveness::Dead, 10_000), None);
}

#[test]
fn a_limited_number_of_unanswered_probes_is_kept() {
    let mut link = Link::new((100, 100));
    let probe = Duration::from_millis(50);
    let parameters = Parameters {
        probe,
        ..Parameters::default()
    };
    link.probing.set_pace(ProbePace::new(&parameters, 8));
    link.run(20_000);
    link.dies = link.millis;
    let mut kept = 0;
    for _ in 0..3_000 {
        link.step();
        kept = kept.max(link.probing.outstanding.len());
    }
    assert!(
        (MAX_OUTSTANDING..=MAX_OUTSTANDING + 1).contains(&kept),
        "{kept}"
    );
}

#[test]
fn the_totals_of_a_closed_tunnel_include_its_overdue_probes() {
    let mut link = Link::new((100, 100));
    link.run(20_000);
    let sent = u64::try_from(link.sent.len()).unwrap();
    let totals = link.probing.totals();
    assert_eq!((totals.sent, totals.lost), (sent, 0));
    check(&mut link, Liveness::Dead, 1_000..=1_280);
    let (now, sent) = (link.now(), u64::try_from(link.sent.len()).unwrap());
    let totals = link.probing.into_totals(now);
    assert_eq!(totals.sent, sent);
    assert!(totals.lost >= 4, "{} lost", totals.lost);
    let pending = sent - totals.lost - totals.rtt.count();
    assert!(
        pending <= 1,
        "{pending} of {sent} are neither lost nor answered"
    );
}
