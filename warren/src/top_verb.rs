//! `warren top`: shows the tunnels live, with their rates and the latest decisions.
//!
//! It asks the daemon once a second for the documents that `status`, `tunnels` and `why` show.

mod screen;
mod state;

use crate::{
    control_client::{self, ControlError},
    output::fail,
};
use config::paths::Paths;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use serde::de::DeserializeOwned;
use state::{Reading, SortKey, State};
use std::{
    io::{self, IsTerminal},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use wire::control::{DECISIONS_PATH, STATUS_PATH, TUNNELS_PATH};

/// Interval between two readings.
const INTERVAL: Duration = Duration::from_secs(1);

/// The output is no terminal.
#[derive(Debug, thiserror::Error)]
#[error("warren top needs a terminal; warren tunnels prints the same once")]
struct NoTerminal;

/// The arguments of `warren top`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TopArgs {
    /// How to sort the tunnels
    #[arg(long, value_enum, default_value_t = SortKey::Tunnel)]
    sort: SortKey,
    #[command(flatten)]
    show: RootArgs,
}

/// Which daemon to ask.
#[derive(clap::Args, Clone, Debug)]
struct RootArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: std::path::PathBuf,
}

/// Shows the tunnels until a key ends it. Fails at once if the daemon does not answer.
pub(crate) fn top(args: &TopArgs) -> ExitCode {
    if !io::stdout().is_terminal() {
        return fail(&NoTerminal, 1);
    }
    let socket = Paths::new(&args.show.root).control();
    let first = match read(&socket) {
        Ok(reading) => reading,
        Err(error) => return fail(&error, error.exit_code()),
    };
    let state = State::new(first, args.sort);
    let mut terminal = ratatui::init();
    let ended = run(&mut terminal, &socket, state);
    ratatui::restore();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn run(terminal: &mut DefaultTerminal, socket: &Path, mut state: State) -> io::Result<()> {
    loop {
        terminal.draw(|frame| screen::draw(frame, &state))?;
        if event::poll(INTERVAL)? {
            match event::read()? {
                Event::Key(key) if is_end(key) => return Ok(()),
                Event::Key(key) if key.kind == KeyEventKind::Press => state.press(key.code),
                Event::Key(_)
                | Event::FocusGained
                | Event::FocusLost
                | Event::Mouse(_)
                | Event::Paste(_)
                | Event::Resize(..) => {}
            }
        }
        match read(socket) {
            Ok(reading) => state.add(reading),
            Err(error) => state.fail(error.to_string()),
        }
    }
}

fn is_end(key: KeyEvent) -> bool {
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

fn read(socket: &Path) -> Result<Reading, ControlError> {
    Ok(Reading {
        status: document(socket, STATUS_PATH)?,
        tunnels: document(socket, TUNNELS_PATH)?,
        decisions: document(socket, DECISIONS_PATH)?,
    })
}

fn document<D: DeserializeOwned>(socket: &Path, path: &str) -> Result<D, ControlError> {
    let body = control_client::get(socket, path)?;
    serde_json::from_str(&body).map_err(ControlError::InvalidDocument)
}
