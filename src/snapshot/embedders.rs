//! On which pages some shop's widget may run: an index of what the enabled shops allow, so that a
//! browser's preflight, which names no shop, is answered without a look at every shop.
//!
//! Holds each pattern once, with the number of times it is allowed: about 140 bytes for each, so
//! that 100,000 shops cost 14 MB. What a pattern matches is
//! [`OriginPattern`]'s to say; the index only narrows the choice.

use std::hash::RandomState;

use super::sharded::ShardedMap;
use crate::decision::origin::{OriginPattern, OriginRef, Rules, find_pattern, pattern_key};
use crate::decision::principal::Shop;

/// The patterns of all enabled shops.
#[derive(Debug, Clone)]
pub(super) struct Embedders {
    hasher: RandomState,
    /// By [`pattern_key`]: patterns of one host and port, at most a handful (with and without a
    /// scheme, with and without `www.`), unless hashes collide.
    patterns: ShardedMap<u64, [Counted]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    pattern: OriginPattern,
    /// How often enabled shops name it; never zero.
    count: u32,
}

impl Embedders {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), patterns: ShardedMap::new() }
    }

    /// Takes in what `shop` allows.
    pub(super) fn add(&mut self, shop: &Shop) {
        for pattern in patterns(shop) {
            self.change(&pattern, |known| Some(known.map_or(1, |count| count.saturating_add(1))));
        }
    }

    /// Takes out what [`Embedders::add`] took in for the same `shop`.
    pub(super) fn remove(&mut self, shop: &Shop) {
        for pattern in patterns(shop) {
            self.change(&pattern, |known| known?.checked_sub(1).filter(|count| *count > 0));
        }
    }

    /// Whether some enabled shop's widget may run on `page`.
    pub(super) fn allow(&self, page: OriginRef<'_>, rules: Rules) -> bool {
        find_pattern(page, &self.hasher, |key| {
            let known = self.patterns.get(&key).unwrap_or_default();
            known.iter().any(|known| known.pattern.matches(page, rules))
        })
    }

    /// Replaces the count of `pattern`; `None` stands for none.
    fn change(&mut self, pattern: &OriginPattern, change: impl Fn(Option<u32>) -> Option<u32>) {
        let key = pattern_key(pattern, &self.hasher);
        let known = self.patterns.get(&key).unwrap_or_default();
        let (same, mut next): (Vec<_>, Vec<_>) =
            known.iter().cloned().partition(|known| known.pattern == *pattern);
        let count = change(same.first().map(|known| known.count));
        next.extend(count.map(|count| Counted { pattern: pattern.clone(), count }));
        if next.is_empty() {
            self.patterns.remove(&key);
        } else {
            self.patterns.insert(key, next);
        }
    }
}

/// Where `shop` lets its widget run; nowhere if it is disabled.
fn patterns(shop: &Shop) -> impl Iterator<Item = OriginPattern> {
    let own = shop.enabled.then(|| OriginPattern::from(&shop.url));
    let extra = shop.widget_origins.iter().filter(|_| shop.enabled).cloned();
    own.into_iter().chain(extra)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use crate::clock::Timestamp;
    use crate::config::{self, ConfigFile, Sources};
    use crate::decision::cors::WidgetPages as _;
    use crate::decision::origin::{Origin, OriginPattern, OriginRef, Rules, may_embed};
    use crate::decision::principal::Shop;
    use crate::id::ShopId;
    use crate::secret::{Pepper, SecretBytes};
    use crate::snapshot::Snapshot;

    const HOSTS: [&str; 10] = [
        "shop.example",
        "www.shop.example",
        "www.www.shop.example",
        "a.shop.example",
        "b.a.SHOP.example",
        "xshop.example",
        "shop.example.org",
        "localhost",
        "127.0.0.1",
        "[::1]",
    ];
    const PORTS: [&str; 5] = ["", ":80", ":443", ":8443", ":81"];

    fn snapshot(rules: Rules) -> Snapshot {
        let none = BTreeMap::new();
        let sources =
            Sources { file: ConfigFile::Absent, environment: none, overrides: Vec::new() };
        let mut policies = (*config::load(&sources).unwrap().policies).clone();
        policies.origin = rules;
        Snapshot::new(Arc::new(policies), Pepper::new(&SecretBytes::new([1; 32])))
    }

    fn origin() -> impl Strategy<Value = String> {
        let scheme = prop::sample::select(&["http://", "https://"][..]);
        let host = prop::sample::select(&HOSTS[..]);
        let port = prop::sample::select(&PORTS[..]);
        (scheme, host, port).prop_map(|(scheme, host, port)| format!("{scheme}{host}{port}"))
    }

    fn pattern() -> impl Strategy<Value = OriginPattern> {
        let scheme = prop::sample::select(&["", "http://", "https://"][..]);
        let star = prop::sample::select(&["", "*."][..]);
        let host = prop::sample::select(&HOSTS[..]);
        let port = prop::sample::select(&PORTS[..]);
        (scheme, star, host, port).prop_filter_map("a pattern", |(scheme, star, host, port)| {
            OriginPattern::parse(&format!("{scheme}{star}{host}{port}")).ok()
        })
    }

    /// One of four shops is created, replaced, or (`None`) deleted.
    fn change() -> impl Strategy<Value = (usize, Option<Shop>)> {
        let extra = prop::collection::vec(pattern(), 0..3);
        let fields = prop::option::weighted(0.8, (any::<bool>(), origin(), extra));
        (0..4_usize, fields).prop_map(|(place, fields)| {
            let id = ShopId::parse(&format!("shop-{place}")).unwrap();
            let shop = fields.map(|(enabled, url, widget_origins)| Shop {
                id,
                enabled,
                url: Origin::parse(&url).unwrap(),
                widget_origins,
                tokens_valid_from: Timestamp::default(),
                limits: Vec::new(),
            });
            (place, shop)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_index_allows_what_a_look_at_every_shop_allows(
            www_alias: bool,
            ignore_scheme: bool,
            changes in prop::collection::vec(change(), 1..12),
            pages in prop::collection::vec(origin(), 1..60),
        ) {
            let rules = Rules { www_alias, ignore_scheme };
            let mut snapshot = snapshot(rules);
            let mut shops: [Option<Shop>; 4] = [const { None }; 4];
            for (place, shop) in changes {
                let id = ShopId::parse(&format!("shop-{place}")).unwrap();
                if shop.is_none() {
                    snapshot.remove_shop(&id);
                }
                shop.clone().into_iter().for_each(|shop| snapshot.put_shop(shop));
                shops[place] = shop;
                for page in &pages {
                    let parsed = OriginRef::parse_origin(page).unwrap();
                    let naive = shops.iter().flatten().any(|shop| {
                        shop.enabled && may_embed(parsed, &shop.url, &shop.widget_origins, rules)
                    });
                    let got = snapshot.some_shop_embeds_on(parsed);
                    prop_assert_eq!(got, naive, "{} of {:?}", page, shops);
                }
            }
            for id in 0..4 {
                snapshot.remove_shop(&ShopId::parse(&format!("shop-{id}")).unwrap());
            }
            prop_assert_eq!(snapshot.embedders.patterns.len(), 0, "what was taken in is out again");
        }
    }
}
