//! `warren generate-reference`: writes the manual pages and the completions of shells, for the package.

use crate::output::fail;
use clap::Command;
use clap_complete::Shell;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The arguments of `warren generate-reference`.
#[derive(clap::Args)]
pub struct ReferenceArgs {
    /// The folder to write to; it is created
    folder: PathBuf,
}

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write below {}", folder.display())]
struct NotWritten {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

/// Writes `man/*.1`, `bash/warren`, `zsh/_warren` and `fish/warren.fish` below the folder.
pub fn generate_reference(command: &Command, args: &ReferenceArgs) -> ExitCode {
    match write_all(command, &args.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(source) => {
            let folder = args.folder.clone();
            fail(&NotWritten { folder, source }, 1)
        }
    }
}

fn write_all(command: &Command, folder: &Path) -> io::Result<()> {
    // The version has a second part, the commit, which would make the pages differ with each build.
    let command = command.clone().version(env!("CARGO_PKG_VERSION"));
    let subfolder = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).map(|()| path)
    };
    clap_mangen::generate_to(command.clone(), subfolder("man")?)?;
    let shells = [
        (Shell::Bash, "bash", "warren"),
        (Shell::Zsh, "zsh", "_warren"),
        (Shell::Fish, "fish", "warren.fish"),
    ];
    for (shell, name, file) in shells {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), "warren", &mut script);
        fs::write(subfolder(name)?.join(file), script)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn each_verb_has_a_page_and_the_hidden_one_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let command = Command::new("warren")
            .subcommand(Command::new("join").arg(Arg::new("start").long("start")))
            .subcommand(Command::new("hidden").hide(true));
        write_all(&command, folder.path()).unwrap();
        let page = fs::read_to_string(folder.path().join("man/warren-join.1")).unwrap();
        assert!(page.contains("start"), "{page}");
        assert!(!folder.path().join("man/warren-hidden.1").exists());
        for file in ["bash/warren", "zsh/_warren", "fish/warren.fish"] {
            let script = fs::read_to_string(folder.path().join(file)).unwrap();
            assert!(script.contains("join"), "{file}: {script}");
        }
    }
}
