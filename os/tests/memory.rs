//! Tests that freed memory returns to the kernel. It is the only test of its program, since others would use memory meanwhile.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(target_env = "gnu")]

use os::memory::release_free_pages;
use std::fs;

/// The resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let number = line.trim().strip_suffix(" kB").unwrap();
    number.parse().unwrap()
}

#[test]
fn freed_memory_below_an_object_in_use_is_returned() {
    let mut pieces: Vec<Box<[u8; 1024]>> = (0..32 * 1024).map(|_| Box::new([1; 1024])).collect();
    let in_use = resident_kib();
    let last = pieces.pop();
    drop(pieces);
    let freed = resident_kib();
    release_free_pages();
    let released = resident_kib();
    assert!(
        freed + 8 * 1024 > in_use,
        "glibc returned it by itself: {in_use} {freed}"
    );
    assert!(released + 24 * 1024 < in_use, "{in_use} {released}");
    assert_eq!(last.unwrap().first(), Some(&1));
}
