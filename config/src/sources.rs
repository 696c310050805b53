//! Reads the configuration file and its drop-in files, and merges them.
//!
//! The drop-in files of `warren.yaml` are `warren.d/*.yaml` beside it, in lexical order. Maps are merged key by key; any other
//! value, lists included, is replaced as a whole by the last file that has it.

use crate::{
    ConfigError,
    lines::{Step, line_of},
    tree::scalar,
};
use serde_yaml::{Mapping, Value};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The maximum size of a file in bytes.
pub(crate) const LIMIT: u64 = 64 * 1024;

/// One file, parsed.
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) text: String,
    pub(crate) value: Value,
}

/// Returns the drop-in files of a configuration file, in the order in which they are merged.
///
/// # Errors
/// The folder of drop-in files cannot be read.
pub fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = file.with_extension("d");
    let unread = |source| ConfigError::Read {
        file: folder.clone(),
        source,
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(unread)?.file_name());
    }
    names.retain(|name| {
        let name = name.as_encoded_bytes();
        name.ends_with(b".yaml") && !name.starts_with(b".")
    });
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Reads a file of bounded size.
pub(crate) fn read_bytes(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let unread = |source| ConfigError::Read {
        file: file.to_owned(),
        source,
    };
    // A FIFO would block at open, and a device has no end.
    if !fs::metadata(file).map_err(unread)?.is_file() {
        return Err(ConfigError::NotAFile {
            file: file.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    let mut reader = File::open(file).map_err(unread)?.take(LIMIT + 1);
    reader.read_to_end(&mut bytes).map_err(unread)?;
    Ok(bytes)
}

/// Merges the values of all files; [`Value::Null`] if all are empty.
pub(crate) fn merge(sources: &[Source]) -> Value {
    sources.iter().fold(Value::Null, |merged, source| {
        if source.value.is_null() {
            merged
        } else {
            merged_value(merged, &source.value)
        }
    })
}

/// Returns `new`; if both are maps, with the keys of `old` that it lacks.
fn merged_value(old: Value, new: &Value) -> Value {
    match (old, new) {
        (Value::Mapping(mut map), Value::Mapping(new)) => {
            merge_map(&mut map, new);
            Value::Mapping(map)
        }
        (_, new) => new.clone(),
    }
}

fn merge_map(map: &mut Mapping, new: &Mapping) {
    for (key, value) in new {
        let old = map.get(key).cloned().unwrap_or_default();
        map.insert(key.clone(), merged_value(old, value));
    }
}

/// Returns the number of the file from which the merged value at `path` comes, and its line there. What no file has belongs to
/// the first file.
pub(crate) fn place_of(sources: &[Source], path: &[Step]) -> (usize, Option<usize>) {
    let last = sources
        .iter()
        .enumerate()
        .rev()
        .find(|(_, source)| has(&source.value, path));
    last.map_or((0, None), |(index, source)| {
        (index, line_of(&source.text, path))
    })
}

fn has(value: &Value, path: &[Step]) -> bool {
    let Some((step, rest)) = path.split_first() else {
        return true;
    };
    let child = match (value, step) {
        (Value::Mapping(map), Step::Key(name)) => map
            .iter()
            .find(|(key, _)| scalar(key) == *name)
            .map(|(_, value)| value),
        (Value::Sequence(list), Step::Item(index)) => list.get(*index),
        (_, Step::Key(_) | Step::Item(_)) => None,
    };
    child.is_some_and(|child| has(child, rest))
}

#[cfg(test)]
mod tests {
    use crate::{ConfigError, load};
    use std::{fs, path::Path};

    /// Writes these files below a folder, and returns what loading `w.yaml` there leads to, without the folder's name.
    fn load_files(files: &[(&str, &str)]) -> Result<crate::Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("w.d")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let prefix = format!("{}/", folder.path().display());
        load(&folder.path().join("w.yaml")).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[track_caller]
    fn check_error(files: &[(&str, &str)], expected: &str) {
        let mut all = vec![("w.yaml", "registry: https://a:1\nlisten: { udp: 5 }\n")];
        all.extend(files);
        assert_eq!(load_files(&all).unwrap_err(), expected);
    }

    #[test]
    fn maps_are_merged_and_everything_else_is_replaced_in_lexical_order() {
        let settings = load_files(&[
            (
                "w.yaml",
                "registry: https://a:1\nlisten: { udp: 5 }\nneighbours: [1/16, 2/16]\nlog: warn\n",
            ),
            ("w.d/20-b.yaml", "log: debug\nneighbours: [3/16]\n"),
            ("w.d/10-a.yaml", "log: trace\nlisten: { tcp: 7 }\n"),
            ("w.d/30-empty.yaml", "# nothing\n"),
            ("w.d/.hidden.yaml", "log: ["),
            ("w.d/note.txt", "log: ["),
        ])
        .unwrap();
        assert_eq!(
            (settings.listen_udp, settings.listen_tcp),
            (vec![5], vec![7])
        );
        assert_eq!(settings.neighbours, ["3/16".parse().unwrap()]);
        assert_eq!(settings.log, "debug");
    }

    #[test]
    fn a_drop_in_file_can_give_what_the_configuration_lacks() {
        let files = [("w.yaml", "\n"), ("w.d/a.yaml", "registry: https://a:1\n")];
        assert_eq!(load_files(&files).unwrap().registry, "https://a:1");
    }

    #[test]
    fn an_error_names_the_file_and_the_line_that_has_the_value() {
        check_error(
            &[
                ("w.d/a.yaml", "# why\nlisten:\n  tcp: x\n"),
                ("w.d/b.yaml", "listen: { udp: 1 }\n"),
            ],
            "w.d/a.yaml:3: listen.tcp: value \"x\": expected a port from 1 to 65535, a list of up to 4 different ones, or 0: do not accept",
        );
        check_error(
            &[("w.d/a.yaml", "upnp: 1\n"), ("w.d/b.yaml", "\nupnp: 2\n")],
            "w.d/b.yaml:2: upnp: value 2: expected one of auto, off",
        );
        check_error(
            &[("w.d/a.yaml", "log: [\n")],
            "w.d/a.yaml:2: not YAML: did not find expected node content",
        );
        check_error(
            &[("w.d/a.yaml", "log: info\nlog: info\n")],
            "w.d/a.yaml:2: log: given twice: expected each key once",
        );
        check_error(
            &[("w.d/a.yaml", "- a\n")],
            "w.d/a.yaml:1: the document: a list: expected keys and values, such as registry: https://HOST:PORT",
        );
    }

    #[test]
    fn a_drop_in_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.yaml");
        fs::write(&file, "registry: https://a:1\n").unwrap();
        fs::create_dir(folder.path().join("w.d")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("w.d/a.yaml")).unwrap();
        let message = load(&file).unwrap_err().to_string();
        assert!(message.ends_with("w.d/a.yaml: cannot read the configuration"));
        assert!(load(Path::new("/nonexistent/w.yaml")).is_err());
    }

    #[test]
    fn a_named_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.yaml");
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = load(&file).unwrap_err();
        assert!(matches!(&error, ConfigError::NotAFile { .. }), "{error}");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "registry: https://a:1\n").unwrap();
        fs::create_dir(folder.path().join("w.d")).unwrap();
        let drop_in = folder.path().join("w.d/a.yaml");
        nix::unistd::mkfifo(&drop_in, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = load(&file).unwrap_err();
        assert!(
            matches!(&error, ConfigError::NotAFile { file } if *file == drop_in),
            "{error}"
        );
    }
}
