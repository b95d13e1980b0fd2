//! Which pages' scripts may call a route and read its answers.

use super::origin::OriginRef;

/// Where the widgets of all shops may run; the snapshot knows.
pub trait WidgetPages {
    /// Whether some enabled shop allows its widget on `page` (spec §2.5), loopback rule apart.
    fn some_shop_embeds_on(&self, page: OriginRef<'_>) -> bool;
}
