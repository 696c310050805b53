//! When a node asks its neighbours whether they still reach it, because nothing arrives by any tunnel.
//!
//! Hellos come seconds apart, so a node that waits for them alone would notice late that it is disconnected from everybody. A question
//! that nobody answers closes no tunnel: the node only reports that it is disconnected.

use crate::units::Uptime;
use std::time::Duration;

/// Questions are sent once nothing has been received by any tunnel for this long.
const QUESTION_AFTER: Duration = Duration::from_millis(1_400);
/// A node that has asked and has received nothing by any tunnel for this long is disconnected. With the reading of counters each
/// half second and the snapshot each second, that is reported within five seconds.
pub const DISCONNECTED_AFTER: Duration = Duration::from_millis(3_200);

/// The frames that a node has received by all its tunnels, reading by reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    received_frames: u64,
    /// The first reading in which nothing had been received since the one before, or the last one with a frame.
    last_frame_at: Option<Uptime>,
}

impl Silence {
    /// Takes the sum of the frames that all tunnels have received; returns whether to ask the neighbours now.
    pub fn should_ask(&mut self, received_frames: u64, now: Uptime) -> bool {
        let last = *self.last_frame_at.get_or_insert(now);
        if received_frames != self.received_frames {
            self.received_frames = received_frames;
            self.last_frame_at = Some(now);
            return false;
        }
        let silence = now.since(last);
        silence >= QUESTION_AFTER && silence < DISCONNECTED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_asked_four_times_and_not_again_until_a_frame_arrives() {
        let at = |ms: u64| Uptime(Duration::from_millis(ms));
        let mut silence = Silence::default();
        let asked: Vec<u64> = (0..20)
            .map(|reading| reading * 500)
            .filter(|ms| silence.should_ask(7, at(*ms)))
            .collect();
        assert_eq!(asked, [1_500, 2_000, 2_500, 3_000]);
        assert!(!silence.should_ask(8, at(10_000)));
        assert!(silence.should_ask(8, at(11_500)));
    }
}
