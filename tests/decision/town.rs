//! A scene made real: facts, quotas and a cache in memory, and the request with its headers.

use std::cell::RefCell;
use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayString;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use latchkey::clock::{Monotonic, Now, Timestamp};
use latchkey::decision::jwt::{KeySet, KeySets, TokenDigest, VerifiedJwt, VerifiedTokens};
use latchkey::decision::origin::{Origin, OriginPattern, Rules};
use latchkey::decision::policy::{
    AttemptPolicy, Issuer, JwtAlgorithm, KeyBy, LimitPolicy, MechanismSet, Policies, Route,
    ScopeRule, Target, WidgetPolicy,
};
use latchkey::decision::principal::{ApiKey, Mechanism, Principal, Shop};
use latchkey::decision::rate_limit::{
    Algorithm, Charge, Charged, Limits, POLICIES_MAX, Quota, Standing,
};
use latchkey::decision::request::RequestView;
use latchkey::decision::route::{MethodSet, PathPattern};
use latchkey::decision::widget_token::{self, SigningKey, WidgetToken};
use latchkey::decision::{Context, Decision, Facts, Round, evaluate};
use latchkey::id::{KeyId, Name, ShopId, TokenId};
use latchkey::secret::{Digest, Pepper, SecretBytes, SecretText};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::scene::{
    ApiKeyText, AuthorizationText, CLIENTS, Field, Jwt, JwtIssuer, JwtSigned, KeyScene, LEEWAY_S,
    NETWORK, NOW_S, SHOPS, STALE_S, Scene, ShopScene, Signer, WidgetTokenText,
};

const SECRET: &str = "a shared secret of more than thirty-two bytes";
const REVOKED: TokenId = TokenId(666);

pub(super) struct Town {
    policies: Policies,
    pepper: Pepper,
    hasher: RandomState,
    shops: Vec<Shop>,
    keys: Vec<ApiKey>,
    signing_key: SigningKey,
    key_set: Option<KeySet>,
    throttled: bool,
    full: bool,
    counts: RefCell<Counts>,
    remembered: RefCell<Vec<Arc<VerifiedJwt>>>,
    method: Method,
    path: String,
    headers: HeaderMap,
    client: std::net::IpAddr,
    now: Now,
    round: Round,
}

/// What was charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Failed attempts.
    pub(super) failures: usize,
    /// Requests, to the quotas of their callers.
    pub(super) requests: usize,
}

impl Town {
    pub(super) fn new(scene: &Scene) -> Self {
        let pepper = Pepper::new(&SecretBytes::new([1; 32]));
        let shops = SHOPS.iter().zip(&scene.shops).filter(|(_, shop)| shop.exists);
        let keys = scene.keys.iter().enumerate().filter(|(_, key)| key.exists);
        Self {
            policies: policies(scene.allow_loopback),
            hasher: RandomState::new(),
            shops: shops.map(|(id, shop)| build_shop(id, shop)).collect(),
            keys: keys.map(|(i, key)| build_key(i, key, &pepper)).collect(),
            pepper,
            signing_key: signing_key(1, 1),
            key_set: scene.key_set_age_s.map(|age| key_set(NOW_S - age)),
            throttled: scene.throttled,
            full: scene.full,
            counts: RefCell::default(),
            remembered: RefCell::default(),
            method: scene.method.parse().unwrap(),
            path: scene.path.clone(),
            headers: headers(scene),
            client: CLIENTS[scene.client].parse().unwrap(),
            now: Now { unix: Timestamp::from_unix_s(scene.now_s), mono: Monotonic::from_us(0) },
            round: if scene.refreshed { Round::AfterRefresh } else { Round::First },
        }
    }

    /// Decides the scene's request.
    pub(super) fn decide(&self) -> Decision<'_> {
        let request = RequestView {
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
            client: self.client,
        };
        let context = Context { facts: self, limits: self, verified: self };
        evaluate(&request, &context, self.now, self.round)
    }

    /// Decides, and keeps a freshly verified token as the server does. What came of it: a
    /// mechanism or a code.
    pub(super) fn outcome(&self) -> &'static str {
        match self.decide() {
            Decision::Admit(admitted) => {
                if let Principal::Jwt { token, fresh: true, .. } = admitted.principal() {
                    self.remembered.borrow_mut().push(Arc::clone(token));
                }
                admitted.principal().mechanism().as_str()
            }
            Decision::Refuse(refusal) => refusal.denial.code().as_str(),
            Decision::NeedsKey { .. } => "needs_key",
        }
    }

    pub(super) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }
}

impl Facts for Town {
    fn policies(&self) -> &Policies {
        &self.policies
    }

    fn policies_generation(&self) -> u64 {
        1
    }

    fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    fn cell_hasher(&self) -> &RandomState {
        &self.hasher
    }

    fn api_key(&self, digest: &Digest) -> Option<&ApiKey> {
        self.keys.iter().find(|key| key.digest == *digest)
    }

    fn shop(&self, id: &ShopId) -> Option<&Shop> {
        self.shops.iter().find(|shop| shop.id == *id)
    }

    fn signing_key(&self, id: u32) -> Option<&SigningKey> {
        Some(&self.signing_key).filter(|key| key.id == id)
    }

    fn is_token_revoked(&self, id: &TokenId) -> bool {
        *id == REVOKED
    }
}

impl KeySets for Town {
    fn key_set(&self, issuer: &Name) -> Option<&KeySet> {
        self.key_set.as_ref().filter(|_| issuer.as_str() == "ed")
    }
}

impl VerifiedTokens for Town {
    fn find(&self, digest: &TokenDigest) -> Option<Arc<VerifiedJwt>> {
        self.remembered.borrow().iter().find(|token| token.digest == *digest).cloned()
    }
}

impl Limits for Town {
    fn charge(&self, charges: &[Charge], _now: Monotonic) -> Charged {
        let attempts = |charge: &Charge| usize::from(charge.policy) == POLICIES_MAX;
        let mut counts = self.counts.borrow_mut();
        if charges.iter().any(attempts) {
            assert_eq!(charges.len(), 1, "a failed attempt is charged by itself");
            counts.failures += 1;
            return Charged { admitted: true, tightest: None, shadow_exceeded: 0 };
        }
        assert!(!charges.is_empty(), "every request is under some policy here");
        counts.requests += usize::from(!self.full);
        let standing = Standing { remaining: 0, reset_us: 1_000_000, exceeded: self.full };
        Charged { admitted: !self.full, tightest: Some((0, standing)), shadow_exceeded: 0 }
    }

    fn peek(&self, charge: &Charge, _now: Monotonic) -> Standing {
        assert_eq!(usize::from(charge.policy), POLICIES_MAX);
        Standing { remaining: 0, reset_us: 1_000_000, exceeded: self.throttled }
    }
}

fn seconds(s: u64) -> Timestamp {
    Timestamp::from_unix_s(s)
}

fn shop_id(text: &str) -> ShopId {
    ShopId::parse(text).unwrap()
}

fn build_shop(id: &str, shop: &ShopScene) -> Shop {
    Shop {
        id: shop_id(id),
        enabled: shop.enabled,
        url: Origin::parse(shop.url).unwrap(),
        widget_origins: shop
            .widget_origin
            .iter()
            .map(|o| OriginPattern::parse(o).unwrap())
            .collect(),
        tokens_valid_from: seconds(shop.tokens_valid_from_s),
        limits: Vec::new(),
    }
}

fn build_key(number: usize, key: &KeyScene, pepper: &Pepper) -> ApiKey {
    ApiKey {
        id: KeyId(number as u64),
        digest: pepper.digest(api_key_text(number).as_bytes()),
        shop: shop_id(SHOPS[key.shop]),
        expires_at: key.expires_s.map(seconds),
        grace_until: key.grace_until_s.map(seconds),
        networks: if key.restricted { vec![NETWORK.parse().unwrap()] } else { Vec::new() },
        limits: Vec::new(),
        last_used_ms: Arc::default(),
    }
}

fn api_key_text(number: usize) -> String {
    format!("sk_{:032x}", 0xa0 + number)
}

fn signing_key(number: u32, byte: u8) -> SigningKey {
    SigningKey::new(number, &SecretBytes::new([byte; 32]))
}

fn ed25519() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap()
}

fn key_set(fetched_s: u64) -> KeySet {
    let x = URL_SAFE_NO_PAD.encode(ed25519().public_key().as_ref());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "ours", "x": x}]});
    KeySet::parse(&set.to_string(), seconds(fetched_s)).unwrap()
}

fn headers(scene: &Scene) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put(&mut headers, "x-shop-api-key", &scene.api_key, |text| match text {
        ApiKeyText::Of(number) => api_key_text(*number),
        ApiKeyText::Unknown => api_key_text(99),
        ApiKeyText::Other(text) => (*text).to_owned(),
    });
    put(&mut headers, "x-widget-token", &scene.widget_token, widget_token);
    put(&mut headers, "authorization", &scene.authorization, |text| match text {
        AuthorizationText::Bearer(jwt) => format!("Bearer {}", encode_jwt(jwt)),
        AuthorizationText::Other(text) => (*text).to_owned(),
    });
    put(&mut headers, "origin", &scene.origin, |text| (*text).to_owned());
    put(&mut headers, "referer", &scene.referer, |text| (*text).to_owned());
    headers
}

fn put<T>(
    headers: &mut HeaderMap,
    name: &'static str,
    field: &Field<T>,
    text: impl Fn(&T) -> String,
) {
    let name = HeaderName::from_static(name);
    let value = |content: &T| HeaderValue::try_from(text(content)).unwrap();
    match field {
        Field::Absent => {}
        Field::Once(content) => {
            headers.append(name, value(content));
        }
        Field::Twice(content) => {
            headers.append(&name, value(content));
            headers.append(name, value(content));
        }
        Field::NotAscii => {
            headers.append(name, HeaderValue::from_bytes(b"caf\xe9").unwrap());
        }
    }
}

fn widget_token(text: &WidgetTokenText) -> String {
    match text {
        WidgetTokenText::Signed { shop, scopes, issued_s, expires_s, revoked, signer } => {
            let token = WidgetToken {
                id: if *revoked { REVOKED } else { TokenId(1) },
                shop: shop_id(SHOPS[*shop]),
                scopes: ArrayString::from(scopes).unwrap(),
                issued_at: seconds(*issued_s),
                expires_at: seconds(*expires_s),
            };
            let key = match signer {
                Signer::Known => signing_key(1, 1),
                Signer::Unknown => signing_key(2, 1),
                Signer::Impostor => signing_key(1, 2),
            };
            widget_token::sign(&token, &key).expose().to_owned()
        }
        WidgetTokenText::Other(text) => (*text).to_owned(),
    }
}

fn encode_jwt(jwt: &Jwt) -> String {
    let (iss, algorithm) = match jwt.issuer {
        JwtIssuer::Secret => ("https://secret.example", "HS256"),
        JwtIssuer::Ed25519 => ("https://ed.example", "EdDSA"),
        JwtIssuer::Stranger => ("https://stranger.example", "EdDSA"),
    };
    let kid = if jwt.signed == JwtSigned::ByUnknownKey { "another" } else { "ours" };
    let algorithm = if jwt.signed == JwtSigned::Not { "none" } else { algorithm };
    let header = json!({"alg": algorithm, "kid": kid});
    let mut claims = json!({
        "iss": iss, "aud": jwt.audience, "exp": jwt.expires_s, "scope": jwt.scopes,
    });
    let optional = [("sub", jwt.subject), ("shop", jwt.shop)];
    for (name, text) in optional.iter().filter_map(|(name, text)| text.map(|t| (name, t))) {
        claims[name] = text.into();
    }
    if let Some(not_before_s) = jwt.not_before_s {
        claims["nbf"] = not_before_s.into();
    }
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let mut signature = match jwt.issuer {
        JwtIssuer::Secret => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
            hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
        }
        JwtIssuer::Ed25519 | JwtIssuer::Stranger => {
            ed25519().sign(signed.as_bytes()).as_ref().to_vec()
        }
    };
    if jwt.signed == JwtSigned::Forged {
        signature[7] ^= 1;
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The routes of spec §1 and §2.1; a scope on part of the search; a route that takes every
/// credential.
fn policies(allow_loopback_origins: bool) -> Policies {
    use Mechanism::{Anonymous, Jwt as ByJwt, ShopApiKey, WidgetToken as ByWidgetToken};
    let all = MethodSet::all();
    let ample = Quota::new(1000, Duration::from_secs(1)).unwrap();
    let issue = ["/api/plugin/shops/{shopId}/widget-token", "/api/shops/{shopId}/widget-token"];
    let widget_scopes =
        ["search", "compare"].map(|scope| (format!("/api/widget/{scope}*"), scope.to_owned()));
    let search_scopes = [("/api/search/private/*".to_owned(), "private".to_owned())];
    let post = MethodSet::parse(["POST"]).unwrap();
    Policies {
        routes: vec![
            route("issue", &issue, post, &[ShopApiKey], &[]),
            route("widget", &["/api/widget/*"], all, &[ByWidgetToken], &widget_scopes),
            route("plugin", &["/api/plugin/shops/{shopId}/*"], all, &[ShopApiKey], &[]),
            route("search", &["/api/search/*"], all, &[ByJwt, Anonymous], &search_scopes),
            route("any", &["/api/any/{shopId}/*"], all, &[ByWidgetToken, ShopApiKey, ByJwt], &[]),
        ],
        limits: vec![LimitPolicy {
            name: name("everything"),
            paths: vec![pattern("/*")],
            methods: all,
            mechanisms: MechanismSet::all(),
            key_by: KeyBy::Shop,
            quota: ample,
            algorithm: Algorithm::TokenBucket,
            cost: NonZeroU32::MIN,
            shadow: false,
            fallback: false,
        }],
        issuers: vec![
            issuer("secret", JwtAlgorithm::HS256, Some(SecretText::new(SECRET.to_owned()))),
            issuer("ed", JwtAlgorithm::EdDSA, None),
        ],
        origin: Rules::default(),
        widget: WidgetPolicy {
            lifetime: Duration::from_secs(24 * 3600),
            lifetime_max: Duration::from_secs(24 * 3600),
            scopes: vec!["search".into(), "compare".into()],
            allow_loopback_origins,
        },
        attempts: AttemptPolicy { quota: ample },
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap()
}

fn route(
    text: &str,
    paths: &[&str],
    methods: MethodSet,
    mechanisms: &[Mechanism],
    scopes: &[(String, String)],
) -> Route {
    let rule = |(path, scope): &(String, String)| ScopeRule {
        path: pattern(path),
        methods: MethodSet::all(),
        scope: scope.as_str().into(),
    };
    Route {
        name: name(text),
        paths: paths.iter().map(|path| pattern(path)).collect(),
        methods,
        mechanisms: mechanisms.iter().copied().collect(),
        scopes: scopes.iter().map(rule).collect(),
        target: Target::Upstream(name("default")),
        body_bytes_max: None,
        upgrades: Vec::new(),
        origins: Vec::new(),
    }
}

fn issuer(text: &str, algorithm: JwtAlgorithm, secret: Option<SecretText>) -> Issuer {
    Issuer {
        name: name(text),
        iss: format!("https://{text}.example").into(),
        audiences: vec!["api".into()],
        algorithms: vec![algorithm],
        secret,
        leeway: Duration::from_secs(LEEWAY_S),
        required_claims: Vec::new(),
        typ: Vec::new(),
        scope_claim: vec!["scope".into()],
        shop_claim: Some(vec!["shop".into()]),
        stale_max: Duration::from_secs(STALE_S),
    }
}
