//! `warren support-bundle`: collects what others need to find a fault, without secrets, in one archive.

use crate::{
    control_client, doctor_verb,
    output::{fail, print_line},
};
use config::paths::Paths;
use flate2::{Compression, write::GzEncoder};
use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};
use supervisor::secrets::Secrets;
use wire::{
    control::{DECISIONS_PATH, PEERS_PATH, ROUTES_PATH, STATUS_PATH, TUNNELS_PATH},
    errors::Chain,
};

const JOURNALCTL: &str = "/usr/bin/journalctl";

/// Number of the journal's last lines in the bundle.
const JOURNAL_LINES: &str = "2000";

/// Largest file of the configuration in the bundle, in bytes.
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;

/// The folder in the archive.
const FOLDER: &str = "warren-support";

/// The arguments of `warren support-bundle`.
#[derive(clap::Args)]
pub struct SupportBundleArgs {
    /// The archive to write, which only its owner can read
    #[arg(long, value_name = "FILE", default_value = "warren-support.tar.gz")]
    output: PathBuf,
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Writes the archive, and lists what is in it.
pub fn support_bundle(args: &SupportBundleArgs) -> ExitCode {
    let root = match std::path::absolute(&args.root) {
        Ok(root) => root,
        Err(error) => return fail(&error, 1),
    };
    let paths = Paths::new(root);
    let secrets = Secrets::read(&paths);
    let files = collect(&paths);
    let files = files
        .into_iter()
        .map(|(name, text)| (name, secrets.remove_from(&text)));
    let files: Vec<_> = files.collect();
    if let Err(error) = write(&args.output, &files) {
        return fail(&error, 1);
    }
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    print_line(format_args!(
        "{}: {}",
        args.output.display(),
        names.join(", ")
    ));
    print_line(
        "keys and invitations are removed; addresses and names of nodes are in it, so read it before you publish it",
    );
    ExitCode::SUCCESS
}

/// Returns the name and the text of each file.
fn collect(paths: &Paths) -> Vec<(String, String)> {
    let mut files = vec![("version.txt".to_owned(), crate::VERSION.to_owned())];
    let checks = doctor_verb::examine(paths.clone(), PathBuf::from("/"));
    files.push(("doctor.json".to_owned(), doctor_verb::json(checks)));
    for path in [
        STATUS_PATH,
        TUNNELS_PATH,
        PEERS_PATH,
        ROUTES_PATH,
        DECISIONS_PATH,
    ] {
        let name = path.rsplit('/').next().unwrap_or_default();
        let answer = control_client::get(&paths.control(), path);
        let text = answer.unwrap_or_else(|error| Chain(&error).to_string());
        files.push((format!("{name}.json"), text));
    }
    let metrics = match config::load(&paths.config()) {
        Ok(settings) => control_client::scrape(&settings.metrics),
        Err(_) => "the configuration is not valid".to_owned(),
    };
    files.push(("metrics.txt".to_owned(), metrics));
    let mut configuration = vec![paths.config()];
    configuration.extend(config::drop_ins(&paths.config()).unwrap_or_default());
    for file in configuration {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let text = ::files::read_text(&file, MAX_CONFIGURATION_BYTES)
            .unwrap_or_else(|error| error.to_string());
        files.push((format!("configuration/{name}"), text));
    }
    if paths.root() == Path::new("/") {
        files.push(("journal.txt".to_owned(), journal()));
    }
    files
}

/// Returns the last lines of the journal of the unit.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a short-lived command, not the daemon, which spawns in one place only"
)]
fn journal() -> String {
    let mut command = Command::new(JOURNALCTL);
    command.args(["--unit=warren", "--no-pager", "--output=short-iso"]);
    command
        .args(["--lines", JOURNAL_LINES])
        .stdin(Stdio::null());
    match command.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => format!("{JOURNALCTL}: {error}"),
    }
}

fn write(output: &Path, files: &[(String, String)]) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_cksum();
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
    }
    let archive = archive.into_inner()?.finish()?;
    ::files::replace(output, &archive, ::files::Access::ours(0o600))
}
