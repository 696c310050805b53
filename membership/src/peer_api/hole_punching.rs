//! The calls by which two nodes behind NATs open a path to each other.

use super::{PeerApiClient, PeerApiError, read_answer};
use policies::names::Prefix;
use std::time::Duration;
use wire::peer::{
    ANSWER_LIMIT, HOLE_PUNCHES_PATH, HolePunchDocument, HolePunchRequest, OBSERVATIONS_PATH,
    ObservationDocument, ObservationRequest, Observer, ObserversDocument, Seen, Token, VERSION,
};

/// Maximum duration of a call to an observer, which waits for datagrams.
const OBSERVATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum duration of a call to a node that itself calls an observer.
const PUNCH_TIMEOUT: Duration = Duration::from_secs(5);

impl PeerApiClient {
    /// Fetches the observers of a node.
    ///
    /// # Errors
    /// The call failed, such as because the node's software has no such call, or the answer is not the expected document.
    pub async fn fetch_observers(&self, peer: Prefix) -> Result<Vec<Observer>, PeerApiError> {
        let document: ObserversDocument = self.get(peer, HOLE_PUNCHES_PATH, ANSWER_LIMIT).await?;
        Ok(document.observers)
    }

    /// Lets a node open a path to this one, whose datagrams with `token` its observer sees meanwhile.
    ///
    /// # Errors
    /// The call failed, such as because the node takes no part, or the answer is not the expected document.
    pub async fn punch_hole(
        &self,
        peer: Prefix,
        observer: Prefix,
        token: Token,
    ) -> Result<HolePunchDocument, PeerApiError> {
        let request = HolePunchRequest {
            version: VERSION,
            observer,
            token,
        };
        let url = self.url(peer, HOLE_PUNCHES_PATH);
        let call = self.http.load().post(url).timeout(PUNCH_TIMEOUT);
        let answer = self.send(peer, call.json(&request)).await;
        read_answer(peer, answer, ANSWER_LIMIT).await
    }

    /// Lets a node report from where datagrams with these tokens come.
    ///
    /// # Errors
    /// The call failed, such as because the node was asked a moment ago, or the answer is not the expected document.
    pub async fn observe(
        &self,
        observer: Prefix,
        tokens: &[Token],
    ) -> Result<Vec<Seen>, PeerApiError> {
        let request = ObservationRequest {
            version: VERSION,
            tokens: tokens.to_vec(),
        };
        let url = self.url(observer, OBSERVATIONS_PATH);
        let call = self.http.load().post(url).timeout(OBSERVATION_TIMEOUT);
        let answer = self.send(observer, call.json(&request)).await;
        let document: ObservationDocument = read_answer(observer, answer, ANSWER_LIMIT).await?;
        Ok(document.seen)
    }
}
