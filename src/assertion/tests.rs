use arrayvec::ArrayString;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;

use super::*;
use crate::decision::origin::Origin;
use crate::decision::policy::Issuer;
use crate::decision::principal::{ApiKey, Shop};
use crate::decision::widget_token::WidgetToken;
use crate::id::Name;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_999);

fn key(seed: u8, signs_from_s: u64) -> AssertionKey {
    let signs_from = Timestamp::from_unix_s(signs_from_s);
    AssertionKey::new(&SecretBytes::new([seed; 32]), signs_from).unwrap()
}

fn assertions(keys: impl IntoIterator<Item = AssertionKey>) -> Assertions {
    let mut assertions = Assertions::default();
    let lifetime = Duration::from_secs(30);
    assertions.set_settings(Some(Settings { issuer: "latchkey".into(), lifetime }));
    assertions.set_keys(keys);
    assertions
}

fn statement<'a>(principal: &'a Principal<'a>) -> Statement<'a> {
    Statement {
        principal,
        audience: "catalogue",
        request_id: "000102030405060708090a0b0c0d0e0f",
        method: "GET",
        path: "/api/search/caf%C3%A9",
        query: None,
        client: "2001:db8::1".parse().unwrap(),
    }
}

fn shop() -> Shop {
    Shop {
        id: ShopId::parse("demo").unwrap(),
        enabled: true,
        url: Origin::parse("https://demo.example").unwrap(),
        widget_origins: Vec::new(),
        tokens_valid_from: Timestamp::default(),
        limits: Vec::new(),
    }
}

/// Header and claims of an assertion whose signature verifies by the key set.
fn verified(token: &str, key_set: &[u8]) -> (Value, Value) {
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let header: Value = serde_json::from_slice(&decoded(parts[0])).unwrap();
    let keys: Value = serde_json::from_slice(key_set).unwrap();
    let mut named = keys["keys"].as_array().unwrap().iter().filter(|k| k["kid"] == header["kid"]);
    let x = decoded(named.next().unwrap()["x"].as_str().unwrap());
    assert!(named.next().is_none(), "two keys of one name");
    let message = token.rsplit_once('.').unwrap().0;
    UnparsedPublicKey::new(&ED25519, x).verify(message.as_bytes(), &decoded(parts[2])).unwrap();
    assert_eq!(parts.len(), 3);
    (header, serde_json::from_slice(&decoded(parts[1])).unwrap())
}

fn claims(statement: &Statement<'_>) -> Value {
    let assertions = assertions([key(1, 0)]);
    let token = assertions.signer(NOW).unwrap().sign(statement).unwrap();
    verified(&token, &assertions.key_set()).1
}

#[test]
fn every_mechanism_says_who_called() {
    let shop = shop();
    let token = WidgetToken {
        id: TokenId(5),
        shop: shop.id,
        scopes: ArrayString::from("search compare").unwrap(),
        issued_at: NOW,
        expires_at: NOW,
    };
    let widget = Principal::WidgetToken { token, shop: &shop };
    let api_key = ApiKey {
        id: KeyId(6),
        digest: crate::secret::Digest::from_bytes([0; 32]),
        shop: shop.id,
        expires_at: None,
        grace_until: None,
        networks: Vec::new(),
        limits: Vec::new(),
        last_used_ms: Arc::default(),
    };
    let api_key = Principal::ShopApiKey { key: &api_key, shop: &shop };
    let rest = json!({
        "iss": "latchkey", "aud": "catalogue", "iat": 1_800_000_000, "exp": 1_800_000_030,
        "jti": "000102030405060708090a0b0c0d0e0f", "method": "GET",
        "path": "/api/search/caf%C3%A9", "client_address": "2001:db8::1",
    });
    let rows = [
        (
            widget,
            json!({"sub": "wt_00000000000000000000000000000005", "mechanism": "widget_token",
                "shop_id": "demo", "key_id": "wt_00000000000000000000000000000005",
                "scope": "search compare"}),
        ),
        (
            api_key,
            json!({"sub": "key_0000000000000006", "mechanism": "shop_api_key",
                "shop_id": "demo", "key_id": "key_0000000000000006", "scope": "*"}),
        ),
        (Principal::Anonymous, json!({"sub": "anonymous", "mechanism": "anonymous"})),
    ];
    for (principal, own) in rows {
        let mut want = rest.clone();
        want.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        assert_eq!(claims(&statement(&principal)), want);
    }
}

fn issuer() -> Issuer {
    Issuer {
        name: Name::parse("main").unwrap(),
        iss: "https://id.example".into(),
        audiences: Vec::new(),
        algorithms: Vec::new(),
        secret: None,
        leeway: Duration::ZERO,
        required_claims: Vec::new(),
        typ: Vec::new(),
        scope_claim: Vec::new(),
        shop_claim: None,
        stale_max: Duration::ZERO,
    }
}

/// What a JWT says of its subject is text of somebody else's: it must not become claims of ours.
#[test]
fn subjects_are_quoted_whatever_they_hold() {
    let issuer = issuer();
    for subject in ["u-1", "anonymous", "a\",\"shop_id\":\"other", "\\\"", "é\u{0}\n\u{2028}🔑"]
    {
        let principal = Principal::Jwt {
            token: Arc::new(crate::decision::jwt::VerifiedJwt {
                issuer: issuer.name.clone(),
                subject: subject.into(),
                scopes: "read \"write".into(),
                shop: None,
                expires_at: NOW,
                not_before: None,
                key_fingerprint: [0; 32],
                generation: 0,
                digest: [0; 32],
            }),
            issuer: &issuer,
            fresh: false,
        };
        let claims = claims(&statement(&principal));
        assert_eq!(claims["sub"], subject);
        assert_eq!(claims["mechanism"], "jwt");
        assert_eq!(claims["subject_issuer"], "https://id.example");
        assert_eq!(claims["scope"], "read \"write");
        assert!(claims.get("shop_id").is_none() && claims.get("key_id").is_none());
    }
}

#[test]
fn a_query_is_a_digest_and_no_query_is_not_an_empty_one() {
    let of = |query| claims(&Statement { query, ..statement(&Principal::Anonymous) });
    assert!(of(None).get("query_sha256").is_none());
    assert_eq!(of(Some(""))["query_sha256"], "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    assert_eq!(of(Some("abc"))["query_sha256"], "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
}

#[test]
fn the_header_names_the_key_and_a_type_of_its_own() {
    let assertions = assertions([key(1, 0)]);
    let signer = assertions.signer(NOW).unwrap();
    let token = signer.sign(&statement(&Principal::Anonymous)).unwrap();
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{token}");
    let (header, _) = verified(&token, &assertions.key_set());
    let want = json!({"alg": "EdDSA", "kid": signer.key.kid(), "typ": "latchkey-assertion+jwt"});
    assert_eq!(header, want);
    assert!(!format!("{assertions:?}").contains("[1, 1, 1"), "the seed is printed");
}

/// The example of RFC 8037 appendix A: its key, its thumbprint.
#[test]
fn keys_are_published_as_the_rfc_has_it() {
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let seed = SecretBytes::new(seed.try_into().unwrap());
    let assertions = assertions([AssertionKey::new(&seed, NOW).unwrap()]);
    let set: Value = serde_json::from_slice(&assertions.key_set()).unwrap();
    let kid = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let want = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
        "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    assert_eq!(set, want);
    let parsed = crate::decision::jwt::KeySet::parse(&set.to_string(), NOW).unwrap();
    assert_eq!((parsed.len(), parsed.skipped().len()), (1, 0), "our own reader takes it");
}

#[test]
fn keys_sign_when_their_turn_has_come() {
    let assertions = assertions([key(3, 300), key(1, 100), key(2, 200)]);
    let kids = [1, 2, 3].map(|seed| key(seed, 0).kid.clone());
    for (now_s, turn) in [(0, 0), (100, 0), (199, 0), (200, 1), (299, 1), (300, 2), (9999, 2)] {
        let signer = assertions.signer(Timestamp::from_unix_s(now_s)).unwrap();
        assert_eq!(signer.key.kid(), &*kids[turn], "{now_s}");
    }
    let set: Value = serde_json::from_slice(&assertions.key_set()).unwrap();
    let published: Vec<_> = set["keys"].as_array().unwrap().iter().map(|k| &k["kid"]).collect();
    assert_eq!(published, [&*kids[0], &*kids[1], &*kids[2]]);
}

#[test]
fn nobody_signs_without_a_key_or_when_nobody_asks() {
    assert!(assertions([]).signer(NOW).is_none());
    assert_eq!(&*assertions([]).key_set(), br#"{"keys":[]}"#);
    assert_eq!(&*Assertions::default().key_set(), br#"{"keys":[]}"#);
    let mut off = assertions([key(1, 0)]);
    off.set_settings(None);
    assert!(off.signer(NOW).is_none());
    assert!(off.key_set().len() > 100, "what was signed before must verify");
}
