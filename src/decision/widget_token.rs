//! Widget tokens (spec §2).
use crate::id::ShopId;
/// A verified widget token.
#[derive(Debug, Clone)]
pub struct WidgetToken {
    /// Its shop.
    pub shop: ShopId,
    /// Scopes, space-separated.
    pub scopes: arrayvec::ArrayString<127>,
}
