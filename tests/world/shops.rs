//! The default policies, and any number of shops with a key each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use latchkey::clock::Timestamp;
use latchkey::config::{self, ConfigFile, Sources};
use latchkey::decision::origin::Origin;
use latchkey::decision::policy::Policies;
use latchkey::decision::principal::{ApiKey, Shop};
use latchkey::decision::rate_limit::Quota;
use latchkey::id::{KeyId, ShopId};
use latchkey::secret::Pepper;

/// The default policies, with quotas too large to be used up.
pub(crate) fn policies() -> Policies {
    let sources =
        Sources { file: ConfigFile::Absent, environment: BTreeMap::new(), overrides: Vec::new() };
    let config = config::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let mut policies = Policies::clone(&config.policies);
    let ample = Quota::new(Quota::LIMIT_MAX, Duration::from_secs(1)).unwrap();
    policies.limits.iter_mut().for_each(|policy| policy.quota = ample);
    policies.attempts.quota = ample;
    policies
}

pub(crate) fn shop(number: u32) -> Shop {
    Shop {
        id: ShopId::parse(&format!("shop-{number}")).unwrap(),
        enabled: true,
        url: Origin::parse(&format!("https://shop-{number}.example")).unwrap(),
        widget_origins: Vec::new(),
        tokens_valid_from: Timestamp::default(),
        limits: Vec::new(),
    }
}

pub(crate) fn api_key(number: u32, pepper: &Pepper) -> ApiKey {
    ApiKey {
        id: KeyId(number.into()),
        digest: pepper.digest(api_key_text(number).as_bytes()),
        shop: shop(number).id,
        expires_at: None,
        grace_until: None,
        networks: Vec::new(),
        limits: Vec::new(),
        last_used_ms: Arc::default(),
    }
}

pub(crate) fn api_key_text(number: u32) -> String {
    format!("sk_{number:032x}")
}
