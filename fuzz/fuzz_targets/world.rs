//! A world whose secrets are random, made anew for every run: what an input cannot know.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use latchkey::clock::{Monotonic, Timestamp};
use latchkey::decision::Facts;
use latchkey::decision::jwt::{KeySet, KeySets, TokenDigest, VerifiedJwt, VerifiedTokens};
use latchkey::decision::origin::{Origin, Rules};
use latchkey::decision::policy::{
    AttemptPolicy, Issuer, JwtAlgorithm, MechanismSet, Policies, Route, Target, WidgetPolicy,
};
use latchkey::decision::principal::{ApiKey, Mechanism, Shop};
use latchkey::decision::rate_limit::{Charge, Charged, Limits, Quota, Standing};
use latchkey::decision::route::{MethodSet, PathPattern};
use latchkey::decision::widget_token::SigningKey;
use latchkey::id::{KeyId, Name, ShopId, TokenId};
use latchkey::secret::{Digest, Pepper, SecretBytes, SecretText, SystemEntropy, random_bytes};

/// One shop, one key, one signing key, two issuers, five routes.
pub(crate) struct World {
    policies: Policies,
    pepper: Pepper,
    hasher: RandomState,
    shop: Shop,
    key: ApiKey,
    pub(crate) signing_key: SigningKey,
    key_set: KeySet,
}

impl World {
    pub(crate) fn new() -> Self {
        let pepper = Pepper::new(&secret());
        let shop_id = ShopId::parse("shop").expect("an id");
        Self {
            policies: policies(),
            hasher: RandomState::new(),
            shop: Shop {
                id: shop_id,
                enabled: true,
                url: Origin::parse("https://shop.example").expect("an origin"),
                widget_origins: Vec::new(),
                tokens_valid_from: Timestamp::default(),
                limits: Vec::new(),
            },
            key: ApiKey {
                id: KeyId(1),
                digest: pepper.digest(secret().expose()),
                shop: shop_id,
                expires_at: None,
                grace_until: None,
                networks: Vec::new(),
                limits: Vec::new(),
                last_used_ms: Arc::default(),
            },
            pepper,
            signing_key: SigningKey::new(1, &secret()),
            // RFC 8037, appendix A.2: the private half is public, but the corpus does not sign.
            key_set: KeySet::parse(
                r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k",
                    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
                Timestamp::default(),
            )
            .expect("a key set"),
        }
    }
}

impl Facts for World {
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

    fn api_key(&self, _: &Digest) -> Option<&ApiKey> {
        // Found whatever was looked for: only the comparison of digests stands in the way.
        Some(&self.key)
    }

    fn shop(&self, _: &ShopId) -> Option<&Shop> {
        Some(&self.shop)
    }

    fn signing_key(&self, _: u32) -> Option<&SigningKey> {
        Some(&self.signing_key)
    }

    fn is_token_revoked(&self, _: &TokenId) -> bool {
        false
    }
}

impl KeySets for World {
    fn key_set(&self, _: &Name) -> Option<&KeySet> {
        Some(&self.key_set)
    }
}

impl VerifiedTokens for World {
    fn find(&self, _: &TokenDigest) -> Option<Arc<VerifiedJwt>> {
        None
    }
}

impl Limits for World {
    fn charge(&self, _: &[Charge], _: Monotonic) -> Charged {
        Charged { admitted: true, tightest: None, shadow_exceeded: 0 }
    }

    fn peek(&self, _: &Charge, _: Monotonic) -> Standing {
        Standing { remaining: 1, reset_us: 0, exceeded: false }
    }
}

fn secret() -> SecretBytes<32> {
    SecretBytes::new(random_bytes(&SystemEntropy::new()).expect("random bytes"))
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn policies() -> Policies {
    use Mechanism::{Anonymous, Jwt, ShopApiKey, WidgetToken};
    Policies {
        routes: vec![
            route("key", &[ShopApiKey]),
            route("widget", &[WidgetToken]),
            route("jwt", &[Jwt]),
            route("all", &[ShopApiKey, WidgetToken, Jwt]),
            route("public", &[Jwt, Anonymous]),
        ],
        limits: Vec::new(),
        issuers: vec![
            issuer("ed", JwtAlgorithm::EdDSA, None),
            issuer("hs", JwtAlgorithm::HS256, Some(format!("{:?}", secret().expose()))),
        ],
        origin: Rules::default(),
        widget: WidgetPolicy {
            lifetime: Duration::from_secs(1),
            lifetime_max: Duration::from_secs(1),
            scopes: Vec::new(),
            allow_loopback_origins: false,
        },
        attempts: AttemptPolicy { quota: Quota::new(1, Duration::from_secs(1)).expect("a quota") },
    }
}

fn route(text: &str, mechanisms: &[Mechanism]) -> Route {
    Route {
        name: name(text),
        paths: vec![PathPattern::parse(&format!("/{text}/*")).expect("a pattern")],
        methods: MethodSet::all(),
        mechanisms: mechanisms.iter().copied().collect::<MechanismSet>(),
        scopes: Vec::new(),
        target: Target::Upstream(name("default")),
        body_bytes_max: None,
        upgrades: Vec::new(),
        origins: Vec::new(),
    }
}

fn issuer(text: &str, algorithm: JwtAlgorithm, secret: Option<String>) -> Issuer {
    Issuer {
        name: name(text),
        iss: format!("https://{text}.example").into(),
        audiences: vec!["a".into()],
        algorithms: vec![algorithm],
        secret: secret.map(SecretText::new),
        leeway: Duration::from_secs(0),
        required_claims: Vec::new(),
        typ: Vec::new(),
        scope_claim: vec!["scope".into()],
        shop_claim: Some(vec!["shop".into()]),
        stale_max: Duration::from_secs(3600),
    }
}
