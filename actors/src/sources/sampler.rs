//! Reads the byte counters of all links, and reports them together with the tunnels on those links.
//!
//! A reading is complete, and the next one replaces it: the actor keeps no history.

use crate::{
    mailboxes::offer,
    messages::LinksSampled,
    store::{Store, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use os::clock::Clock;
use policies::{
    names::Slot,
    observation::{LinkCounters, LinkReading},
};
use std::{
    cell::RefCell, collections::BTreeMap, error::Error, future::Future, rc::Rc, time::Duration,
};
use wire::errors::Chain;

/// Interval between two readings of the counters.
pub const PERIOD: Duration = Duration::from_millis(500);

/// A source of link counters: the kernel, or a fake in tests.
pub trait LinkCounterReader: Clone + Unpin + 'static {
    /// The error when counters cannot be read.
    type Error: Error;

    /// Reads the counters of all slots at one moment.
    fn counters(&self) -> impl Future<Output = Result<BTreeMap<Slot, LinkCounters>, Self::Error>>;
}

impl LinkCounterReader for os::kernel::Kernel {
    type Error = os::kernel::KernelError;

    async fn counters(&self) -> Result<BTreeMap<Slot, LinkCounters>, Self::Error> {
        // The dump takes at most 2 ms (503 links, measured), so it needs no thread of its own.
        Self::counters(self)
    }
}

/// The dependencies of the sampler.
#[derive(Clone)]
pub struct SamplerDeps<L> {
    /// The links whose counters are read.
    pub links: L,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<LinksSampled>>,
}

/// The actor that reads link counters.
pub struct Sampler<L> {
    links: L,
    clock: Clock,
    tunnels: Rc<RefCell<TunnelTable>>,
    readers: Vec<Recipient<LinksSampled>>,
    /// True while a read is in flight. A read that hangs delays the next, so that reads never pile up.
    is_reading: bool,
}

impl<L: LinkCounterReader> Sampler<L> {
    /// Builds the actor; it reads at once when started.
    pub fn new(deps: SamplerDeps<L>) -> Self {
        let SamplerDeps {
            links,
            store,
            readers,
        } = deps;
        let Store { clock, tunnels, .. } = store;
        Self {
            links,
            clock,
            tunnels,
            readers,
            is_reading: false,
        }
    }

    fn sample(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_reading, true) {
            return;
        }
        let links = self.links.clone();
        let read = async move { links.counters().await };
        ctx.spawn(
            read.into_actor(self)
                .map(|counters, sampler, _| sampler.report(counters)),
        );
    }

    fn report(&mut self, counters: Result<BTreeMap<Slot, LinkCounters>, L::Error>) {
        self.is_reading = false;
        let counters = match counters {
            Ok(counters) => counters,
            Err(error) => {
                return tracing::warn!(error = %Chain(&error), "cannot read link counters; rates and probes wait for the next reading");
            }
        };
        let at = self.clock.now();
        let table = self.tunnels.borrow();
        let links = table.tunnels.values().filter_map(|tunnel| {
            let counters = *counters.get(&tunnel.slot)?;
            Some(LinkReading {
                tunnel: tunnel.clone(),
                counters,
            })
        });
        let reading = LinksSampled {
            at,
            links: links.collect(),
            free_slots: table.free_slots(at),
            was_reached: table.was_reached,
        };
        for reader in &self.readers {
            offer(reader, reading.clone());
        }
    }
}

impl<L: LinkCounterReader> Actor for Sampler<L> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sample(ctx);
        ctx.run_interval(PERIOD, Self::sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::Handler;
    use policies::{
        names::Prefix,
        observation::{Phase, TunnelReading},
        units::Uptime,
    };
    use std::convert::Infallible;
    use tokio::sync::mpsc;

    #[derive(Clone)]
    struct FakeLinks(Rc<RefCell<BTreeMap<Slot, LinkCounters>>>);

    impl LinkCounterReader for FakeLinks {
        type Error = Infallible;

        async fn counters(&self) -> Result<BTreeMap<Slot, LinkCounters>, Infallible> {
            Ok(self.0.borrow().clone())
        }
    }

    struct FakeSink(mpsc::UnboundedSender<LinksSampled>);

    impl Actor for FakeSink {
        type Context = Context<Self>;
    }

    impl Handler<LinksSampled> for FakeSink {
        type Result = ();

        fn handle(&mut self, reading: LinksSampled, _: &mut Self::Context) {
            let _ = self.0.send(reading);
        }
    }

    fn tunnel(slot: Slot) -> TunnelReading {
        let peer = Prefix::new(7, 16).unwrap();
        let since = Uptime::from_secs(1);
        TunnelReading {
            slot,
            peer,
            phase: Phase::Up,
            since,
            up_since: Some(since),
            endpoint: None,
        }
    }

    #[track_caller]
    fn check(reading: &LinksSampled, links: &[(Slot, u64)], free_slots: &[Slot]) {
        let rx_bytes: Vec<_> = reading
            .links
            .iter()
            .map(|link| (link.tunnel.slot, link.counters.rx_bytes))
            .collect();
        assert_eq!(rx_bytes, links);
        assert_eq!(reading.free_slots, free_slots);
    }

    #[actix::test]
    async fn each_reading_lists_all_tunnels_and_free_slots_at_that_moment() {
        tokio::time::pause();
        let [first, second] = [Slot::Dialling(0), Slot::Dialling(1)];
        let received = |bytes| LinkCounters {
            rx_bytes: bytes,
            ..LinkCounters::default()
        };
        let links = FakeLinks(Rc::new(RefCell::new(
            [(first, received(5)), (second, received(6))].into(),
        )));
        let table = TunnelTable {
            dialling_slots: vec![first, second],
            ..TunnelTable::default()
        };
        let table = Rc::new(RefCell::new(table));
        let (sink, mut readings) = mpsc::unbounded_channel();
        let readers = vec![FakeSink(sink).start().recipient()];
        let clock = Clock::from_fn(|| Uptime::from_secs(9));
        let store = Store {
            tunnels: Rc::clone(&table),
            ..Store::new(clock, Prefix::new(7, 16).unwrap())
        };
        Sampler::new(SamplerDeps {
            links: links.clone(),
            store,
            readers,
        })
        .start();

        check(&readings.recv().await.unwrap(), &[], &[first, second]);
        table.borrow_mut().tunnels.insert(second, tunnel(second));
        check(&readings.recv().await.unwrap(), &[(second, 6)], &[first]);
        links.0.borrow_mut().insert(second, received(700));
        check(&readings.recv().await.unwrap(), &[(second, 700)], &[first]);
    }
}
