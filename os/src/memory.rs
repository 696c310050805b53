//! Returns memory that the daemon has freed to the kernel.
//!
//! glibc returns by itself only the free end of its heap. One small object that outlives a large list keeps all pages below it,
//! so that the resident memory stays at the highest that was ever used at the same time, and creeps up with each new
//! coincidence.

use std::time::Duration;

/// Interval at which free pages are returned.
const RELEASE_INTERVAL: Duration = Duration::from_secs(60);

/// Returns the free pages of all threads' heaps to the kernel. Does nothing with another C library than glibc.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "malloc_trim(3) has no safe wrapper")
)]
pub fn release_free_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the heaps' locks itself, and changes no object that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns free pages every minute, for as long as the daemon runs.
pub async fn release_regularly() {
    loop {
        tokio::time::sleep(RELEASE_INTERVAL).await;
        release_free_pages();
    }
}
