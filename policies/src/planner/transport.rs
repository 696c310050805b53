//! Leaves TCP for UDP, which carries payload without repeating what its senders repeat as well.

use super::{Plan, Planner, snapshot::Snapshot};
use crate::{
    names::{Endpoint, Transport},
    observation::LinkReading,
    orders::CloseReason,
};

/// The most closings that begin on a slot within 12 refreshes. Most of them are given up while neighbours leave TCP, too.
const MAX_CLOSINGS: usize = 6;

impl Planner {
    /// Closes a tunnel that was dialled by TCP, if its peer has answered by UDP since it came up. The next dial begins with UDP.
    pub(super) fn leave_tcp(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) {
        if !self.can_begin_closing(snapshot) {
            return;
        }
        let could_be_udp = |link: &&LinkReading| {
            let answered = snapshot.udp_answers.get(&link.tunnel.peer);
            let is_tcp = |endpoint: Endpoint| endpoint.transport == Transport::Tcp;
            link.tunnel.endpoint.is_some_and(is_tcp)
                && link
                    .tunnel
                    .up_since
                    .is_some_and(|up| answered.is_some_and(|at| *at > up))
                && self.can_leave(snapshot, link, MAX_CLOSINGS)
        };
        let Some(link) = snapshot.dialled().find(could_be_udp) else {
            return;
        };
        let endpoint = link
            .tunnel
            .endpoint
            .map(|endpoint| format!("endpoint={endpoint}"));
        let tunnel = (link.tunnel.slot, link.tunnel.peer);
        let terms = endpoint.unwrap_or_default();
        self.begin_closing(snapshot, tunnel, CloseReason::UdpAnswers, terms, plan);
    }
}
