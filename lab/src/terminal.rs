//! Runs a command of a node in a real terminal of 80 columns and 24 lines, and draws what it shows.
//!
//! tmux is the terminal; `lab/boards/draw-screen` makes a picture of its text.

use crate::{Node, boards, process, wait::wait_until};
use anyhow::{Context, Result};
use std::{fs, path::Path, time::Duration};

/// Longest time until the command shows what is waited for.
const SHOW_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time that drawing a picture may take.
const DRAW_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the screen of `warren ARGUMENTS` once `is_complete` says so; the command may go on after that.
///
/// # Errors
/// Fails if tmux is missing, or if the screen never is complete.
pub fn screen(node: &Node, arguments: &str, is_complete: impl Fn(&str) -> bool) -> Result<String> {
    let server = format!("{}-screen", node.namespace());
    let tmux = |arguments: &[&str]| {
        let arguments = [&["-L", &server, "-f", "/dev/null", "-u"], arguments].concat();
        node.command("tmux", &arguments)
    };
    let (program, root) = (process::warren_program(), node.root());
    // The shell keeps the terminal open after a command that ends.
    let command = format!(
        "'{}' {arguments} --root '{}'; exec sleep 60",
        program.display(),
        root.display()
    );
    tmux(&["new-session", "-d", "-x", "80", "-y", "24", &command])?;
    let shown = wait_until(SHOW_TIMEOUT, || {
        let shown = tmux(&["capture-pane", "-p"]).ok()?;
        is_complete(&shown).then_some(shown)
    });
    tmux(&["kill-server"])?;
    shown
        .with_context(|| node.describe(&format!("warren {arguments} does not show what it should")))
}

/// Draws a screen to the file `picture`.
///
/// # Errors
/// Fails if the browser cannot draw it.
pub fn draw(node: &Node, screen: &str, picture: &Path) -> Result<()> {
    let text = picture.with_extension("txt");
    fs::write(&text, screen)?;
    let arguments = [text.as_os_str(), picture.as_os_str()];
    let program = boards::folder().join("draw-screen");
    process::run(node.namespace(), &program, arguments, DRAW_TIMEOUT)?;
    fs::remove_file(&text)?;
    Ok(())
}
