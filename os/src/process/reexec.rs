//! Executes another program in this very process, and hands it descriptors and state.
//!
//! The process keeps its pid, so its children stay its children, and nobody who waits for it sees an exit. It must be done
//! on the main thread: the parent death signal of children comes when the thread that started them ends, and exec(2) ends
//! all threads but the one that calls it (measured, Linux 6.18). Nearly all descriptors are closed by exec; those that are
//! handed over are not. The state lies in a memfd, which nobody can change once it is sealed.
#![expect(
    unsafe_code,
    reason = "a descriptor that was inherited is a number; there is no safe way to own it"
)]

use rustix::{
    fs::{FileType, MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create},
    io::{FdFlags, fcntl_getfd, fcntl_setfd},
};
use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

/// The environment variable with the number of the memfd.
const VARIABLE: &str = "WARREN_HANDED_STATE";

/// The seals of the memfd: its content is final.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE)
    .union(SealFlags::SEAL);

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The path of the program, at which an upgrade puts the next one.
    pub program: PathBuf,
    args: Vec<OsString>,
}

impl Invocation {
    /// Determines how this process was started. It must be called before the program can have been replaced on disk.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn of_this_process() -> io::Result<Self> {
        let args: Vec<_> = env::args_os().collect();
        let running = env::current_exe()?;
        let started_as = args.first().and_then(|name| path_of(name, &running));
        Ok(Self {
            program: started_as.unwrap_or(running),
            args,
        })
    }

    /// Executes the program, as this process was started. The new program inherits the descriptors, and finds `state` by
    /// [`inherited_state`]. Returns only if that failed; nothing is inherited then.
    ///
    /// # Errors
    /// The program is missing or cannot be executed, or the system has no more memory or descriptors.
    pub fn execute(&self, state: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<Infallible> {
        let memory = sealed(state)?;
        let mut inherited = descriptors.to_vec();
        inherited.push(memory.as_fd());
        let program = c_string(self.program.as_os_str())?;
        let args: io::Result<Vec<_>> = self.args.iter().map(|arg| c_string(arg)).collect();
        let number = OsString::from(memory.as_raw_fd().to_string());
        let kept = env::vars_os().filter(|(name, _)| name != VARIABLE);
        let variables: io::Result<Vec<_>> = kept
            .chain([(VARIABLE.into(), number)])
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                c_string(&name)
            })
            .collect();
        let (args, variables) = (args?, variables?);
        set_flags(&inherited, FdFlags::empty())?;
        let failed = nix::unistd::execve(&program, &args, &variables);
        set_flags(&inherited, FdFlags::CLOEXEC)?;
        Ok(failed?)
    }
}

/// Returns the path by which the running program was started under this name; `None` if another program is there. It may be a symbolic link,
/// which an upgrade points elsewhere.
fn path_of(name: &OsStr, running: &Path) -> Option<PathBuf> {
    let identity = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let candidates = match name.as_bytes().contains(&b'/') {
        true => vec![PathBuf::from(name)],
        false => env::split_paths(&env::var_os("PATH")?)
            .map(|folder| folder.join(name))
            .collect(),
    };
    let running = identity(running)?;
    let mut candidates = candidates.into_iter();
    let found = candidates.find(|path| identity(path) == Some(running))?;
    std::path::absolute(found).ok()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn set_flags(descriptors: &[BorrowedFd<'_>], flags: FdFlags) -> io::Result<()> {
    for descriptor in descriptors {
        fcntl_setfd(descriptor, flags)?;
    }
    Ok(())
}

fn sealed(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut memory = File::from(memfd_create("warren-handed-state", flags)?);
    memory.write_all(content)?;
    memory.rewind()?;
    fcntl_add_seals(&memory, SEALS)?;
    Ok(memory.into())
}

/// Returns the state that an earlier program of this process has left; `None` if this process was started as usual.
///
/// # Errors
/// There is no such descriptor, it is no sealed memfd, or the state has more than `max_bytes`.
pub fn inherited_state(max_bytes: u64) -> Option<io::Result<Vec<u8>>> {
    let number = env::var_os(VARIABLE)?;
    Some(read_state(&number, max_bytes))
}

fn read_state(number: &OsStr, max_bytes: u64) -> io::Result<Vec<u8>> {
    let number = number.to_str().and_then(|number| number.parse().ok());
    let number = number.ok_or(io::ErrorKind::InvalidInput)?;
    let memory = inherited_descriptor(number)?;
    if fcntl_get_seals(&memory)? != SEALS {
        return Err(io::Error::other("it is not sealed"));
    }
    if u64::try_from(fstat(&memory)?.st_size).map_or(true, |size| size > max_bytes) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let (mut content, mut memory) = (Vec::new(), File::from(memory));
    memory.rewind()?;
    memory.take(max_bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Takes a descriptor that this process has inherited, so that children do not inherit it, too. It must be called at
/// most once for each number, and before the runtime is started.
///
/// # Errors
/// No such descriptor is open, or this program has opened it itself.
pub fn inherited_descriptor(number: i32) -> io::Result<OwnedFd> {
    let is_standard = (0..3).contains(&number);
    if number < 0 || is_standard {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is only used for the next call, which fails if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    // Each descriptor that Rust opens is closed by exec; one without this flag was inherited.
    if fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC) {
        return Err(io::Error::other("it was not inherited"));
    }
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open and was inherited, and the caller asks for each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes all descriptors that this process has inherited and that were not [taken](inherited_descriptor), except for
/// standard input, output and error, so that no child inherits them.
pub fn close_inherited() {
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers: Vec<i32> = listed
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // One that this program has opened itself, or that is closed by now, is rejected.
    numbers
        .into_iter()
        .for_each(|number| drop(inherited_descriptor(number)));
}

/// Returns whether a descriptor is a pipe, such as that of a child's log.
///
/// # Errors
/// The descriptor cannot be inspected.
pub fn is_pipe(descriptor: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(descriptor)?.st_mode) == FileType::Fifo)
}

/// Returns whether a descriptor is a socket, such as that of a child's management connection.
///
/// # Errors
/// The descriptor cannot be inspected.
pub fn is_socket(descriptor: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(descriptor)?.st_mode) == FileType::Socket)
}

/// Checks that there is a program at `path` that can be executed.
///
/// # Errors
/// There is none.
pub fn check_executable(path: &Path) -> io::Result<()> {
    let access = nix::unistd::AccessFlags::X_OK;
    Ok(nix::unistd::access(path, access)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    /// The number of a memfd that was inherited, as a new program would find it.
    fn inherited(content: &[u8]) -> OsString {
        let memory = sealed(content).unwrap();
        fcntl_setfd(&memory, FdFlags::empty()).unwrap();
        OsString::from(memory.into_raw_fd().to_string())
    }

    #[test]
    fn a_sealed_state_is_read_once_up_to_its_limit() {
        let number = inherited(b"state");
        assert_eq!(read_state(&number, 5).unwrap(), b"state");
        assert!(read_state(&number, 5).is_err());
        assert!(read_state(&inherited(b"state"), 4).is_err());
    }

    #[test]
    fn what_is_no_sealed_memory_is_rejected() {
        for number in ["", "x", "-1", "0", "2", "99999", "9999999999"] {
            assert!(read_state(OsStr::new(number), 5).is_err(), "{number}");
        }
        let file = tempfile::tempfile().unwrap();
        let own = OsString::from(file.as_raw_fd().to_string());
        assert!(read_state(&own, 5).is_err());
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        let number = OsString::from(file.into_raw_fd().to_string());
        assert!(read_state(&number, 5).is_err());
    }

    #[test]
    fn a_program_is_known_by_the_link_through_which_it_was_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("warren-1"), "").unwrap();
        std::fs::write(path("other"), "").unwrap();
        std::os::unix::fs::symlink("warren-1", path("warren")).unwrap();
        let running = path("warren-1");
        let name = |name: &str| path(name).into_os_string();
        assert_eq!(path_of(&name("warren"), &running), Some(path("warren")));
        assert_eq!(path_of(&name("warren-1"), &running), Some(path("warren-1")));
        for other in [
            name("other"),
            name("missing"),
            "no-such-program".into(),
            "".into(),
        ] {
            assert_eq!(path_of(&other, &running), None, "{other:?}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_executed_leaves_this_one_running() {
        let missing = Invocation {
            program: "/nonexistent/warren".into(),
            args: vec!["warren".into()],
        };
        let file = tempfile::tempfile().unwrap();
        let error = missing.execute(b"state", &[file.as_fd()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
        assert!(check_executable(&missing.program).is_err());
    }
}
