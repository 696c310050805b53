//! Hands a dialled tunnel to the program that replaces this one, and takes it over.

use super::*;
use crate::effects::tunnels::handed::{
    DescribeProcess, Handed, describe_tunnel, has_other_args, take_over_tunnel,
};
use crate::store::{DialHistory, TunnelTable};
use os::process::AdoptError;
use wire::handed_state::{HandedDial, from_millis, to_millis};

impl Dial {
    /// Returns whether the tunnel is up, and about neither to close nor to restart.
    pub(in super::super) fn is_settled(&self) -> bool {
        self.is_up() && self.progress == DialProgress::up()
    }

    /// Returns whether all messages of the process so far are complete.
    pub(in super::super) fn is_between_messages(&self) -> bool {
        self.decoder.is_between_events()
    }

    /// Returns the process.
    pub(in super::super) fn process_mut(&mut self) -> &mut Supervised {
        &mut self.process
    }

    /// Goes on with a dialled tunnel. Returns also whether it runs with other arguments than this program would use.
    ///
    /// # Errors
    /// The process cannot be adopted.
    pub(in super::super) fn take_over(
        common: &Common,
        (handed, child): Handed<HandedDial>,
    ) -> Result<(Self, bool), AdoptError> {
        let HandedDial {
            tunnel, process, ..
        } = &handed;
        let (slot, peer) = (tunnel.slot, tunnel.peer);
        let lost = AdoptError::OtherProcess { pid: process.pid };
        let endpoint = tunnel.endpoint.ok_or(lost)?.0;
        let attempt = Attempt {
            endpoint,
            uses_other_key: handed.uses_other_key,
            local_port: handed.local_port,
        };
        let (program, limits, seed) = Self::program(common, slot, peer, attempt);
        let child = (child, from_millis(process.up_since_ms));
        let limits = (limits, seed);
        let running = Supervised::adopt(program, limits, child, common.now(), &common.events)?;
        let has_other_args = has_other_args(&running, &process.args);
        let dial = Self {
            slot,
            peer,
            attempts: Attempts::succeeded(attempt),
            started_at: from_millis(handed.started_at_ms),
            process: running.without_log_of_failed_starts(),
            decoder: Decoder::default(),
            progress: DialProgress::up(),
            restart_at: None,
            is_abandoned: false,
        };
        let history = DialHistory {
            good: Some(endpoint),
            ..DialHistory::default()
        };
        common.table.borrow_mut().dials.insert(peer, history);
        take_over_tunnel(common, tunnel);
        Ok((dial, has_other_args))
    }

    /// Describes the tunnel and its process; returns `None` if the process has exited.
    pub(in super::super) fn hand_over(
        &self,
        table: &TunnelTable,
        describe: &mut DescribeProcess<'_>,
    ) -> Option<HandedDial> {
        Some(HandedDial {
            tunnel: describe_tunnel(table, self.slot)?,
            uses_other_key: self.attempts.current().uses_other_key,
            local_port: self.attempts.current().local_port,
            started_at_ms: to_millis(self.started_at),
            process: describe(&self.process)?,
        })
    }
}
