//! Runs the service on a thread of its own, one request after the other, and sends each reply after its data is
//! on disk.
//!
//! Waiting requests are carried out in one transaction, so that one fsync serves a whole batch.

use crate::service::{RegistryService, Versions, error::ServiceError};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};
use tokio::sync::{oneshot, watch};

/// Largest number of waiting requests; further ones are rejected as the registry is busy.
const MAX_WAITING: usize = 1024;

/// Largest number of requests in one transaction.
const MAX_BATCH: usize = 128;

/// Sends a reply; the argument is whether the transaction was written.
type SendReply = Box<dyn FnOnce(bool) + Send>;
/// Carries out one request. The second result is false if the service itself failed; then nothing of the batch
/// is stored.
type Job = Box<dyn FnOnce(&mut RegistryService) -> (SendReply, bool) + Send>;

/// Sends requests to the service.
#[derive(Clone)]
pub(crate) struct Queue {
    jobs: SyncSender<Job>,
    versions: watch::Receiver<Versions>,
    done: Arc<Done>,
}

/// Numbers since the start of the registry.
#[derive(Default)]
struct Done {
    submitted: AtomicU64,
    taken: AtomicU64,
    jobs: AtomicU64,
    batches: AtomicU64,
}

/// The work of the service since the start of the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Number of requests that were carried out.
    pub(crate) requests: u64,
    /// Number of transactions in which they were written.
    pub(crate) transactions: u64,
    /// Number of requests that wait now.
    pub(crate) waiting: u64,
}

/// An error of the queue that has no underlying error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct QueueError(&'static str);

fn internal_error(why: &'static str) -> ServiceError {
    ServiceError::Failed(Box::new(QueueError(why)))
}

impl Queue {
    /// Starts the thread, which serves requests until the last [`Queue`] is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(service: RegistryService) -> std::io::Result<Self> {
        let versions = service.versions();
        let (jobs, inbox) = sync_channel(MAX_WAITING);
        let done = Arc::new(Done::default());
        let counted = Arc::clone(&done);
        thread::Builder::new()
            .name("service".into())
            .spawn(move || work(service, &inbox, &counted))?;
        Ok(Self {
            jobs,
            versions,
            done,
        })
    }

    /// Runs a closure on the service's thread, and returns its result when it is on disk.
    ///
    /// # Errors
    /// The closure failed, the transaction could not be written, or too many requests wait.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut RegistryService) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |service| {
            let outcome = work(service);
            let has_succeeded = !matches!(outcome, Err(ServiceError::Failed(_)));
            let send_reply = move |written: bool| {
                let outcome = match outcome {
                    Ok(_) if !written => Err(internal_error("the transaction was not written")),
                    outcome => outcome,
                };
                // The caller may have closed its connection meanwhile.
                let _ = answer.send(outcome);
            };
            (Box::new(send_reply), has_succeeded)
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => ServiceError::Busy,
            TrySendError::Disconnected(_) => internal_error("the service's thread has exited"),
        })?;
        self.done.submitted.fetch_add(1, Ordering::Relaxed);
        answered
            .await
            .unwrap_or_else(|_| Err(internal_error("the request was dropped")))
    }

    /// Returns the work of the service so far.
    pub(crate) fn work(&self) -> Work {
        let taken = self.done.taken.load(Ordering::Relaxed);
        let submitted = self.done.submitted.load(Ordering::Relaxed);
        Work {
            requests: self.done.jobs.load(Ordering::Relaxed),
            transactions: self.done.batches.load(Ordering::Relaxed),
            waiting: submitted.saturating_sub(taken),
        }
    }

    /// Returns a channel that publishes the versions of the documents when they change.
    pub(crate) fn versions(&self) -> watch::Receiver<Versions> {
        self.versions.clone()
    }
}

fn work(mut service: RegistryService, inbox: &Receiver<Job>, done: &Done) {
    while let Ok(first) = inbox.recv() {
        let batch = std::iter::once(first).chain(inbox.try_iter().take(MAX_BATCH - 1));
        let batch = batch.inspect(|_| {
            done.taken.fetch_add(1, Ordering::Relaxed);
        });
        let (replies, written) = match service.begin() {
            Ok(()) => run_batch(&mut service, batch),
            // Dropping the requests makes their callers get an error.
            Err(error) => {
                tracing::error!(
                    error = %wire::errors::Chain(&error),
                    "no transaction can begin; the waiting requests fail with 500"
                );
                batch.for_each(drop);
                (Vec::new(), false)
            }
        };
        done.jobs
            .fetch_add(u64::try_from(replies.len()).unwrap_or(0), Ordering::Relaxed);
        done.batches.fetch_add(1, Ordering::Relaxed);
        replies
            .into_iter()
            .for_each(|send_reply| send_reply(written));
    }
}

/// Carries out a batch in an open transaction. Returns the replies, and whether the transaction was
/// written.
fn run_batch(
    service: &mut RegistryService,
    batch: impl Iterator<Item = Job>,
) -> (Vec<SendReply>, bool) {
    let mut replies = Vec::new();
    let mut all_succeeded = true;
    for job in batch {
        // A panic may leave the service half changed, so nothing of the batch is stored then.
        match catch_unwind(AssertUnwindSafe(|| job(service))) {
            Ok((send_reply, has_succeeded)) => {
                replies.push(send_reply);
                all_succeeded &= has_succeeded;
            }
            Err(_) => all_succeeded = false,
        }
    }
    let written = all_succeeded
        && service
            .commit()
            .inspect_err(|error| {
                tracing::error!(
                    error = %wire::errors::Chain(error),
                    "the transaction cannot be written; its requests fail with 500"
                );
            })
            .is_ok();
    if !written && let Err(error) = service.rollback() {
        tracing::error!(
            error = %wire::errors::Chain(&error),
            "the state on disk cannot be read after a failure; restart the registry"
        );
    }
    (replies, written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::UnixSeconds,
        init::{self, NewNetwork},
        pki::tls::ReloadableTls,
        settings::RegistryPaths,
    };
    use std::path::Path;

    const NOW: UnixSeconds = UnixSeconds(1_795_000_000);

    fn service(folder: &Path) -> RegistryService {
        let paths = RegistryPaths {
            config_dir: folder.join("etc"),
            state_dir: folder.join("state"),
            admin_socket: folder.join("admin.sock"),
        };
        std::fs::create_dir(&paths.state_dir).unwrap();
        let new = NewNetwork {
            network: Some("fd12:3456:789a::/48".parse().unwrap()),
            address: wire::invitation::RegistryAddress::parse("127.0.0.1", 9443).unwrap(),
            prefix_length: 16,
            parameters: policies::parameters::Parameters::default(),
            certificate_life_s: 30 * 86_400,
            announcement_ttl_s: 900,
            grace_s: 10 * 86_400,
            private_endpoints: false,
            offline_root: None,
            own_ca: None,
        };
        init::init(&paths, &new, NOW).unwrap();
        let opened = init::open(&paths).unwrap();
        let tls = ReloadableTls::new(&opened.authorities).unwrap();
        RegistryService::new(opened, tls, Arc::new(|| NOW)).unwrap()
    }

    #[tokio::test]
    async fn new_versions_are_published_after_the_commit_and_not_at_all_if_it_fails() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::start(service(folder.path())).unwrap();
        let mut versions = queue.versions();
        let before = *versions.borrow_and_update();
        for (fails, expected) in [(true, 0), (false, 1)] {
            let watched = versions.clone();
            let publish = move |service: &mut RegistryService| {
                service.publish_revocations()?;
                assert!(
                    !watched.has_changed().unwrap(),
                    "published before the commit"
                );
                if fails {
                    return Err(internal_error("the disk is full"));
                }
                Ok(())
            };
            assert_eq!(queue.ask(publish).await.is_err(), fails);
            assert_eq!(versions.has_changed().unwrap(), !fails);
            let after = *versions.borrow_and_update();
            assert_eq!(after.revocations, before.revocations + expected);
        }
    }
}
