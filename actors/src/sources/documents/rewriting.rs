//! Writes a document to disk that could not be written when it was accepted, such as on a full disk.

use super::*;

/// Interval at which an unwritten document is written again.
const REWRITE_INTERVAL: Duration = Duration::from_secs(10);

impl Documents {
    /// Ends a write, and verifies the documents that came meanwhile.
    pub(super) fn finish_write(&mut self, ctx: &mut Context<Self>) {
        self.intake.on_write_finished();
        while let Some((document, from)) = self.intake.take_next() {
            self.verify_document(document, from, ctx);
        }
    }

    /// Notes that the current document of a kind is not on disk, and writes it again every [`REWRITE_INTERVAL`].
    pub(super) fn write_again_later(&mut self, kind: DocumentKind, ctx: &mut Context<Self>) {
        if self.unwritten.insert(kind) {
            Self::schedule_rewrite(kind, ctx);
        }
    }

    fn schedule_rewrite(kind: DocumentKind, ctx: &mut Context<Self>) {
        ctx.run_later(REWRITE_INTERVAL, move |documents, ctx| {
            documents.write_again(kind, ctx)
        });
    }

    fn write_again(&mut self, kind: DocumentKind, ctx: &mut Context<Self>) {
        if !self.unwritten.contains(&kind) {
            return;
        }
        // Two writes of one kind at the same time could end in the wrong order.
        if !self.intake.is_idle() {
            return Self::schedule_rewrite(kind, ctx);
        }
        self.intake.on_write_started();
        let (files, current) = (self.settings.files.clone(), self.documents.load_full());
        let write = tokio::task::spawn_blocking(move || files.write(kind, &current));
        ctx.spawn(write.into_actor(self).map(move |result, documents, ctx| {
            if matches!(result, Ok(Ok(()))) {
                documents.unwritten.remove(&kind);
                tracing::info!(document = ?kind, "the signed document is on disk now");
            } else {
                Self::schedule_rewrite(kind, ctx);
            }
            documents.finish_write(ctx);
        }));
    }
}
