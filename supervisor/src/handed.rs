//! Reads the state that an earlier program of this process has handed over.
//!
//! State that is not understood is refused as a whole: the node then starts as usual, which replaces the children that still run.

use actors::{
    effects::tunnels::{Connections, handed::HandedTunnels},
    sources::babeld::{BabeldProcess, HandedBabeld},
};
use os::clock::Clock;
use os::process::{
    ChildInput, HandedChild,
    reexec::{close_inherited, inherited_descriptor, inherited_state, is_pipe, is_socket},
};
use policies::units::Uptime;
use std::{fs::File, io, os::fd::OwnedFd};
use wire::{
    errors::Chain,
    handed_state::{HandedProcess, HandedState, MAX_BYTES, StateError, from_millis},
};

/// What this program goes on with.
#[derive(Debug)]
pub(crate) struct Handed {
    /// The locked pid file.
    pub(crate) lock: File,
    pub(crate) babeld: HandedBabeld,
    pub(crate) tunnels: HandedTunnels,
    /// The version of the earlier software.
    pub(crate) software: String,
    /// When the earlier program handed over.
    pub(crate) written_at: Uptime,
}

/// The reason why handed-over state is refused.
#[derive(Debug, thiserror::Error)]
enum RefusedState {
    /// The state cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// The state is of another version, or wrong.
    #[error(transparent)]
    State(#[from] StateError),
    /// A descriptor was not handed over, or is of another kind.
    #[error("descriptor {number} cannot be used")]
    Descriptor {
        /// The number of the descriptor.
        number: i32,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Takes what an earlier program of this process has handed over. Returns `None` if this process was started as usual, or if the
/// state is refused, which is logged. To be called before the runtime is started.
pub(crate) fn take() -> Option<Handed> {
    let taken = inherited_state(MAX_BYTES)?
        .map_err(RefusedState::Unreadable)
        .and_then(|text| take_all(&text));
    close_inherited();
    match taken {
        Ok(handed) => Some(handed),
        Err(error) => {
            tracing::error!(
                error = %Chain(&error),
                "the state of the program that ran before is refused; the node starts as usual, which replaces its tunnels"
            );
            None
        }
    }
}

/// Returns the processes that this program goes on with; none if nothing was handed over.
pub(crate) fn processes(handed: Option<Handed>, clock: &Clock) -> (Connections, BabeldProcess) {
    let Some(handed) = handed else {
        return <(Connections, BabeldProcess)>::default();
    };
    let tunnels = handed.tunnels.count();
    let since = clock.now().since(handed.written_at).as_millis();
    tracing::info!(
        software = handed.software,
        tunnels,
        "restarted in place: took over babeld, the OpenVPN processes and their tunnels {since} ms after the earlier program"
    );
    let connections = Connections::taking_over(handed.tunnels);
    (connections, BabeldProcess::taking_over(handed.babeld))
}

fn take_all(text: &[u8]) -> Result<Handed, RefusedState> {
    let state = HandedState::read(text)?;
    let babeld = take_process(&state.babeld)?;
    let mut tunnels = HandedTunnels {
        cooling_down: state.cooling_down,
        are_servers_outdated: state.are_servers_outdated,
        are_dials_outdated: state.are_dials_outdated,
        restart_by: state.restart_by_ms.map(from_millis),
        was_reached: state.was_reached,
        ..HandedTunnels::default()
    };
    for server in state.servers {
        let child = take_process(&server.process)?;
        tunnels.servers.push((server, child));
    }
    for dial in state.dials {
        let child = take_process(&dial.process)?;
        tunnels.dials.push((dial, child));
    }
    Ok(Handed {
        lock: take_descriptor(state.lock, |_| Ok(true))?.into(),
        babeld: (state.babeld, babeld),
        tunnels,
        software: state.software,
        written_at: from_millis(state.written_at_ms),
    })
}

fn take_process(process: &HandedProcess) -> Result<HandedChild, RefusedState> {
    let log = process.log.map(|number| take_descriptor(number, is_pipe));
    let management = process.management;
    let management = management.map(|number| take_descriptor(number, is_socket));
    let input = ChildInput {
        log: log.transpose()?,
        partial_line: process.partial_line.clone().into_bytes(),
        management: management.transpose()?,
        commands: process.commands.clone(),
    };
    Ok(HandedChild {
        pid: process.pid,
        start_time: process.start_time,
        input,
    })
}

fn take_descriptor(
    number: i32,
    is_right: impl Fn(&OwnedFd) -> io::Result<bool>,
) -> Result<OwnedFd, RefusedState> {
    let failed = |source| RefusedState::Descriptor { number, source };
    let descriptor = inherited_descriptor(number).map_err(failed)?;
    match is_right(&descriptor).map_err(failed)? {
        true => Ok(descriptor),
        false => Err(failed(io::Error::other("it is of another kind"))),
    }
}
