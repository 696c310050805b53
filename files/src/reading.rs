//! Reads files up to a stated size, and sets bad ones aside.

use crate::folders::{Folder, aside, remove_tree};
use rustix::{
    fs::{self, CWD, Mode, OFlags},
    io::Errno,
};
use std::{
    fmt::Display,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Opens a regular file for reading. Neither a symbolic link nor a FIFO is opened.
///
/// # Errors
/// There is no such file, it cannot be opened, or it is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    open_regular(path, OFlags::NOFOLLOW)
}

/// Opens a regular file with these further flags. Opening a FIFO does not block, and is an error.
fn open_regular(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(CWD, path, flags, Mode::empty()).map_err(name_link)?;
    let file = File::from(file);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ))
    }
}

/// Says that a symbolic link was not followed, where the system reports it as a loop.
pub(crate) fn name_link(error: Errno) -> io::Error {
    if error == Errno::LOOP {
        let why = "it is a symbolic link, which is not followed";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    } else {
        error.into()
    }
}

/// Reads a regular file of at most `max_bytes`.
///
/// # Errors
/// There is no such file, it cannot be read, it is no regular file, or it is larger.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    read_all(open(path)?, max_bytes)
}

/// Reads a regular file of at most `max_bytes` that an operator may have put elsewhere by a link.
///
/// # Errors
/// There is no such file, it cannot be read, it is no regular file, or it is larger.
pub fn read_linked(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    read_all(open_regular(path, OFlags::empty())?, max_bytes)
}

fn read_all(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let why = format!("it has more than {max_bytes} bytes");
        io::Error::new(io::ErrorKind::FileTooLarge, why)
    };
    if file.metadata()?.len() > max_bytes {
        return Err(too_large());
    }
    let mut content = Vec::new();
    // It can grow while it is read.
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length <= max_bytes) {
        Ok(content)
    } else {
        Err(too_large())
    }
}

/// Reads a regular file of at most `max_bytes` as UTF-8.
///
/// # Errors
/// Those of [`read`], and that the file is not UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    let content = read(path, max_bytes)?;
    String::from_utf8(content)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"))
}

/// Reads a file that can be created again: of at most `max_bytes`, parsed by `parse`. `None` if there is none.
///
/// A bad one is renamed to `NAME.bad`, in place of an earlier one; one line of the log names it, the fault, and the
/// `consequence`, a clause such as "peers are asked for again".
pub fn load<T, E: Display>(
    path: &Path,
    max_bytes: u64,
    consequence: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Option<T> {
    let fault = match read(path, max_bytes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
        Ok(content) => match parse(&content) {
            Ok(parsed) => return Some(parsed),
            Err(error) => error.to_string(),
        },
    };
    let path_text = path.display();
    match set_aside(path) {
        Ok(renamed) => {
            tracing::warn!(path = %path_text, renamed = %renamed.display(), fault, "bad file set aside: {consequence}");
        }
        Err(error) => {
            tracing::warn!(path = %path_text, fault, %error, "bad file ignored, and it cannot be renamed: {consequence}");
        }
    }
    None
}

/// Renames a file or folder to `NAME.bad`, in place of an earlier one; returns the new path.
///
/// # Errors
/// It does not exist or cannot be renamed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let renamed = aside(path);
    remove_tree(&renamed)?;
    let (folder, name) = Folder::of(path)?;
    let new_name = renamed.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    fs::renameat(&folder.0, name, &folder.0, new_name)?;
    Ok(renamed)
}
