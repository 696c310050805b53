//! Full-size probing over simulated paths.

use super::*;

const RTT: Option<Duration> = Some(Duration::from_millis(20));
const TICK: Duration = Duration::from_millis(50);

/// A path that answers small probes at once, and full-size ones as each test wants.
struct Path {
    mtu: PathMtu,
    now: Uptime,
    /// Bytes of large packets in each tick.
    large_rate: u64,
    large_bytes: u64,
    lacks_answers: bool,
    reductions: u32,
    probes: u32,
}

impl Path {
    fn new(transport: Transport) -> Self {
        let now = Uptime(Duration::from_secs(100));
        Self {
            mtu: PathMtu::new(transport, now),
            now,
            large_rate: 0,
            large_bytes: 0,
            lacks_answers: false,
            reductions: 0,
            probes: 0,
        }
    }

    /// Lets time pass; `passes` says whether full-size packets pass, given whether the MTU is reduced.
    fn run(&mut self, time: Duration, answers_small: bool, passes: impl Fn(bool) -> bool) {
        let end = self.now + time;
        while self.now < end {
            while let Some(action) =
                self.mtu
                    .next_action(RTT, self.large_bytes, self.lacks_answers, self.now)
            {
                match action {
                    PathAction::ReduceMtu => self.reductions += 1,
                    PathAction::Probe(sequence) => {
                        self.probes += 1;
                        if answers_small {
                            self.mtu.on_small_reply(sequence);
                        }
                        if passes(self.reductions > 0) {
                            self.mtu.on_full_size_reply(sequence, self.now);
                        }
                    }
                }
            }
            self.now = self.now + TICK;
            self.large_bytes += self.large_rate;
        }
    }
}

#[test]
fn a_path_that_carries_full_size_packets_is_probed_once_in_five_minutes() {
    let mut path = Path::new(Transport::Udp);
    path.run(Duration::from_secs(299), true, |_| true);
    assert_eq!((path.probes, path.reductions), (1, 0));
    assert_eq!(path.mtu.full_size(), FullSize::Carried);
    path.run(Duration::from_secs(10), true, |_| true);
    assert_eq!(path.probes, 2);
}

#[test]
fn the_mtu_of_a_narrow_path_is_reduced_after_three_misses_and_stays_so() {
    let mut path = Path::new(Transport::Udp);
    path.run(Duration::from_millis(850), true, |is_reduced| is_reduced);
    assert_eq!(path.reductions, 0);
    path.run(Duration::from_millis(500), true, |is_reduced| is_reduced);
    assert_eq!(path.reductions, 1);
    assert_eq!(path.mtu.full_size(), FullSize::Fragmented);
    path.run(Duration::from_secs(60), true, |is_reduced| is_reduced);
    assert!((59..=61).contains(&path.reductions), "{}", path.reductions);
}

#[test]
fn a_path_that_drops_fragments_too_is_reported_and_tried_again() {
    let mut path = Path::new(Transport::Udp);
    path.run(Duration::from_secs(10), true, |_| false);
    assert_eq!(path.mtu.full_size(), FullSize::Lost);
    path.run(Duration::from_secs(11), true, |_| true);
    assert_eq!(path.mtu.full_size(), FullSize::Fragmented);
}

#[test]
fn a_silent_peer_shows_nothing_about_the_path() {
    let mut path = Path::new(Transport::Udp);
    path.run(Duration::from_secs(60), false, |_| false);
    assert_eq!(path.reductions, 0);
    assert_eq!(path.mtu.full_size(), FullSize::Unknown);
}

#[test]
fn a_path_that_becomes_narrow_later_is_noticed_at_the_next_check() {
    let mut path = Path::new(Transport::Udp);
    path.run(Duration::from_secs(1), true, |_| true);
    path.run(Duration::from_secs(302), true, |is_reduced| is_reduced);
    assert_eq!(path.mtu.full_size(), FullSize::Fragmented);
}

#[test]
fn a_path_with_large_packets_that_becomes_narrow_is_noticed_within_a_quarter_of_a_minute() {
    let mut path = Path::new(Transport::Udp);
    path.large_rate = 1_000;
    path.run(Duration::from_secs(25), true, |_| true);
    assert_eq!((path.probes, path.reductions), (3, 0));
    path.run(Duration::from_secs(12), true, |is_reduced| is_reduced);
    assert_eq!(path.mtu.full_size(), FullSize::Fragmented);
    // The MTU stays reduced, so the path is not checked more often than without payload.
    let probes = path.probes;
    path.run(Duration::from_secs(60), true, |is_reduced| is_reduced);
    assert_eq!(path.probes, probes);
}

#[test]
fn one_large_packet_a_second_is_enough_to_notice_that_a_path_became_narrow() {
    let mut path = Path::new(Transport::Udp);
    // In 20 ticks of a second.
    path.large_rate = 1_264 / 20;
    path.run(Duration::from_secs(20), true, |_| true);
    path.run(Duration::from_secs(13), true, |is_reduced| is_reduced);
    assert_eq!(path.mtu.full_size(), FullSize::Fragmented);
}

#[test]
fn the_probes_of_two_nodes_do_not_make_each_other_probe() {
    let mut path = Path::new(Transport::Udp);
    path.run(Duration::from_secs(1), true, |_| true);
    // A probe of each, and both answers.
    path.large_bytes += 4 * 1_264;
    path.run(Duration::from_secs(290), true, |_| true);
    assert_eq!(path.probes, 1);
}

#[test]
fn five_full_size_packets_that_a_busy_path_loses_do_not_reduce_its_mtu() {
    let mut path = Path::new(Transport::Udp);
    path.run(Duration::from_secs(1), true, |_| true);
    path.large_rate = 1_000;
    path.run(Duration::from_secs(9), true, |_| true);
    // The sixth probe is sent after 1.5 s.
    path.run(Duration::from_millis(1_450), true, |_| false);
    path.run(Duration::from_secs(5), true, |_| true);
    assert_eq!(path.reductions, 0);
    assert_eq!(path.mtu.full_size(), FullSize::Carried);
}

#[test]
fn a_stalled_tcp_tunnel_gets_a_reduced_mtu_after_half_a_second_and_time_to_recover() {
    let mut path = Path::new(Transport::Tcp);
    path.run(Duration::from_millis(450), false, |_| false);
    assert_eq!(path.reductions, 0);
    assert!(path.mtu.may_stall(path.now));
    path.run(Duration::from_millis(100), false, |_| false);
    assert_eq!(path.reductions, 1);
    assert!(path.mtu.may_stall(path.now));
    path.mtu.on_full_size_reply(0, path.now);
    assert_eq!(path.mtu.full_size(), FullSize::Fragmented);
    assert!(!path.mtu.may_stall(path.now));
}

#[test]
fn a_tcp_tunnel_that_stalls_before_its_first_answer_gets_a_reduced_mtu_too() {
    let mut mtu = PathMtu::new(Transport::Tcp, Uptime::from_secs(100));
    let probe = mtu.next_action(None, 0, false, Uptime::from_secs(100));
    assert_eq!(probe, Some(PathAction::Probe(0)));
    let action = mtu.next_action(None, 0, false, Uptime::from_secs(101));
    assert_eq!(action, Some(PathAction::ReduceMtu));
}

#[test]
fn a_tcp_tunnel_that_large_packets_stall_gets_a_reduced_mtu_at_once_and_is_probed() {
    let mut path = Path::new(Transport::Tcp);
    path.run(Duration::from_secs(1), true, |_| true);
    path.large_bytes += 100_000;
    path.lacks_answers = true;
    path.run(TICK, false, |_| false);
    assert_eq!((path.probes, path.reductions), (2, 1));
    assert!(path.mtu.may_stall(path.now));
    path.mtu.on_full_size_reply(1, path.now);
    assert_eq!(path.mtu.full_size(), FullSize::Fragmented);
}

#[test]
fn a_dead_peer_of_a_tcp_tunnel_with_large_packets_is_judged_after_a_second_and_a_half() {
    let mut path = Path::new(Transport::Tcp);
    path.run(Duration::from_secs(1), true, |_| true);
    path.large_bytes += 100_000;
    path.lacks_answers = true;
    path.run(Duration::from_millis(1_550), false, |_| false);
    assert!(!path.mtu.may_stall(path.now));
}

#[test]
fn a_silent_tcp_tunnel_without_large_packets_is_not_probed_for_them() {
    let mut path = Path::new(Transport::Tcp);
    path.run(Duration::from_secs(1), true, |_| true);
    path.lacks_answers = true;
    path.run(Duration::from_secs(10), false, |_| false);
    assert_eq!((path.probes, path.reductions), (1, 0));
}
