//! The queue between child processes and the actor that supervises them.
//!
//! Children outlive that actor. While it is restarted, the events of its children wait in this queue, and are
//! then delivered in order.

use super::{ChildEvent, Happened};
use std::{cell::RefCell, collections::VecDeque, fmt, rc::Rc};

/// Maximum number of events that wait while there is no listener. Beyond it, log lines are dropped first,
/// then new events. It is ample, since an actor is restarted within a second.
const MAX_WAITING_EVENTS: usize = 4096;

/// A receiver of events, such as an actor's mailbox.
pub trait EventListener {
    /// Returns whether the receiver still exists.
    fn is_connected(&self) -> bool;
    /// Delivers an event without waiting.
    fn deliver(&self, event: ChildEvent);
}

/// A stable address for the events of children. Clones share one queue.
#[derive(Clone, Default)]
pub struct ChildEvents(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    listener: Option<Box<dyn EventListener>>,
    waiting: VecDeque<ChildEvent>,
}

impl ChildEvents {
    /// Delivers all events to `listener` from now on, beginning with those that waited.
    pub fn attach(&self, listener: Box<dyn EventListener>) {
        let mut queue = self.0.borrow_mut();
        for event in queue.waiting.drain(..) {
            listener.deliver(event);
        }
        queue.listener = Some(listener);
    }

    /// Delivers an event to the listener, or keeps it until there is one.
    pub fn send(&self, event: ChildEvent) {
        let mut queue = self.0.borrow_mut();
        match &queue.listener {
            Some(listener) if listener.is_connected() => listener.deliver(event),
            Some(_) | None => {
                if queue.waiting.len() >= MAX_WAITING_EVENTS {
                    queue
                        .waiting
                        .retain(|event| !matches!(event.happened, Happened::Logged(_)));
                }
                if queue.waiting.len() < MAX_WAITING_EVENTS {
                    queue.waiting.push_back(event);
                }
            }
        }
    }
}

impl fmt::Debug for ChildEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildEvents")
    }
}
