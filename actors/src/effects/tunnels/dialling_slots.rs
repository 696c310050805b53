//! Keeps a few dialling slots free ahead of need.

use super::*;

/// Number of free dialling slots that exist ahead of need.
const FREE_DIALLING_SLOTS: usize = 4;

/// Time after which an order to create dialling slots that had no effect is repeated.
const CREATE_RETRY_DELAY: Duration = Duration::from_secs(30);

impl Tunnels {
    /// Orders more dialling slots if few are free.
    pub(super) fn create_dialling_slots(&mut self) {
        let (existing, free) = {
            let table = self.common.table.borrow();
            (
                table.dialling_slots.len(),
                table.free_slots(self.common.now()).len(),
            )
        };
        let wanted = existing.saturating_add(FREE_DIALLING_SLOTS.saturating_sub(free));
        let limit = self.common.settings.max_dialling_slots;
        let count = u16::try_from(wanted).map_or(limit, |wanted| wanted.min(limit));
        let (last, at) = self.slots_ordered;
        let now = self.common.now();
        let is_repeated = count == last && now.since(at) < CREATE_RETRY_DELAY;
        if usize::from(count) > existing && !is_repeated {
            self.slots_ordered = (count, now);
            self.common.links.order(LinkOrder::Create(count));
        }
    }
}
