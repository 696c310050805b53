//! What a hostile user can put in the place of a file: links, folders, FIFOs, files of any size; and that nothing is
//! written where that user can write.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic outside its test functions too"
)]

use files::{Access, create, folder, hand_over, listen, load, read, replace, set_aside, socket_of};
use rustix::process::geteuid;
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

/// A user that is neither root nor of this machine.
const STRANGER: (u32, u32) = (60_193, 60_193);

/// Puts a link to a file of ours at `NAME` and `NAME.new`, calls `write`, and compares the file behind it with what it was.
#[track_caller]
fn check_link(write: impl FnOnce(&Path) -> io::Result<()>, expected: &str) {
    let root = tempfile::tempdir().unwrap();
    let (secret, path) = (root.path().join("secret"), root.path().join("file"));
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&secret).unwrap();
    symlink(&secret, &path).unwrap();
    symlink(&secret, root.path().join("file.new")).unwrap();
    let outcome = write(&path);
    let after = fs::metadata(&secret).unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(
        (after.uid(), after.gid(), after.mode()),
        (before.uid(), before.gid(), before.mode())
    );
    let outcome = outcome.map_or_else(|error| error.to_string(), |()| "done".to_owned());
    assert!(outcome.contains(expected), "{outcome}");
}

#[test]
fn no_call_follows_a_link() {
    let access = Access::ours(0o600);
    check_link(|path| replace(path, b"new", access), "done");
    check_link(|path| create(path, b"new", access), "exists");
    check_link(|path| folder(path, access), "done");
    check_link(|path| hand_over(path, &[("conf", b"")], owner()), "done");
    check_link(|path| listen(path, access).map(drop), "done");
    check_link(
        |path| files::open_or_create(path, access).map(drop),
        "symbolic link",
    );
    check_link(|path| read(path, 100).map(drop), "symbolic link");
    check_link(|path| set_aside(path).map(drop), "done");
    check_link(files::remove, "done");
    check_link(files::remove_tree, "done");
}

/// A stranger if this process can give files away, otherwise its own user.
fn owner() -> (u32, u32) {
    if geteuid().is_root() {
        STRANGER
    } else {
        (geteuid().as_raw(), rustix::process::getegid().as_raw())
    }
}

/// Tries each call in a folder of this owner and mode.
#[track_caller]
fn check_folder((uid, gid): (u32, u32), mode: u32, is_refused: bool) {
    let root = tempfile::tempdir().unwrap();
    let parent = root.path().join("parent");
    fs::create_dir(&parent).unwrap();
    fs::write(parent.join("present"), "").unwrap();
    chown(&parent, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(&parent, fs::Permissions::from_mode(mode)).unwrap();
    let (file, access) = (parent.join("file"), Access::ours(0o600));
    let outcomes = [
        replace(&file, b"new", access),
        create(&parent.join("other"), b"new", access),
        folder(&parent.join("folder"), access),
        hand_over(&parent.join("given"), &[], (uid, gid)),
        listen(&parent.join("socket"), access).map(drop),
        files::open_or_create(&parent.join("lock"), access).map(drop),
        set_aside(&parent.join("present")).map(drop),
        files::remove(&parent.join("present")),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(()) => assert!(!is_refused, "call {number} was not refused"),
            Err(error) => assert!(
                is_refused && error.to_string().contains("nothing is changed there"),
                "call {number}: {error}"
            ),
        }
    }
}

#[test]
fn nothing_is_changed_in_a_folder_that_another_user_can_write() {
    let ours = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    check_folder(ours, 0o700, false);
    check_folder(ours, 0o711, false);
    check_folder(ours, 0o770, true);
    check_folder(ours, 0o703, true);
    if geteuid().is_root() {
        check_folder(ours, 0o1777, false);
        check_folder(STRANGER, 0o700, true);
        check_folder(STRANGER, 0o1777, true);
    }
}

#[test]
fn a_folder_is_given_away_with_its_first_files_and_replaces_an_earlier_one() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("child");
    for content in ["first", "second"] {
        hand_over(&path, &[("state", content.as_bytes())], owner()).unwrap();
        let (found, state) = (path.join("state"), path.metadata().unwrap());
        assert_eq!(fs::read_to_string(&found).unwrap(), content);
        assert_eq!((state.uid(), state.gid()), owner());
        assert_eq!(state.mode() & 0o777, 0o700);
        assert_eq!(found.metadata().unwrap().uid(), owner().0);
        fs::write(path.join("left"), "").unwrap();
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_of_another_user_is_taken_back() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("folder");
    hand_over(&path, &[], owner()).unwrap();
    folder(&path, Access::ours(0o710)).unwrap();
    let found = path.metadata().unwrap();
    assert_eq!(
        (found.uid(), found.mode() & 0o777),
        (geteuid().as_raw(), 0o710)
    );
}

#[test]
fn only_a_socket_of_the_child_is_connected_to() {
    let root = tempfile::tempdir().unwrap();
    let (path, link) = (root.path().join("socket"), root.path().join("link"));
    let _listener = listen(&path, Access::ours(0o600)).unwrap();
    assert!(path.metadata().unwrap().file_type().is_socket());
    let us = geteuid().as_raw();
    let found = socket_of(&path, us).unwrap();
    symlink(&path, &link).unwrap();
    assert!(std::os::unix::net::UnixStream::connect(found.path()).is_ok());
    assert!(socket_of(&link, us).is_err());
    assert!(socket_of(&path, us + 1).is_err());
    assert!(socket_of(root.path(), us).is_err());
}

/// Makes what `prepare` says at a path, and compares what [`load`] returns, and whether it was set aside.
#[track_caller]
fn check_load(prepare: impl Fn(&Path), expected: Option<u8>, is_aside: bool) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file.json");
    // An earlier one is replaced.
    fs::create_dir_all(root.path().join("file.json.bad/full")).unwrap();
    prepare(&path);
    let parse = |content: &[u8]| match content {
        [digit @ b'0'..=b'9'] => Ok(digit - b'0'),
        _ => Err("no digit"),
    };
    assert_eq!(load(&path, 16, "nothing follows", parse), expected);
    assert_eq!(path.symlink_metadata().is_ok(), expected.is_some());
    let kept = root.path().join("file.json.bad/full");
    assert_eq!(!kept.exists(), is_aside);
}

#[test]
fn a_bad_file_is_set_aside_and_counts_as_none() {
    check_load(|_| {}, None, false);
    check_load(|path| fs::write(path, "7").unwrap(), Some(7), false);
    check_load(|path| fs::write(path, "").unwrap(), None, true);
    check_load(|path| fs::write(path, [0xff; 9]).unwrap(), None, true);
    check_load(|path| fs::create_dir(path).unwrap(), None, true);
    check_load(|path| symlink("/etc/passwd", path).unwrap(), None, true);
    check_load(
        |path| rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap(),
        None,
        true,
    );
    let sparse = |path: &Path| fs::File::create(path).unwrap().set_len(2 << 30).unwrap();
    check_load(sparse, None, true);
}

#[test]
fn a_folder_in_the_place_of_a_file_is_set_aside_when_the_file_is_written() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    fs::create_dir_all(path.join("full")).unwrap();
    fs::create_dir_all(root.path().join("file.new/full")).unwrap();
    replace(&path, b"new", Access::ours(0o640)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
    assert!(root.path().join("file.bad/full").exists());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}
