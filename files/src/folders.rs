//! Opens, creates, hands over and removes folders.

use crate::{Access, reading::set_aside, writing};
use fault_points::fault;
use rustix::{
    fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid},
    io::Errno,
    process::{getegid, geteuid},
};
use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;
/// The sticky bit: in such a folder, only the owner of a file can rename or remove it.
const STICKY: u32 = 0o1000;

/// The open folder of a file, in which no other user can replace what this process writes.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) OwnedFd);

impl Folder {
    /// Opens the folder of `path`, and returns it with the name of the file in it.
    ///
    /// # Errors
    /// The folder cannot be opened, or another user can write it.
    pub(crate) fn of(path: &Path) -> io::Result<(Self, &OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::openat(CWD, parent, flags, Mode::empty())?;
        if let Some(writer) = other_writer(&fs::fstat(&folder)?) {
            let why = format!(
                "its folder {} can be written by {writer}: nothing is changed there",
                parent.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok((Self(folder), name))
    }

    /// Describes what has this name; `None` if nothing has. A link is not followed.
    pub(crate) fn find(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the names in the folder are on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.0)?)
    }
}

/// Returns in words who besides this process and root can write the folder; `None` if nobody can harm us there.
fn other_writer(folder: &Stat) -> Option<String> {
    if folder.st_mode & STICKY != 0 && folder.st_uid == 0 {
        return None;
    }
    let is_trusted = folder.st_uid == 0 || folder.st_uid == geteuid().as_raw();
    if !is_trusted {
        Some(format!("user {}", folder.st_uid))
    } else if folder.st_mode & OTHERS_WRITE != 0 {
        Some(format!("others (mode {:o})", folder.st_mode & 0o7777))
    } else {
        None
    }
}

/// Sets mode and owner of an open file or folder, in the order in which at no time others have more rights than
/// before or after.
pub(crate) fn set_access(file: &OwnedFd, access: Access) -> io::Result<()> {
    let (uid, gid) = access
        .owner
        .unwrap_or((geteuid().as_raw(), getegid().as_raw()));
    let found = fs::fstat(file)?;
    if (found.st_uid, found.st_gid) != (uid, gid) {
        fs::fchmod(file, Mode::RUSR | Mode::WUSR)?;
        fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    } else if found.st_mode & 0o7777 == access.mode {
        return Ok(());
    }
    Ok(fs::fchmod(file, Mode::from_bits_truncate(access.mode))?)
}

/// Gives a folder and all it holds to `owner`. The folder is taken back from its present owner first, who so cannot
/// exchange what is in it meanwhile. Links are given away themselves; a file with several names is not, since one of them
/// may be elsewhere.
///
/// # Errors
/// The folder does not exist, or an owner cannot be set.
pub fn give_tree(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    let (parent, name) = Folder::of(path)?;
    let folder = Folder(make(&parent, name)?);
    set_access(&folder.0, Access::ours(0o700))?;
    for entry in std::fs::read_dir(path)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let Some(found) = folder.find(&name)? else {
            continue;
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Directory {
            give_tree(&entry, owner)?;
        } else if found.st_nlink > 1 {
            tracing::warn!(path = %entry.display(), "a file with several names stays with its owner");
        } else {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            fs::chownat(
                &folder.0,
                &name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
    }
    set_access(&folder.0, Access::of(0o700, owner))
}

/// Creates a folder with its missing parents (0755), or sets owner and mode of the one that exists. Anything else of its
/// name, such as a symbolic link, is set aside; a line of the log names it.
///
/// # Errors
/// It cannot be created.
pub fn folder(path: &Path, access: Access) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        folder(parent, Access::ours(0o755))?;
    }
    let (parent, name) = Folder::of(path)?;
    let is_other = |found: &Stat| FileType::from_raw_mode(found.st_mode) != FileType::Directory;
    if parent.find(name)?.as_ref().is_some_and(is_other) {
        let renamed = set_aside(path)?;
        tracing::warn!(path = %path.display(), renamed = %renamed.display(), "something else stood in the place of a folder; it is set aside, and was not followed");
    }
    let folder = make(&parent, name)?;
    set_access(&folder, access)?;
    fault!("folder {}", writing::name_of(path));
    Ok(())
}

/// Creates the folder if nothing has its name, and opens it.
fn make(parent: &Folder, name: &OsStr) -> io::Result<OwnedFd> {
    if parent.find(name)?.is_none() {
        fs::mkdirat(&parent.0, name, Mode::RWXU)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(&parent.0, name, flags, Mode::empty())?)
}

pub(crate) fn is_link(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Symlink
}

/// Replaces the folder at `path` by one (0700) with these files (0600), all of which then belong to `owner`. The
/// files are written before the folder is given away, so nothing is written where `owner` could interfere. It does not
/// wait for the disk, since the folder is made again at each start of the child.
///
/// # Errors
/// The earlier folder cannot be removed, or the new one cannot be made.
pub fn hand_over(path: &Path, files: &[(&str, &[u8])], owner: (u32, u32)) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    remove_tree(&draft)?;
    folder(&draft, Access::ours(0o700))?;
    for (name, content) in files {
        writing::write_new(&draft.join(name), *content, Access::of(0o600, owner))?;
    }
    folder(&draft, Access::of(0o700, owner))?;
    remove_tree(path)?;
    fault!("empty {}", writing::name_of(path));
    writing::rename(&draft, path).map(drop)
}

/// Removes what has this name, if anything has: a file, a link, or a folder with all it holds. Links are not followed.
///
/// # Errors
/// It cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (parent, name) = match Folder::of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let Some(found) = parent.find(name)? else {
        return Ok(());
    };
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        // It opens each folder without following links, and removes by descriptor.
        std::fs::remove_dir_all(path)
    } else {
        Ok(fs::unlinkat(&parent.0, name, AtFlags::empty())?)
    }
}

/// Returns the path to which a bad file is renamed: `NAME.bad`.
pub fn aside(path: &Path) -> PathBuf {
    path.with_added_extension("bad")
}
