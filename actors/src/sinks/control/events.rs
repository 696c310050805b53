//! Answers requests for events, at once or when the next one has happened.

use super::{Caller, answer, problem};
use crate::sinks::telemetry::Published;
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use os::clock::Clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use wire::control::{EventQuery, MAX_EVENT_WAIT_S};

/// Maximum number of requests that wait at the same time, so that connections are left for others.
const MAX_WAITING: usize = 16;

/// Interval at which a waiting request looks for new events.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The number of requests that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingRequests(Arc<AtomicUsize>);

/// The place of one waiting request, which is free again once this is dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl WaitingRequests {
    pub(super) fn take(&self) -> Option<Place> {
        let waiting = self.0.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.0.clone());
        (waiting < MAX_WAITING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers `GET /v1/events?after=NUMBER&wait_seconds=SECONDS`.
pub(super) async fn events(
    request: HttpRequest,
    query: web::Query<EventQuery>,
    published: web::Data<Published>,
    clock: web::Data<Clock>,
    waiting: web::Data<WaitingRequests>,
) -> HttpResponse {
    if query.wait_seconds > 0 && Caller::can_read(&request) {
        let Some(_place) = waiting.take() else {
            let title = "too many requests wait for events: try again later";
            return problem(StatusCode::SERVICE_UNAVAILABLE, title);
        };
        wait_for_events(&query, &published).await;
    }
    answer(&request, &published, &clock, |view| {
        view.events(query.after)
    })
}

/// Waits until there is an event that was asked for, or the time is over.
async fn wait_for_events(query: &EventQuery, published: &Published) {
    let time = Duration::from_secs(query.wait_seconds.min(MAX_EVENT_WAIT_S));
    let arrival = async {
        while published.load().events.newest() == query.after {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    // Without a new event in time, the document is empty.
    let _ = tokio::time::timeout(time, arrival).await;
}
