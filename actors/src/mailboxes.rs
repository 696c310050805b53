//! Sends readings to actors, and counts by actor those that a full mailbox rejected.
//!
//! An actor is recognised by the identity of its guardian's mailbox, which is that of every recipient made from it.

use actix::{Actor, Addr, Message, Recipient};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is counted for the readings to actors without a guardian.
const UNGUARDED: &str = "unguarded";

/// The mailboxes of guarded actors, and the readings that each actor's mailbox has rejected.
static MAILBOXES: Mutex<Mailboxes> = Mutex::new(Mailboxes {
    actors: BTreeMap::new(),
    dropped: BTreeMap::new(),
});

struct Mailboxes {
    actors: BTreeMap<u64, &'static str>,
    dropped: BTreeMap<&'static str, u64>,
}

fn mailboxes() -> MutexGuard<'static, Mailboxes> {
    MAILBOXES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(mailbox: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one(mailbox)
}

/// Records whose mailbox this is, so that what it rejects is counted for that actor.
pub(crate) fn register<A: Actor>(actor: &'static str, mailbox: &Addr<A>) {
    let mut mailboxes = mailboxes();
    mailboxes.actors.insert(identity(mailbox), actor);
    mailboxes.dropped.entry(actor).or_default();
}

/// Sends a reading, or counts it as dropped if the mailbox is full; the next reading makes up for it.
pub fn offer<M>(to: &Recipient<M>, reading: M)
where
    M: Message<Result = ()> + Send + 'static,
{
    if to.try_send(reading).is_err() {
        let mut mailboxes = mailboxes();
        let actor = mailboxes.actors.get(&identity(to)).copied();
        let dropped = mailboxes.dropped.entry(actor.unwrap_or(UNGUARDED));
        let dropped = dropped.or_default();
        *dropped = dropped.saturating_add(1);
    }
}

/// Returns how many readings each actor has not got since the start because its mailbox was full.
pub fn dropped_readings() -> BTreeMap<&'static str, u64> {
    let mut dropped = mailboxes().dropped.clone();
    dropped.entry(UNGUARDED).or_default();
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guardian::guard;
    use actix::{Context, Handler};

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Reading;

    /// An actor with room for one reading.
    struct FakeReader;

    impl Actor for FakeReader {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(1);
        }
    }

    impl Handler<Reading> for FakeReader {
        type Result = ();

        fn handle(&mut self, Reading: Reading, _: &mut Self::Context) {}
    }

    #[actix::test]
    async fn a_rejected_reading_is_counted_for_the_actor_whose_mailbox_is_full() {
        let full = guard("test_full", None, (), |()| FakeReader);
        let _idle = guard("test_idle", None, (), |()| FakeReader);
        // actix's mailboxes have room for 16 messages, and one more for each sender.
        let recipient: Recipient<Reading> = full.recipient();
        for _ in 0..40 {
            offer(&recipient, Reading);
        }
        let dropped = dropped_readings();
        assert!(dropped["test_full"] >= 20, "{dropped:?}");
        assert_eq!(dropped["test_idle"], 0);
    }
}
