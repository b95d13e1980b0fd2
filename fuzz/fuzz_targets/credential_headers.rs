//! No header text gets in without a secret: a world whose secrets the input cannot know admits
//! nobody on a route that takes credentials, and nothing panics.
//!
//! Input: a byte that chooses the route, then lines; the first byte of each names the field.

#![no_main]

use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use latchkey::clock::{Monotonic, Now, Timestamp};
use latchkey::decision::jwt::{KeySet, KeySets, TokenDigest, VerifiedJwt, VerifiedTokens};
use latchkey::decision::origin::{Origin, Rules};
use latchkey::decision::policy::{
    AttemptPolicy, Issuer, JwtAlgorithm, MechanismSet, Policies, Route, Target, WidgetPolicy,
};
use latchkey::decision::principal::{ApiKey, Mechanism, Shop};
use latchkey::decision::rate_limit::{Charge, Charged, Limits, Quota, Standing};
use latchkey::decision::request::RequestView;
use latchkey::decision::route::{MethodSet, PathPattern};
use latchkey::decision::widget_token::SigningKey;
use latchkey::decision::{Context, Decision, Facts, Round, evaluate};
use latchkey::id::{KeyId, Name, ShopId, TokenId};
use latchkey::secret::{Digest, Pepper, SecretBytes, SecretText, SystemEntropy, random_bytes};
use libfuzzer_sys::fuzz_target;

const FIELDS: [&str; 5] =
    ["x-shop-api-key", "x-widget-token", "authorization", "origin", "referer"];
const PATHS: [&str; 5] =
    ["/key/shop", "/widget/shop", "/jwt/shop", "/all/shop", "/public/anything"];

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fuzz_target!(|input: &[u8]| {
    let Some((choice, lines)) = input.split_first() else {
        return;
    };
    let path = PATHS[usize::from(*choice) % PATHS.len()];
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((field, value)) = line.split_first() else {
            continue;
        };
        let field = HeaderName::from_static(FIELDS[usize::from(*field) % FIELDS.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(field, value);
        }
    }
    let client = IpAddr::from([192, 0, 2, 1]);
    let request = RequestView { method: &Method::GET, path, headers: &headers, client };
    let context = Context { facts: &*WORLD, limits: &*WORLD, verified: &*WORLD };
    for round in [Round::First, Round::AfterRefresh] {
        match evaluate(&request, &context, Now::default(), round) {
            Decision::Admit(admitted) => {
                assert_eq!(admitted.principal().mechanism(), Mechanism::Anonymous);
                assert_eq!(admitted.route().name.as_str(), "public");
                assert!(!headers.contains_key("authorization"), "fell back to anonymous");
            }
            Decision::Refuse(refusal) => {
                let denial = refusal.denial;
                assert!(matches!(denial.code().status(), 400 | 401 | 403 | 503));
                let told = format!("{} {:?}", denial.detail(), denial.challenge());
                assert!(told.is_ascii() && !told.contains('\n'));
            }
            Decision::NeedsKey { .. } => assert_eq!(round, Round::First),
        }
    }
});

struct World {
    policies: Policies,
    pepper: Pepper,
    hasher: RandomState,
    shop: Shop,
    key: ApiKey,
    signing_key: SigningKey,
    key_set: KeySet,
}

impl World {
    fn new() -> Self {
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
