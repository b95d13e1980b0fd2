//! A world to decide in: the default policies, an identity provider, any number of shops with a
//! key each, and one request for every way a decision can go. Shared by the allocation test and
//! the benches, so that both speak of the same decisions.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own world fails by panicking"
)]

mod provider;
mod shops;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayString;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use latchkey::clock::{Monotonic, Now, Timestamp};
use latchkey::decision::policy::JwtAlgorithm;
use latchkey::decision::principal::Principal;
use latchkey::decision::request::RequestView;
use latchkey::decision::widget_token::{self, SigningKey, WidgetToken};
use latchkey::decision::{Context, Decision, Facts as _, Round, evaluate};
use latchkey::id::{Name, TokenId};
use latchkey::limiter::Limiter;
use latchkey::secret::{Pepper, SecretBytes};
use latchkey::snapshot::Snapshot;
use latchkey::store::SigningKeyRecord;
use latchkey::verified_tokens::VerifiedTokenCache;

use self::provider::Provider;
use self::shops::{api_key, api_key_text, shop};

/// When everything happens.
const NOW: Timestamp = Timestamp::from_unix_s(1_800_000_000);

/// Each algorithm, and the names of its cases: a token never seen, and one that was verified.
const ALGORITHMS: [(JwtAlgorithm, &str, &str); 6] = [
    (JwtAlgorithm::RS256, "jwt/cold/RS256", "jwt/warm/RS256"),
    (JwtAlgorithm::PS256, "jwt/cold/PS256", "jwt/warm/PS256"),
    (JwtAlgorithm::ES256, "jwt/cold/ES256", "jwt/warm/ES256"),
    (JwtAlgorithm::ES384, "jwt/cold/ES384", "jwt/warm/ES384"),
    (JwtAlgorithm::EdDSA, "jwt/cold/EdDSA", "jwt/warm/EdDSA"),
    (JwtAlgorithm::HS256, "jwt/cold/HS256", "jwt/warm/HS256"),
];

/// A request and what must come of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The mechanism that admits it, or the code that refuses it.
    pub(crate) expected: &'static str,
    path: &'static str,
    headers: HeaderMap,
}

/// State and requests.
pub(crate) struct World {
    snapshot: Snapshot,
    limiter: Limiter,
    verified: VerifiedTokenCache,
    pub(crate) cases: Vec<Case>,
    mono_us: Cell<u64>,
}

impl World {
    /// A world with `shops` shops of one API key each.
    pub(crate) fn new(shops: u32) -> Self {
        let provider = Provider::new();
        let pepper = Pepper::new(&SecretBytes::new([7; 32]));
        let mut policies = shops::policies();
        policies.issuers.extend(provider::issuers());
        let mut snapshot = Snapshot::new(Arc::new(policies), pepper.clone());
        for number in 0..shops {
            snapshot.put_shop(shop(number));
            snapshot.put_api_key(api_key(number, &pepper));
        }
        let signing = SecretBytes::new([9; 32]);
        snapshot.set_signing_keys(&[SigningKeyRecord {
            id: 1,
            key: signing.clone(),
            created_at: NOW,
            retired_at: None,
            last_expiry: NOW,
        }]);
        snapshot.put_key_set(Name::parse("id").unwrap(), provider.key_set());
        let world = Self {
            limiter: Limiter::new(1 << 16, snapshot.policies().limits.len()),
            snapshot,
            verified: VerifiedTokenCache::new(NonZeroUsize::new(1000).unwrap()),
            cases: cases(shops - 1, &provider, &SigningKey::new(1, &signing)),
            mono_us: Cell::new(0),
        };
        for (_, _, warm) in ALGORITHMS {
            world.remember(warm);
        }
        world
    }

    /// Decides `case`, a little later than the one before, so that no quota is ever used up.
    pub(crate) fn decide(&self, case: &Case) -> Decision<'_> {
        self.mono_us.set(self.mono_us.get() + 10);
        let now = Now { unix: NOW, mono: Monotonic::from_us(self.mono_us.get()) };
        let request = RequestView {
            method: &Method::GET,
            path: case.path,
            headers: &case.headers,
            client: [192, 0, 2, 1].into(),
        };
        let context =
            Context { facts: &self.snapshot, limits: &self.limiter, verified: &self.verified };
        evaluate(&request, &context, now, Round::First)
    }

    /// What came of `case`, as [`Case::expected`] says it.
    pub(crate) fn outcome(&self, case: &Case) -> &'static str {
        match self.decide(case) {
            Decision::Admit(admitted) => admitted.principal().mechanism().as_str(),
            Decision::Refuse(refusal) => refusal.denial.code().as_str(),
            Decision::NeedsKey { .. } => "needs a key",
        }
    }

    /// Puts the token of the case `name` into the cache, as the server does after a decision.
    fn remember(&self, name: &str) {
        let case = self.cases.iter().find(|case| case.name == name).unwrap();
        let Decision::Admit(admitted) = self.decide(case) else {
            panic!("{name} is not admitted");
        };
        let Principal::Jwt { token, fresh: true, .. } = admitted.principal() else {
            panic!("{name} is no fresh JWT");
        };
        self.verified.insert(token);
    }
}

/// One case for every way; the shop that calls is number `caller`.
fn cases(caller: u32, provider: &Provider, signing: &SigningKey) -> Vec<Case> {
    let widget_token = WidgetToken {
        id: TokenId(1),
        shop: shop(caller).id,
        scopes: ArrayString::from("search compare").unwrap(),
        issued_at: NOW,
        expires_at: NOW + Duration::from_secs(3600),
    };
    let widget_token = widget_token::sign(&widget_token, signing);
    let altered = widget_token.expose().replacen('A', "B", 1);
    let api_key = api_key_text(caller);
    let unknown = api_key_text(u32::MAX);
    let origin = shop(caller).url.to_string();
    let bearer = |token: String| format!("Bearer {token}");
    let case = |name, expected, path, fields: &[(&'static str, &str)]| Case {
        name,
        expected,
        path,
        headers: headers(fields),
    };
    let search = "/api/search/products";
    let mut cases = vec![
        case(
            "api_key/allowed",
            "shop_api_key",
            "/api/plugin/shops/me/orders",
            &[("x-shop-api-key", &api_key), ("origin", &origin)],
        ),
        case(
            "api_key/unknown",
            "invalid_credential",
            "/api/plugin/shops/me/orders",
            &[("x-shop-api-key", &unknown)],
        ),
        case(
            "api_key/cross_tenant",
            "cross_tenant",
            "/api/plugin/shops/another/orders",
            &[("x-shop-api-key", &api_key)],
        ),
        case(
            "widget_token/allowed",
            "widget_token",
            "/api/widget/search",
            &[("x-widget-token", widget_token.expose()), ("origin", &origin)],
        ),
        case(
            "widget_token/altered",
            "invalid_credential",
            "/api/widget/search",
            &[("x-widget-token", &altered), ("origin", &origin)],
        ),
        case("anonymous", "anonymous", search, &[]),
    ];
    for (algorithm, cold, warm) in ALGORITHMS {
        for name in [cold, warm] {
            let token = bearer(provider.token(algorithm, name));
            cases.push(case(name, "jwt", search, &[("authorization", &token)]));
        }
    }
    cases
}

/// Header fields as they come: the given ones among those that clients send anyway.
fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let usual = [
        ("host", "api.example"),
        ("user-agent", "curl/8.14.1"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("x-request-id", "3f1c0a52"),
    ];
    usual
        .iter()
        .chain(fields)
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}
