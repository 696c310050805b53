//! Reads the main routing table, which has a million routes on a router that knows all networks of the internet.
//!
//! The kernel picks the routes of one protocol by itself. What needs all routes is read again only after a while, which grows with their
//! number, so that the readings take little of a processor.

use super::{Kernel, KernelError};
use crate::clock::runtime_now;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteHeader, RouteMessage, RouteProtocol},
};
use std::time::Duration;
use tokio::time::Instant;

/// Time for which a reading counts, for each route that was read: listing one takes one or two microseconds.
const LIFETIME_PER_ROUTE: Duration = Duration::from_micros(200);

/// What was read from the main table.
#[derive(Debug)]
pub(super) struct Reading<K, T> {
    /// What was asked.
    question: K,
    value: T,
    counts_until: Instant,
}

impl<K: PartialEq, T: Clone> Reading<K, T> {
    fn new(question: K, value: T, routes: u32) -> Self {
        Self {
            question,
            value,
            counts_until: runtime_now() + LIFETIME_PER_ROUTE.saturating_mul(routes),
        }
    }

    /// Returns what was read, if this was asked and the reading still counts.
    fn answer(&self, question: &K) -> Option<T> {
        let counts = self.question == *question && runtime_now() < self.counts_until;
        counts.then(|| self.value.clone())
    }
}

impl Kernel {
    /// Returns the routes of the main table that have this protocol.
    pub(super) async fn main_routes(
        &self,
        family: AddressFamily,
        protocol: RouteProtocol,
    ) -> Result<Vec<RouteMessage>, KernelError> {
        let mut query = RouteMessage::default();
        query.header.table = RouteHeader::RT_TABLE_MAIN;
        query.header.protocol = protocol;
        self.filtered_routes(family, query).await
    }

    /// Answers a question by the last reading that `kept` returns, or by passing each route of these families to `add`.
    pub(super) async fn read_main_table<K: PartialEq, T: Clone + Default>(
        &self,
        families: &[AddressFamily],
        question: K,
        kept: impl Fn(&mut super::State) -> &mut Option<Reading<K, T>>,
        add: impl Fn(&mut T, &RouteMessage),
    ) -> Result<T, KernelError> {
        let known = kept(&mut self.state())
            .as_ref()
            .and_then(|reading| reading.answer(&question));
        if let Some(known) = known {
            return Ok(known);
        }
        let (mut value, mut routes) = (T::default(), 0_u32);
        for family in families {
            self.each_route(*family, RouteHeader::RT_TABLE_MAIN, |route| {
                routes = routes.saturating_add(1);
                add(&mut value, &route);
            })
            .await?;
        }
        *kept(&mut self.state()) = Some(Reading::new(question, value.clone(), routes));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_of_a_large_table_counts_for_a_while() {
        let large = Reading::new(1, "value", 1_000_000);
        assert_eq!(large.answer(&1), Some("value"));
        assert_eq!(large.answer(&2), None);
        assert!(large.counts_until > runtime_now() + Duration::from_secs(190));
        let empty = Reading::new(1, "value", 0);
        assert_eq!(empty.answer(&1), None);
    }
}
