//! Hands a server and its clients to the program that replaces this one, and takes them over.

use super::*;
use crate::effects::tunnels::handed::{
    DescribeProcess, Handed, describe_tunnel, has_other_args, take_over_tunnel,
};
use crate::store::TunnelTable;
use os::process::AdoptError;
use wire::handed_state::{HandedClient, HandedServer, from_millis, to_millis};

impl Server {
    /// Returns whether the process is ready, and not about to restart.
    pub(in super::super) fn is_settled(&self) -> bool {
        let is_up = matches!(self.process.state(), State::Up { .. });
        is_up && !self.is_restarting && self.stop_at.is_none()
    }

    /// Returns whether all messages of the process so far are complete.
    pub(in super::super) fn is_between_messages(&self) -> bool {
        self.decoder.is_between_events()
    }

    /// Returns the process.
    pub(in super::super) fn process_mut(&mut self) -> &mut Supervised {
        &mut self.process
    }

    /// Goes on with a server and its clients. Returns also whether it runs with other arguments than this program would use.
    ///
    /// # Errors
    /// The process cannot be adopted.
    pub(in super::super) fn take_over(
        common: &Common,
        port: u16,
        (handed, child): Handed<HandedServer>,
    ) -> Result<(Self, bool), AdoptError> {
        let HandedServer {
            transport, process, ..
        } = &handed;
        let (program, limits) = Self::program(common, *transport, port);
        let child = (child, from_millis(process.up_since_ms));
        let limits = (limits, common.seed);
        let running = Supervised::adopt(program, limits, child, common.now(), &common.events)?;
        let has_other_args = has_other_args(&running, &process.args);
        let mut server = Self::with_process(common, *transport, running);
        server.started_at = from_millis(handed.started_at_ms);
        for client in handed.clients {
            let accepted = Accepted {
                peer: client.tunnel.peer,
                client: ClientId(client.client),
                from: client.from,
                serials: client.serials,
            };
            server.accepted.insert(client.tunnel.slot, accepted);
            take_over_tunnel(common, &client.tunnel);
        }
        Ok((server, has_other_args))
    }

    /// Describes the server and its clients; returns `None` if the process has exited.
    pub(in super::super) fn hand_over(
        &self,
        table: &TunnelTable,
        describe: &mut DescribeProcess<'_>,
    ) -> Option<HandedServer> {
        let clients = self.accepted.iter().filter_map(|(slot, accepted)| {
            Some(HandedClient {
                tunnel: describe_tunnel(table, *slot)?,
                client: accepted.client.0,
                from: accepted.from,
                serials: accepted.serials.clone(),
            })
        });
        Some(HandedServer {
            transport: self.transport,
            started_at_ms: to_millis(self.started_at),
            clients: clients.collect(),
            process: describe(&self.process)?,
        })
    }
}
