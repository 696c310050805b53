//! The call by which a node asks another one over which tunnel its packets to a third node leave.

use crate::text;
use policies::names::{Prefix, Slot};
use serde::{Deserialize, Serialize};

/// The path of the call: `GET` with a [`NextHopQuery`], answered by a [`NextHopDocument`]; 404 if there is no route.
pub const NEXT_HOP_PATH: &str = "/v1/next-hop";

/// What is asked for, as the query of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopQuery {
    /// The node that packets go to.
    #[serde(with = "text::one")]
    pub to: Prefix,
}

/// The tunnel by which packets leave a node, as that node measures it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextHopDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The node that answers.
    #[serde(with = "text::one")]
    pub prefix: Prefix,
    /// The node that packets go to.
    #[serde(with = "text::one")]
    pub to: Prefix,
    /// The slot of the tunnel at the node that answers.
    #[serde(with = "text::one")]
    pub tunnel: Slot,
    /// The node at the other end of the tunnel.
    #[serde(with = "text::one")]
    pub neighbour: Prefix,
    /// Smoothed round trip of the probes of that tunnel; `None` until one is answered.
    pub rtt_seconds: Option<f64>,
    /// Share of its probes of the last minute without an answer, 0 to 1; `None` if none was sent.
    pub loss_ratio: Option<f64>,
}

impl NextHopDocument {
    /// Returns whether the figures can be what they say they are.
    pub fn is_plausible(&self) -> bool {
        let is_number = |figure: Option<f64>, max: f64| {
            figure.is_none_or(|number| (0.0..=max).contains(&number))
        };
        is_number(self.rtt_seconds, MAX_RTT_SECONDS) && is_number(self.loss_ratio, 1.0)
    }
}

/// The longest round trip that is believed, in seconds.
const MAX_RTT_SECONDS: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"version":1,"prefix":"8/16","to":"9/16","tunnel":"wrnu.2","neighbour":"9/16","rtt_seconds":0.5,"loss_ratio":0.25}"#;

    #[test]
    fn a_document_is_read_as_it_is_written_and_impossible_figures_are_noticed() {
        let document: NextHopDocument = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), DOCUMENT);
        assert!(document.is_plausible());
        for (rtt_seconds, loss_ratio) in [(Some(-0.1), None), (Some(61.0), None), (None, Some(1.5))]
        {
            let false_one = NextHopDocument {
                rtt_seconds,
                loss_ratio,
                ..document.clone()
            };
            assert!(!false_one.is_plausible(), "{false_one:?}");
        }
    }

    #[test]
    fn a_slot_that_is_none_is_an_error() {
        for slot in ["eth0", "wrn0\\n", ""] {
            let text = DOCUMENT.replace("wrnu.2", slot);
            assert!(
                serde_json::from_str::<NextHopDocument>(&text).is_err(),
                "{slot}"
            );
        }
    }
}
