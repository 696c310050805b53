//! The call by which a node asks another one whether its endpoints answer.

use crate::text;
use policies::{endpoint_checks::CheckOutcome, names::Endpoint};
use serde::{Deserialize, Serialize};

/// The path of the call: `POST` of an [`EndpointChecksRequest`], answered by an [`EndpointChecksDocument`]; 429 if the caller asks
/// too often.
pub const ENDPOINT_CHECKS_PATH: &str = "/v1/endpoint-checks";

/// Maximum number of endpoints in one request.
pub const MAX_CHECKED_ENDPOINTS: usize = 8;

/// The endpoints to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointChecksRequest {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// At most [`MAX_CHECKED_ENDPOINTS`] are tried.
    #[serde(with = "text::few")]
    pub endpoints: Vec<Endpoint>,
}

/// The outcomes of the checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointChecksDocument {
    /// The version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// One outcome for each endpoint that was tried, in the order of the request.
    #[serde(deserialize_with = "text::at_most::<MAX_CHECKED_ENDPOINTS, _, _>")]
    pub outcomes: Vec<Outcome>,
}

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A server of the network answered.
    Answered,
    /// Nothing answered, or something else did.
    Silent,
    /// There is no route to the address, or it is not public.
    NotTried,
}

impl From<CheckOutcome> for Outcome {
    fn from(outcome: CheckOutcome) -> Self {
        match outcome {
            CheckOutcome::Answered => Self::Answered,
            CheckOutcome::Silent => Self::Silent,
            CheckOutcome::NotTried => Self::NotTried,
        }
    }
}

impl From<Outcome> for CheckOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered => Self::Answered,
            Outcome::Silent => Self::Silent,
            Outcome::NotTried => Self::NotTried,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(count: usize, is_good: bool) {
        let outcomes = vec!["\"answered\""; count].join(",");
        let text = format!(r#"{{"version":1,"outcomes":[{outcomes}],"from_the_future":true}}"#);
        let read = serde_json::from_str::<EndpointChecksDocument>(&text);
        assert_eq!(read.is_ok(), is_good, "{count}");
        if let Ok(document) = read {
            let text = serde_json::to_string(&document).unwrap();
            assert_eq!(
                serde_json::from_str::<EndpointChecksDocument>(&text).unwrap(),
                document
            );
        }
    }

    #[test]
    fn the_number_of_outcomes_is_bounded() {
        check(0, true);
        check(MAX_CHECKED_ENDPOINTS, true);
        check(MAX_CHECKED_ENDPOINTS + 1, false);
    }
}
