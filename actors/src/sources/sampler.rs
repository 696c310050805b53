//! Reads the counters of all links and tells them together with the tunnels they carry.
//!
//! Adds nothing and keeps nothing: a reading is complete, and the next one replaces it.

use crate::store::Store;
use crate::{
    messages::{LinksSampled, offer},
    store::TunnelTable,
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

/// How often the counters are read.
pub const PERIOD: Duration = Duration::from_millis(500);

/// Where the counters come from: the kernel, or a test's own.
pub trait Links: Clone + Unpin + 'static {
    /// Why there are none.
    type Error: Error;

    /// The counters of all slots at one moment.
    fn counters(&self) -> impl Future<Output = Result<BTreeMap<Slot, LinkCounters>, Self::Error>>;
}

impl Links for os::kernel::Kernel {
    type Error = os::kernel::KernelError;

    async fn counters(&self) -> Result<BTreeMap<Slot, LinkCounters>, Self::Error> {
        // One dump of 2 ms at most (503 links): not worth a thread.
        Self::counters(self)
    }
}

/// What the sampler is built from.
#[derive(Clone)]
pub struct SamplerDeps<L> {
    /// The links whose counters are read.
    pub links: L,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<LinksSampled>>,
}

/// The actor that samples.
pub struct Sampler<L> {
    links: L,
    clock: Clock,
    tunnels: Rc<RefCell<TunnelTable>>,
    to: Vec<Recipient<LinksSampled>>,
    /// A read that hangs is waited for, so that reads never pile up.
    reading: bool,
}

impl<L: Links> Sampler<L> {
    /// `tunnels` says what each link carries.
    pub fn new(deps: SamplerDeps<L>) -> Self {
        let SamplerDeps {
            links,
            store,
            readers: to,
        } = deps;
        let Store { clock, tunnels, .. } = store;

        Self {
            links,
            clock,
            tunnels,
            to,
            reading: false,
        }
    }

    fn sample(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.reading, true) {
            return;
        }
        let links = self.links.clone();
        let read = async move { links.counters().await };
        ctx.spawn(
            read.into_actor(self)
                .map(|counters, sampler, _| sampler.tell(counters)),
        );
    }

    fn tell(&mut self, counters: Result<BTreeMap<Slot, LinkCounters>, L::Error>) {
        self.reading = false;
        let counters = match counters {
            Ok(counters) => counters,
            Err(error) => return tracing::warn!(error = %Chain(&error), "no link counters"),
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
        self.to.iter().for_each(|to| offer(to, reading.clone()));
    }
}

impl<L: Links> Actor for Sampler<L> {
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

    impl Links for FakeLinks {
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
    fn check(reading: &LinksSampled, links: &[(Slot, u64)], free: &[Slot]) {
        let seen: Vec<_> = reading
            .links
            .iter()
            .map(|l| (l.tunnel.slot, l.counters.rx_bytes))
            .collect();
        assert_eq!(seen, links);
        assert_eq!(reading.free_slots, free);
    }

    #[actix::test]
    async fn each_reading_has_all_tunnels_and_the_free_slots_of_its_moment() {
        tokio::time::pause();
        let [first, second] = [Slot::Dialling(0), Slot::Dialling(1)];
        let counted = |bytes| LinkCounters {
            rx_bytes: bytes,
            ..LinkCounters::default()
        };
        let links = FakeLinks(Rc::new(RefCell::new(
            [(first, counted(5)), (second, counted(6))].into(),
        )));
        let table = TunnelTable {
            dialling_slots: vec![first, second],
            ..TunnelTable::default()
        };
        let table = Rc::new(RefCell::new(table));
        let (sink, mut told) = mpsc::unbounded_channel();
        let to = vec![FakeSink(sink).start().recipient()];
        let clock = Clock::of(|| Uptime::from_secs(9));
        let store = Store {
            tunnels: Rc::clone(&table),
            ..Store::new(clock, Prefix::new(7, 16).unwrap())
        };
        Sampler::new(SamplerDeps {
            links: links.clone(),
            store,
            readers: to,
        })
        .start();

        check(&told.recv().await.unwrap(), &[], &[first, second]);
        table.borrow_mut().tunnels.insert(second, tunnel(second));
        check(&told.recv().await.unwrap(), &[(second, 6)], &[first]);
        links.0.borrow_mut().insert(second, counted(700));
        check(&told.recv().await.unwrap(), &[(second, 700)], &[first]);
    }
}
