//! Damaged state files of a node: it starts all the same, and takes little memory.

use super::{Figure, Outcome};
use crate::{Lab, Node, Options, proc_files, progress::progress, wait::wait_until};
use anyhow::{Context, Result};
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

/// The state files that a node creates or fetches again.
pub const REPLACEABLE: &[&str] = &[
    "peers.sqlite",
    "revocations.json",
    "babel-seqno",
    "sysctls.json",
    "leases.json",
    "network.json",
    "tls-crypt.key",
];
/// Most memory that the daemon may have taken at any time, in KiB.
pub const MAX_RESIDENT_KIB: u64 = 64 << 10;
/// Longest wait until the daemon has started its babeld.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Size of a sparse file, in bytes.
const SPARSE_BYTES: u64 = 2 << 30;

/// How a file is damaged.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// The file is empty, as after a power failure.
    Empty,
    /// It contains bytes that mean nothing.
    Garbage,
    /// Its second half is missing.
    Half,
    /// It is 2 GiB long and has no content.
    Sparse,
    /// A folder that is not empty stands in its place.
    Folder,
    /// A symbolic link to a secret stands in its place.
    Link,
    /// A named pipe stands in its place, which nobody writes.
    Pipe,
}

/// All kinds of damage.
pub const DAMAGES: &[Damage] = &[
    Damage::Empty,
    Damage::Garbage,
    Damage::Half,
    Damage::Sparse,
    Damage::Folder,
    Damage::Link,
    Damage::Pipe,
];

impl Damage {
    /// Damages the file at `path`; a link leads to `secret`.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn apply(self, path: &Path, secret: &Path) -> Result<()> {
        let content = fs::read(path).unwrap_or_default();
        let is_removed = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
        drop(is_removed);
        match self {
            Self::Empty => fs::write(path, "")?,
            Self::Garbage => fs::write(path, b"\xff\0{[".repeat(1_000))?,
            Self::Half => fs::write(path, content.get(..content.len() / 2).unwrap_or_default())?,
            Self::Sparse => fs::File::create(path)?.set_len(SPARSE_BYTES)?,
            Self::Folder => fs::create_dir_all(path.join("full"))?,
            Self::Link => symlink(secret, path)?,
            Self::Pipe => mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?,
        }
        Ok(())
    }
}

/// Starts the node, and waits until its babeld answers.
///
/// # Errors
/// Fails if that takes longer than 20 s.
pub fn start(node: &Node) -> Result<()> {
    node.start()?;
    let sample = "warren_process_up{process=\"babeld\"}";
    let is_up = || (node.metric(sample).ok()? == 1).then_some(());
    wait_until(START_TIMEOUT, is_up).with_context(|| node.describe("did not start babeld"))
}

/// Replaces whatever stands at the path by a file with this content.
fn put_back(path: &Path, content: &[u8]) -> Result<()> {
    drop(fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)));
    Ok(fs::write(path, content)?)
}

/// Damages each file alone in each way, and starts the node each time.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let fault = "a state file is empty, cut, garbage, 2 GiB long, a folder, a pipe or a link to another file";
    progress(fault);
    let lab = Lab::build_joined(Options {
        nodes: 1,
        // The router maps ports, so that the leases are stored.
        nodes_behind_nat: [0].into(),
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    let state = node.root().join("var/lib/warren");
    let secret = lab.folder().join("secret");
    let text = "root's alone";
    fs::write(&secret, text)?;
    start(node)?;
    let has_all = || {
        let mut files = REPLACEABLE.iter();
        files.all(|file| state.join(file).exists()).then_some(())
    };
    wait_until(START_TIMEOUT, has_all).with_context(|| node.describe("did not write all files"))?;
    node.kill();
    let contents = REPLACEABLE.iter().map(|file| fs::read(state.join(file)));
    let contents = contents.collect::<Result<Vec<_>, _>>()?;
    let (mut failed_starts, mut peak_kib, mut followed_links) = (0, 0, 0);
    for damage in DAMAGES {
        for (file, content) in REPLACEABLE.iter().zip(&contents) {
            node.kill();
            put_back(&state.join(file), content)?;
            damage.apply(&state.join(file), &secret)?;
            if let Err(error) = start(node) {
                progress(format!("{damage:?} {file}: {error:#}"));
                failed_starts += 1;
            }
            let pid = node.pid();
            peak_kib = peak_kib.max(pid.map_or(0, |pid| proc_files::peak_kib(pid).unwrap_or(0)));
            followed_links += u64::from(fs::read_to_string(&secret).ok().as_deref() != Some(text));
        }
    }
    Ok(vec![Outcome {
        id: "state-files",
        fault,
        tries: DAMAGES.len() * REPLACEABLE.len(),
        figures: vec![
            Figure::count("failed starts", failed_starts, 0),
            Figure::count("followed links", followed_links, 0),
            Figure {
                unit: "MiB",
                ..Figure::count("memory", peak_kib >> 10, MAX_RESIDENT_KIB >> 10)
            },
        ],
    }])
}
