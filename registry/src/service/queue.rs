//! Gives the desk its work one after the other on a thread of its own, and answers when it is on
//! the disk.
//!
//! What waits is done together and written together: one fsync serves all answers of a batch.

use crate::service::{Desk, Versions, error::Refusal};
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

/// Most work that waits; who comes then is told that we are busy.
const MOST_WAITING: usize = 1024;

/// Most work in one batch.
const MOST_TOGETHER: usize = 128;

/// Sends an answer, once it is known whether it is on the disk.
type Finish = Box<dyn FnOnce(bool) + Send>;
/// The second is false where the desk failed: then nothing of the batch is kept.
type Job = Box<dyn FnOnce(&mut Desk) -> (Finish, bool) + Send>;

/// Where work is handed in.
#[derive(Clone)]
pub(crate) struct Queue {
    jobs: SyncSender<Job>,
    news: watch::Receiver<Versions>,
    done: Arc<Done>,
}

/// What was done since the start.
#[derive(Default)]
struct Done {
    jobs: AtomicU64,
    batches: AtomicU64,
}

/// An error without a cause of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Because(&'static str);

fn lost(why: &'static str) -> Refusal {
    Refusal::Failed(Box::new(Because(why)))
}

impl Queue {
    /// Lets a thread work at the desk until the last [`Queue`] is gone.
    ///
    /// # Errors
    /// The thread cannot be had.
    pub(crate) fn start(desk: Desk) -> std::io::Result<Self> {
        let news = desk.news();
        let (jobs, inbox) = sync_channel(MOST_WAITING);
        let done = Arc::new(Done::default());
        let counted = Arc::clone(&done);
        thread::Builder::new()
            .name("desk".into())
            .spawn(move || work(desk, &inbox, &counted))?;
        Ok(Self { jobs, news, done })
    }

    /// Has something done at the desk.
    ///
    /// # Errors
    /// The desk's, or it could not be written, or too much waits.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |desk| {
            let outcome = work(desk);
            let good = !matches!(outcome, Err(Refusal::Failed(_)));
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
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Disconnected(_) => lost("the desk is closed"),
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

    /// Tells the versions of the documents when they change.
    pub(crate) fn news(&self) -> watch::Receiver<Versions> {
        self.news.clone()
    }
}

fn work(mut desk: Desk, inbox: &Receiver<Job>, done: &Done) {
    while let Ok(first) = inbox.recv() {
        let batch = std::iter::once(first).chain(inbox.try_iter().take(MOST_TOGETHER - 1));
        let (finishes, written) = match desk.begin() {
            Ok(()) => together(&mut desk, batch),
            // They shall be told; what they wanted is not done.
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
fn together(desk: &mut Desk, batch: impl Iterator<Item = Job>) -> (Vec<Finish>, bool) {
    let mut finishes = Vec::new();
    let mut whole = true;
    for job in batch {
        // A panic may have left the desk halfway: then nothing of the batch is kept.
        match catch_unwind(AssertUnwindSafe(|| job(desk))) {
            Ok((finish, good)) => {
                finishes.push(finish);
                whole &= good;
            }
            Err(_) => whole = false,
        }
    }
    let written = whole
        && desk
            .commit()
            .inspect_err(|error| {
                tracing::error!(error = %wire::errors::Chain(error), "the registry cannot write");
            })
            .is_ok();
    if !written && let Err(error) = desk.forget() {
        tracing::error!(error = %wire::errors::Chain(&error), "the registry cannot go back to its disk");
    }
    (finishes, written)
}
