//! Where the events of children go, whoever listens at the moment.
//!
//! Children outlive the actor that looks after them. While that actor is being made anew, what
//! happens to its children waits here, and is handed over in order.

use super::{ChildEvent, Happened};
use actix::Recipient;
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

/// Events kept while nobody listens; beyond it log lines are forgotten, and then nothing more is
/// taken: a guardian makes its actor anew within a second.
const KEPT: usize = 4096;

/// A stable place to send to.
#[derive(Clone, Default)]
pub struct Outlet(Rc<RefCell<Waiting>>);

#[derive(Default)]
struct Waiting {
    listener: Option<Recipient<ChildEvent>>,
    events: VecDeque<ChildEvent>,
}

impl Outlet {
    /// From now on events go to `listener`, beginning with those that waited.
    pub fn attach(&self, listener: Recipient<ChildEvent>) {
        let mut waiting = self.0.borrow_mut();
        waiting
            .events
            .drain(..)
            .for_each(|event| listener.do_send(event));
        waiting.listener = Some(listener);
    }

    /// Passes an event on, or keeps it.
    pub fn tell(&self, event: ChildEvent) {
        let mut waiting = self.0.borrow_mut();
        match &waiting.listener {
            Some(listener) if listener.connected() => listener.do_send(event),
            Some(_) | None => {
                if waiting.events.len() >= KEPT {
                    waiting
                        .events
                        .retain(|event| !matches!(event.happened, Happened::Logged(_)));
                }
                if waiting.events.len() < KEPT {
                    waiting.events.push_back(event);
                }
            }
        }
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlet")
    }
}
