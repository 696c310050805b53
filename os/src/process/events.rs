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

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects what is delivered.
    struct FakeListener(Rc<RefCell<Vec<ChildEvent>>>);

    impl EventListener for FakeListener {
        fn is_connected(&self) -> bool {
            true
        }

        fn deliver(&self, event: ChildEvent) {
            self.0.borrow_mut().push(event);
        }
    }

    /// Sends that many events of each kind while there is no listener, and returns which ones the next listener gets.
    fn delivered(log_lines: usize, exits: usize) -> Vec<Happened> {
        let events = ChildEvents::default();
        let line = std::iter::repeat_n(Happened::Logged(String::new()), log_lines);
        let exit = std::iter::repeat_n(Happened::Exited { code: 0 }, exits);
        for happened in line.chain(exit) {
            events.send(ChildEvent {
                name: "wrn0".to_owned(),
                pid: 7,
                happened,
            });
        }
        let seen = Rc::default();
        events.attach(Box::new(FakeListener(Rc::clone(&seen))));
        let seen = seen.take();
        seen.into_iter().map(|event| event.happened).collect()
    }

    #[test]
    fn a_limited_number_of_events_waits_for_a_listener() {
        assert_eq!(delivered(10, 10).len(), 20);
        assert_eq!(
            delivered(0, 3 * MAX_WAITING_EVENTS).len(),
            MAX_WAITING_EVENTS
        );
    }

    #[test]
    fn log_lines_are_dropped_before_exits() {
        let kept = delivered(MAX_WAITING_EVENTS, 2);
        assert!(matches!(
            kept[..],
            [Happened::Exited { code: 0 }, Happened::Exited { code: 0 }]
        ));
    }
}
