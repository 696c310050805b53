//! Feeds the service with calls, one after the other, on a thread of its own, and answers each
//! when its result is on disk.
//!
//! Calls that wait are carried out and written together, so that one fsync serves a whole batch.

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

/// Most calls that may wait; further callers get the error that the registry is busy.
const MAX_WAITING: usize = 1024;

/// Most work in one batch.
const MAX_TOGETHER: usize = 128;

/// Sends an answer, once it is known whether it is on the disk.
type Finish = Box<dyn FnOnce(bool) + Send>;
/// The second value is false if the service failed; then nothing of the batch is stored.
type Job = Box<dyn FnOnce(&mut RegistryService) -> (Finish, bool) + Send>;

/// The entrance of the queue.
#[derive(Clone)]
pub(crate) struct Queue {
    jobs: SyncSender<Job>,
    news: watch::Receiver<Versions>,
    done: Arc<Done>,
}

/// The counts since the start.
#[derive(Default)]
struct Done {
    jobs: AtomicU64,
    batches: AtomicU64,
}

/// An error without a cause of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Because(&'static str);

fn lost(why: &'static str) -> ServiceError {
    ServiceError::Failed(Box::new(Because(why)))
}

impl Queue {
    /// Starts a thread that serves calls until the last [`Queue`] is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(service: RegistryService) -> std::io::Result<Self> {
        let news = service.news();
        let (jobs, inbox) = sync_channel(MAX_WAITING);
        let done = Arc::new(Done::default());
        let counted = Arc::clone(&done);
        thread::Builder::new()
            .name("service".into())
            .spawn(move || work(service, &inbox, &counted))?;
        Ok(Self { jobs, news, done })
    }

    /// Has a closure called with the service.
    ///
    /// # Errors
    /// The error of the service, a write that failed, or too many waiting calls.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut RegistryService) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |service| {
            let outcome = work(service);
            let good = !matches!(outcome, Err(ServiceError::Failed(_)));
            let finish = move |written: bool| {
                let outcome = match outcome {
                    Ok(_) if !written => Err(lost("nothing could be written")),
                    outcome => outcome,
                };
                // Who hung up does not want to know.
                let _ = answer.send(outcome);
            };
            (Box::new(finish), good)
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => ServiceError::Busy,
            TrySendError::Disconnected(_) => lost("the service is closed"),
        })?;
        answered
            .await
            .unwrap_or_else(|_| Err(lost("the work broke off")))
    }

    /// How much was done, and in how many transactions.
    pub(crate) fn done(&self) -> (u64, u64) {
        (
            self.done.jobs.load(Ordering::Relaxed),
            self.done.batches.load(Ordering::Relaxed),
        )
    }

    /// Publishes the versions of the documents when they change.
    pub(crate) fn news(&self) -> watch::Receiver<Versions> {
        self.news.clone()
    }
}

fn work(mut service: RegistryService, inbox: &Receiver<Job>, done: &Done) {
    while let Ok(first) = inbox.recv() {
        let batch = std::iter::once(first).chain(inbox.try_iter().take(MAX_TOGETHER - 1));
        let (finishes, written) = match service.begin() {
            Ok(()) => together(&mut service, batch),
            // These callers get the error; nothing of what they wanted was done.
            Err(error) => {
                tracing::error!(error = %wire::errors::Chain(&error), "the registry cannot write");
                batch.for_each(drop);
                (Vec::new(), false)
            }
        };
        done.jobs.fetch_add(
            u64::try_from(finishes.len()).unwrap_or(0),
            Ordering::Relaxed,
        );
        done.batches.fetch_add(1, Ordering::Relaxed);
        finishes.into_iter().for_each(|finish| finish(written));
    }
}

/// Does a batch; whether it is on the disk.
fn together(
    service: &mut RegistryService,
    batch: impl Iterator<Item = Job>,
) -> (Vec<Finish>, bool) {
    let mut finishes = Vec::new();
    let mut whole = true;
    for job in batch {
        // A panic may have left the service in between, so nothing of the batch is stored.
        match catch_unwind(AssertUnwindSafe(|| job(service))) {
            Ok((finish, good)) => {
                finishes.push(finish);
                whole &= good;
            }
            Err(_) => whole = false,
        }
    }
    let written = whole
        && service
            .commit()
            .inspect_err(|error| {
                tracing::error!(error = %wire::errors::Chain(error), "the registry cannot write");
            })
            .is_ok();
    if !written && let Err(error) = service.rollback() {
        tracing::error!(error = %wire::errors::Chain(&error), "the registry cannot go back to its disk");
    }
    (finishes, written)
}
