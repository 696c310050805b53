//! Names one run of a lab, owns its folder, and clears away what dead runs have left.
//!
//! A run is dead when the process that its `owner` file names (pid and start time) is gone. The folder appears
//! with its owner file in it, in one rename, before the first namespace is made, and goes last: so a namespace
//! without a living owner is a leftover.

use crate::ip;
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How the folders below `/tmp` begin.
const FOLDER: &str = "warren-lab-";
/// How the namespaces begin.
const NAMESPACE: &str = "wl-";

/// One run: its name and its folder.
#[derive(Debug)]
pub struct Run {
    name: String,
    folder: PathBuf,
}

impl Run {
    /// Makes the folder.
    ///
    /// # Errors
    /// Where `/tmp` cannot be written.
    pub fn new() -> Result<Self> {
        let name: String = std::iter::repeat_with(fastrand::lowercase)
            .take(5)
            .collect();
        let folder = folder_of(&name);
        let draft = Path::new("/tmp").join(format!(".{FOLDER}{name}"));
        let context = || format!("cannot make {}", folder.display());
        fs::create_dir(&draft).with_context(context)?;
        // Children without rights must reach their files below; they need not list them.
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o711)).with_context(context)?;
        let pid = std::process::id();
        let started = start_time(pid).unwrap_or_default();
        fs::write(draft.join("owner"), format!("{pid} {started}\n")).with_context(context)?;
        fs::rename(&draft, &folder).with_context(context)?;
        Ok(Self { name, folder })
    }

    /// The run's folder below `/tmp`, 0711.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The full name of one of this run's namespaces.
    pub fn namespace(&self, what: &str) -> String {
        format!("{NAMESPACE}{}-{what}", self.name)
    }

    /// A new folder in the run's folder that everybody may pass through.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn make_folder(&self, what: &str) -> Result<PathBuf> {
        let folder = self.folder.join(what);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))
            .with_context(|| format!("cannot open {} to all", folder.display()))?;
        Ok(folder)
    }

    /// Ends what still runs in this run's namespaces, and removes them; the folder too or, with
    /// `keep_files`, it is kept as `/tmp/warren-kept-NAME`.
    pub fn remove(&self, keep_files: bool) {
        remove(&self.name, keep_files);
    }
}

fn folder_of(name: &str) -> PathBuf {
    Path::new("/tmp").join(format!("{FOLDER}{name}"))
}

fn remove(name: &str, keep_files: bool) {
    let beginning = format!("{NAMESPACE}{name}-");
    let ours: Vec<String> = ip::namespaces()
        .into_iter()
        .filter(|ns| ns.starts_with(&beginning))
        .collect();
    for namespace in &ours {
        end_all(namespace);
    }
    let lines: String = ours
        .iter()
        .map(|namespace| format!("netns del {namespace}\n"))
        .collect();
    ip::batch_anyhow(None, &lines);
    if keep_files {
        // Under this name it is nobody's leftover.
        fs::rename(
            folder_of(name),
            Path::new("/tmp").join(format!("warren-kept-{name}")),
        )
        .ok();
    } else {
        drop(fs::remove_dir_all(folder_of(name)));
    }
}

/// Kills every process in the namespace, which the lab made for nobody else, and waits until all are gone.
fn end_all(namespace: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let pids = ip::pids(namespace);
        if pids.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in pids {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the leftovers of all dead runs and returns their names.
pub fn clean() -> Vec<String> {
    let mut dead = BTreeSet::new();
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        if let Some(name) = file.strip_prefix(FOLDER)
            && !is_alive(&entry.path())
        {
            dead.insert(name.to_owned());
        }
    }
    for namespace in ip::namespaces() {
        let name = namespace
            .strip_prefix(NAMESPACE)
            .and_then(|rest| rest.split('-').next());
        if let Some(name) = name
            && !is_alive(&folder_of(name))
        {
            dead.insert(name.to_owned());
        }
    }
    for name in &dead {
        remove(name, false);
    }
    dead.into_iter().collect()
}

fn is_alive(folder: &Path) -> bool {
    let Ok(owner) = fs::read_to_string(folder.join("owner")) else {
        return false;
    };
    let mut words = owner.split_whitespace();
    let pid = words.next().and_then(|pid| pid.parse().ok());
    let started = words.next().and_then(|started| started.parse().ok());
    pid.is_some() && started.is_some() && pid.and_then(start_time) == started
}

/// When the process was started, in clock ticks since boot (proc(5), field 22); `None` where it is gone.
pub fn start_time(pid: u32) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// Field `number` (from 3 on) of `/proc/PID/stat` as proc(5) counts them.
pub fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, field 2, stands in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(number.checked_sub(3)?)
        .map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_alive_and_a_stranger_with_our_pid_is_not() {
        let run = Run::new().unwrap();
        assert!(is_alive(run.folder()));
        fs::write(
            run.folder().join("owner"),
            format!("{} 1\n", std::process::id()),
        )
        .unwrap();
        assert!(!is_alive(run.folder()));
        run.remove(false);
        assert!(!run.folder().exists());
    }
}
