//! A world to decide in: the default policies, an identity provider, any number of shops with a
//! key each, and one request for every way a decision can go. Shared by the allocation test and
//! the benches, so that both speak of the same decisions.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own world fails by panicking"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayString;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use latchkey::clock::{Monotonic, Now, Timestamp};
use latchkey::config::{self, ConfigFile, Sources};
use latchkey::decision::jwt::KeySet;
use latchkey::decision::origin::Origin;
use latchkey::decision::policy::{Issuer, JwtAlgorithm, Policies};
use latchkey::decision::principal::{ApiKey, Principal, Shop};
use latchkey::decision::rate_limit::Quota;
use latchkey::decision::request::RequestView;
use latchkey::decision::widget_token::{self, SigningKey, WidgetToken};
use latchkey::decision::{Context, Decision, Facts as _, Round, evaluate};
use latchkey::id::{KeyId, Name, ShopId, TokenId};
use latchkey::limiter::Limiter;
use latchkey::secret::{Pepper, SecretBytes};
use latchkey::snapshot::Snapshot;
use latchkey::store::SigningKeyRecord;
use latchkey::verified_tokens::VerifiedTokenCache;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::json;

/// When everything happens.
const NOW: Timestamp = Timestamp::from_unix_s(1_800_000_000);
const ISSUER: &str = "https://id.example";

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
        let mut snapshot = Snapshot::new(Arc::new(policies()), pepper.clone());
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
        snapshot.put_key_set(name("id"), provider.key_set());
        let world = Self {
            limiter: Limiter::new(1 << 16, snapshot.policies().limits.len()),
            snapshot,
            verified: VerifiedTokenCache::new(NonZeroUsize::new(1000).unwrap()),
            cases: cases(shops - 1, &provider, &SigningKey::new(1, &signing)),
            mono_us: Cell::new(0),
        };
        world.remember("jwt/cached");
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

/// The default policies, one issuer more, and quotas too large to be used up.
fn policies() -> Policies {
    let sources =
        Sources { file: ConfigFile::Absent, environment: BTreeMap::new(), overrides: Vec::new() };
    let config = config::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let mut policies = Policies::clone(&config.policies);
    let ample = Quota::new(Quota::LIMIT_MAX, Duration::from_secs(1)).unwrap();
    policies.limits.iter_mut().for_each(|policy| policy.quota = ample);
    policies.attempts.quota = ample;
    policies.issuers.push(Issuer {
        name: name("id"),
        iss: ISSUER.into(),
        audiences: vec!["search".into()],
        algorithms: vec![JwtAlgorithm::ES256, JwtAlgorithm::RS256, JwtAlgorithm::EdDSA],
        secret: None,
        leeway: Duration::from_secs(60),
        required_claims: Vec::new(),
        typ: Vec::new(),
        scope_claim: vec!["scope".into()],
        shop_claim: None,
        stale_max: Duration::from_secs(3600),
    });
    policies
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn shop(number: u32) -> Shop {
    Shop {
        id: ShopId::parse(&format!("shop-{number}")).unwrap(),
        enabled: true,
        url: Origin::parse(&format!("https://shop-{number}.example")).unwrap(),
        widget_origins: Vec::new(),
        tokens_valid_from: Timestamp::default(),
        limits: Vec::new(),
    }
}

fn api_key(number: u32, pepper: &Pepper) -> ApiKey {
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

fn api_key_text(number: u32) -> String {
    format!("sk_{number:032x}")
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
    vec![
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
            "jwt/cached",
            "jwt",
            search,
            &[("authorization", &bearer(provider.es256("the cached one")))],
        ),
        case("jwt/cold/ES256", "jwt", search, &[("authorization", &bearer(provider.es256("e")))]),
        case("jwt/cold/RS256", "jwt", search, &[("authorization", &bearer(provider.rs256("r")))]),
        case("jwt/cold/EdDSA", "jwt", search, &[("authorization", &bearer(provider.eddsa("d")))]),
        case("anonymous", "anonymous", search, &[]),
    ]
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

/// An identity provider with a key of each kind.
struct Provider {
    ecdsa: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ecdsa = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            ecdsa: EcdsaKeyPair::from_pkcs8(algorithm, ecdsa.as_ref(), &random).unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            // ring does not make RSA keys; this one protects nothing.
            rsa: RsaKeyPair::from_pkcs8(include_bytes!("rsa_2048.pk8")).unwrap(),
        }
    }

    fn key_set(&self) -> KeySet {
        let (x, y) = self.ecdsa.public_key().as_ref()[1..].split_at(32);
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let set = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "ES256", "x": text(x), "y": text(y)},
            {"kty": "RSA", "kid": "RS256", "n": text(&rsa.n), "e": text(&rsa.e)},
            {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA",
             "x": text(self.ed25519.public_key().as_ref())},
        ]});
        KeySet::parse(&set.to_string(), NOW).unwrap()
    }

    fn es256(&self, subject: &str) -> String {
        let signature = |message: &[u8]| self.ecdsa.sign(&SystemRandom::new(), message).unwrap();
        token("ES256", subject, |message| signature(message).as_ref().to_vec())
    }

    fn rs256(&self, subject: &str) -> String {
        token("RS256", subject, |message| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            let random = SystemRandom::new();
            self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
            signature
        })
    }

    fn eddsa(&self, subject: &str) -> String {
        token("EdDSA", subject, |message| self.ed25519.sign(message).as_ref().to_vec())
    }
}

fn token(algorithm: &str, subject: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = json!({"alg": algorithm, "kid": algorithm, "typ": "JWT"});
    let claims = json!({
        "iss": ISSUER,
        "aud": "search",
        "sub": subject,
        "scope": "openid search",
        "iat": NOW.unix_s(),
        "exp": NOW.unix_s() + 3600,
    });
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
