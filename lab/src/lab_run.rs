//! One run of a lab: its name, its folder, its namespaces; and the removal of what dead runs have left.
//!
//! A run is dead when the process that its `owner` file names (by id and start time) is gone. The folder appears
//! with the owner file in it, by a single rename, before the first namespace exists, and it is removed last. A
//! namespace whose run has no living owner is therefore left over.

use crate::{ip, netns, proc_files, signal_cleanup};
use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// The folder that holds the folders of all runs.
const TEMPORARY_FOLDER: &str = "/tmp";
/// Each run's folder is named by this and the run's name.
const FOLDER_PREFIX: &str = "warren-lab-";
/// A folder that is kept for its logs is named by this and the run's name, so that no later run removes it.
const KEPT_FOLDER_PREFIX: &str = "warren-kept-";
/// Each namespace is named by this, the run's name, a hyphen, and the namespace's role.
const NAMESPACE_PREFIX: &str = "wl-";
/// The file in the run's folder that names the process that owns the run.
const OWNER_FILE: &str = "owner";
/// Letters of a run's name.
const NAME_LENGTH: usize = 5;
/// Longest wait until all processes of a namespace are gone after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two rounds of SIGKILL.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// One run of a lab: its name and its folder.
#[derive(Debug)]
pub struct LabRun {
    name: String,
    folder: PathBuf,
}

impl LabRun {
    /// Creates a run as every lab does: removes dead runs first, and lets a signal that ends the process remove
    /// this one.
    ///
    /// # Errors
    /// Fails if the caller is not root or `/tmp` cannot be written.
    pub(crate) fn begin(keep_files: bool) -> Result<Arc<Self>> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab needs root, because it creates network namespaces"
        );
        remove_dead_runs();
        let run = Arc::new(Self::create()?);
        let on_signal = Arc::downgrade(&run);
        signal_cleanup::on_signal(move || {
            if let Some(run) = on_signal.upgrade() {
                run.remove(keep_files);
            }
        });
        Ok(run)
    }

    /// Creates a run with a random name, and its folder.
    fn create() -> Result<Self> {
        let name: String = std::iter::repeat_with(fastrand::lowercase)
            .take(NAME_LENGTH)
            .collect();
        let folder = run_folder(&name);
        let draft = Path::new(TEMPORARY_FOLDER).join(format!(".{FOLDER_PREFIX}{name}"));
        let context = || format!("cannot create folder {}", folder.display());
        fs::create_dir(&draft).with_context(context)?;
        allow_passage(&draft).with_context(context)?;
        let pid = std::process::id();
        let start_time = proc_files::start_time(pid).unwrap_or_default();
        fs::write(draft.join(OWNER_FILE), format!("{pid} {start_time}\n")).with_context(context)?;
        fs::rename(&draft, &folder).with_context(context)?;
        Ok(Self { name, folder })
    }

    /// The run's folder below `/tmp`, with mode 0711.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The full name of the run's namespace with this role.
    pub fn namespace(&self, role: &str) -> String {
        format!("{NAMESPACE_PREFIX}{}-{role}", self.name)
    }

    /// Creates a folder with mode 0711 in the run's folder.
    ///
    /// # Errors
    /// Fails if the folder cannot be created.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        let context = || format!("cannot create folder {}", folder.display());
        fs::create_dir(&folder).with_context(context)?;
        allow_passage(&folder).with_context(context)?;
        Ok(folder)
    }

    /// Kills what still runs in this run's namespaces, and removes the namespaces and the folder.
    ///
    /// With `keep_files` the folder is renamed to `/tmp/warren-kept-NAME` instead.
    pub fn remove(&self, keep_files: bool) {
        remove(&self.name, keep_files);
    }
}

/// Whether `WARREN_LAB_KEEP=1` asks to keep the files of all runs.
pub(crate) fn should_keep_all_files() -> bool {
    env::var_os("WARREN_LAB_KEEP").is_some_and(|value| value == "1")
}

/// Removes what all dead runs have left, and returns the names of these runs.
pub fn remove_dead_runs() -> Vec<String> {
    let mut dead_runs = BTreeSet::new();
    for entry in fs::read_dir(TEMPORARY_FOLDER)
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        if let Some(name) = file.strip_prefix(FOLDER_PREFIX)
            && !is_alive(&entry.path())
        {
            dead_runs.insert(name.to_owned());
        }
    }
    for namespace in netns::list() {
        let name = namespace
            .strip_prefix(NAMESPACE_PREFIX)
            .and_then(|rest| rest.split('-').next());
        if let Some(name) = name
            && !is_alive(&run_folder(name))
        {
            dead_runs.insert(name.to_owned());
        }
    }
    for name in &dead_runs {
        remove(name, false);
    }
    dead_runs.into_iter().collect()
}

fn run_folder(name: &str) -> PathBuf {
    Path::new(TEMPORARY_FOLDER).join(format!("{FOLDER_PREFIX}{name}"))
}

/// Lets everybody pass through the folder, since unprivileged children have files below it, but not list it.
fn allow_passage(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
}

fn remove(name: &str, keep_files: bool) {
    let prefix = format!("{NAMESPACE_PREFIX}{name}-");
    let namespaces: Vec<String> = netns::list()
        .into_iter()
        .filter(|namespace| namespace.starts_with(&prefix))
        .collect();
    for namespace in &namespaces {
        kill_all(namespace);
        netns::remove_etc(namespace);
    }
    let lines: String = namespaces
        .iter()
        .map(|namespace| format!("netns del {namespace}\n"))
        .collect();
    ip::batch_ignoring_errors(None, &lines);
    let folder = run_folder(name);
    if keep_files {
        let kept_folder = Path::new(TEMPORARY_FOLDER).join(format!("{KEPT_FOLDER_PREFIX}{name}"));
        fs::rename(folder, kept_folder).ok();
    } else {
        drop(fs::remove_dir_all(folder));
    }
}

/// Kills every process in the namespace and waits until all are gone. Only the lab's processes live there.
fn kill_all(namespace: &str) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let pids = netns::pids(namespace);
        if pids.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in pids.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        std::thread::sleep(KILL_INTERVAL);
    }
}

/// Whether the owner of the run with this folder still runs.
fn is_alive(folder: &Path) -> bool {
    let Ok(owner) = fs::read_to_string(folder.join(OWNER_FILE)) else {
        return false;
    };
    let mut words = owner.split_whitespace();
    let pid: Option<u32> = words.next().and_then(|pid| pid.parse().ok());
    let start_time: Option<u64> = words.next().and_then(|time| time.parse().ok());
    start_time.is_some() && pid.and_then(proc_files::start_time) == start_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_alive_and_another_one_with_our_pid_is_not() {
        let run = LabRun::create().unwrap();
        assert!(is_alive(run.folder()));
        fs::write(
            run.folder().join(OWNER_FILE),
            format!("{} 1\n", std::process::id()),
        )
        .unwrap();
        assert!(!is_alive(run.folder()));
        run.remove(false);
        assert!(!run.folder().exists());
    }
}
