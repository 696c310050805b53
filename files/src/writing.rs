//! Writes files, so that a crash leaves the old or the new content, and never follows a link.

use crate::{
    Access,
    folders::{Folder, is_link, remove_tree, set_access},
    reading::{name_link, open, set_aside},
};
use fault_points::fault;
use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

/// Replaces a file: the content is written to `NAME.new`, which is then renamed; both are on disk when this returns.
///
/// A symbolic link in its place is replaced, too, and a folder is set aside; a line of the log names it.
///
/// # Errors
/// The file cannot be written; the old content stays.
pub fn replace(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    remove_tree(&draft)?;
    create(&draft, content, access)?;
    put_in_place(&draft, path)
}

/// Replaces a file that means nothing after a boot, such as a pid file: like [`replace`], but it does not wait for the disk.
///
/// # Errors
/// The file cannot be written; the old content stays.
pub fn replace_volatile(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    remove_tree(&draft)?;
    write_new(&draft, content, access)?;
    rename(&draft, path).map(drop)
}

/// Writes a new file, and waits until it is on disk.
///
/// # Errors
/// Something has its name already, or it cannot be written; then nothing is left.
pub fn create(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    create_from(path, content, access)
}

/// Writes a new file with all that `content` yields, and waits until it is on disk.
///
/// # Errors
/// Something has its name already, or `content` cannot be read, or the file not written; then nothing is left.
pub fn create_from(path: &Path, content: impl Read, access: Access) -> io::Result<()> {
    let file = write_new(path, content, access)?;
    fs::fsync(&file)?;
    fault!("write {}", name_of(path));
    Ok(())
}

/// Writes a new file, without waiting for the disk.
pub(crate) fn write_new(path: &Path, content: impl Read, access: Access) -> io::Result<OwnedFd> {
    let (folder, name) = Folder::of(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(&folder.0, name, flags, Mode::RUSR | Mode::WUSR)?;
    let written = fill(file, content, access);
    if written.is_err() {
        // Half a file must not be taken for a whole one.
        let _ = fs::unlinkat(&folder.0, name, AtFlags::empty());
    }
    written
}

fn fill(file: OwnedFd, mut content: impl Read, access: Access) -> io::Result<OwnedFd> {
    let mut file = File::from(file);
    io::copy(&mut content, &mut file)?;
    let file = OwnedFd::from(file);
    set_access(&file, access)?;
    Ok(file)
}

/// Waits until a file that another program wrote, and its name, are on disk.
///
/// # Errors
/// There is no such file, or the disk fails.
pub fn sync(path: &Path) -> io::Result<()> {
    open(path)?.sync_all()?;
    let (folder, _) = Folder::of(path)?;
    folder.sync()
}

/// Renames a file or folder that is on disk to another name in the same folder, and waits until the name is on disk.
///
/// # Errors
/// It cannot be renamed.
pub fn put_in_place(draft: &Path, path: &Path) -> io::Result<()> {
    rename(draft, path)?.sync()
}

/// Renames a file or folder within its folder, which is returned.
pub(crate) fn rename(draft: &Path, path: &Path) -> io::Result<Folder> {
    let (folder, name) = Folder::of(path)?;
    let draft_name = draft.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    warn_of_stranger(&folder, path)?;
    fs::renameat(&folder.0, draft_name, &folder.0, name)?;
    fault!("rename {}", name_of(path));
    Ok(folder)
}

/// Returns the last part of a path, by which points of faults are named.
pub(crate) fn name_of(path: &Path) -> std::path::Display<'_> {
    path.file_name().map_or(path, Path::new).display()
}

/// Names what is no file in the place of one; a folder is set aside, since a file cannot replace it.
fn warn_of_stranger(folder: &Folder, path: &Path) -> io::Result<()> {
    let Some(found) = path
        .file_name()
        .map(|name| folder.find(name))
        .transpose()?
        .flatten()
    else {
        return Ok(());
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => {
            let renamed = set_aside(path)?;
            tracing::warn!(path = %path.display(), renamed = %renamed.display(), "a folder stood in the place of a file; it is set aside");
        }
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => {
            let kind = if is_link(&found) {
                "a symbolic link"
            } else {
                "a special file"
            };
            tracing::warn!(path = %path.display(), owner = found.st_uid, "{kind} stood in the place of a file; it is replaced, and was not followed");
        }
    }
    Ok(())
}

/// Opens a file for reading and writing, and creates it (empty) if it does not exist.
///
/// # Errors
/// It cannot be opened or created, or something else has its name.
pub fn open_or_create(path: &Path, access: Access) -> io::Result<File> {
    let (folder, name) = Folder::of(path)?;
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(&folder.0, name, flags, Mode::RUSR | Mode::WUSR).map_err(name_link)?;
    if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        let why = "it is no regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    set_access(&file, access)?;
    Ok(File::from(file))
}

/// Removes a file, a link or a socket, if it exists.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let (folder, name) = match Folder::of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match fs::unlinkat(&folder.0, name, AtFlags::empty()) {
        Ok(()) => {
            fault!("remove {}", name_of(path));
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
