//! Tables of RFC 8725, one world for all of them: three issuers, their signers, their key sets.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::jose::TokenSigner;
use crate::secret::SecretText;

const NOW_S: u64 = 1_700_000_000;
const NOW: Timestamp = Timestamp::from_unix_s(NOW_S);
const LEEWAY: Duration = Duration::from_secs(60);
const STALE_MAX: Duration = Duration::from_secs(3600);
const GENERATION: u64 = 7;
const RSA_PEM: &[u8] = include_bytes!("../../../tests/fixtures/rsa-2048-test-key.pem");
const SECRET: &str = "a shared secret, longer than thirty-two bytes";

#[derive(Default)]
struct Sets(HashMap<Name, KeySet>);

impl KeySets for Sets {
    fn key_set(&self, issuer: &Name) -> Option<&KeySet> {
        self.0.get(issuer)
    }
}

#[derive(Default)]
struct Cache(Mutex<HashMap<TokenDigest, Arc<VerifiedJwt>>>);

impl VerifiedTokens for Cache {
    fn find(&self, digest: &TokenDigest) -> Option<Arc<VerifiedJwt>> {
        self.0.lock().unwrap().get(digest).cloned()
    }
}

struct World {
    issuers: Vec<Issuer>,
    sets: Sets,
    cache: Cache,
    es256: TokenSigner,
    es384: TokenSigner,
    ed25519: TokenSigner,
    rs256: TokenSigner,
    ps384: TokenSigner,
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn texts(all: &[&str]) -> Vec<Box<str>> {
    all.iter().map(|t| (*t).into()).collect()
}

fn issuer(issuer: &str, algorithms: &[JwtAlgorithm]) -> Issuer {
    Issuer {
        name: name(issuer),
        iss: format!("https://{issuer}.example").into(),
        audiences: texts(&["api", "other-api"]),
        algorithms: algorithms.to_vec(),
        secret: None,
        leeway: LEEWAY,
        required_claims: Vec::new(),
        typ: Vec::new(),
        scope_claim: texts(&["scope"]),
        shop_claim: Some(texts(&["ext", "shop"])),
        stale_max: STALE_MAX,
    }
}

fn key_set(jwks: &[&Value]) -> KeySet {
    KeySet::parse(&json!({ "keys": jwks }).to_string(), NOW).unwrap()
}

impl World {
    fn new() -> Self {
        use JwtAlgorithm::*;
        install_provider();
        let generate = |kid, algorithm| TokenSigner::generate(kid, algorithm).unwrap();
        let rsa = |kid, algorithm| TokenSigner::from_rsa_pem(kid, algorithm, RSA_PEM).unwrap();
        let mut hmac = issuer("hmac", &[HS256]);
        hmac.secret = Some(SecretText::new(SECRET.into()));
        let mut world = Self {
            issuers: vec![
                issuer("idp", &[RS256, PS384, ES256, ES384, EdDSA]),
                issuer("es-only", &[ES256]),
                hmac,
                issuer("absent", &[ES256]),
            ],
            sets: Sets::default(),
            cache: Cache::default(),
            es256: generate("ec", Algorithm::ES256),
            es384: generate("ec384", Algorithm::ES384),
            ed25519: generate("ed", Algorithm::EdDSA),
            rs256: rsa("rsa", Algorithm::RS256),
            ps384: rsa("rsa-pss", Algorithm::PS384),
        };
        let all = [
            world.es256.jwk(),
            world.es384.jwk(),
            world.ed25519.jwk(),
            world.rs256.jwk(),
            world.ps384.jwk(),
        ];
        let (idp, es_only) = (key_set(&all), key_set(&all));
        world.sets.0.insert(name("idp"), idp);
        world.sets.0.insert(name("es-only"), es_only);
        world
    }

    fn authenticate_at(&self, token: &str, now: Timestamp) -> Result<Authentic, JwtFailure> {
        authenticate(token, &self.issuers, &self.sets, &self.cache, GENERATION, now)
    }

    fn authenticate(&self, token: &str) -> Result<Authentic, JwtFailure> {
        self.authenticate_at(token, NOW)
    }

    fn remember(&self, authentic: &Authentic) {
        let token = Arc::clone(&authentic.token);
        self.cache.0.lock().unwrap().insert(token.digest, token);
    }
}

/// The members of a good token's claims, `changes` applied; `None` removes one. Raw JSON.
fn claims(changes: &[(&str, Option<&str>)]) -> String {
    let exp = (NOW_S + 600).to_string();
    let base = [
        ("iss", r#""https://idp.example""#),
        ("aud", r#""api""#),
        ("sub", r#""user-1""#),
        ("exp", exp.as_str()),
    ];
    let mut members: Vec<(&str, &str)> =
        base.into_iter().filter(|(n, _)| changes.iter().all(|c| c.0 != *n)).collect();
    members.extend(changes.iter().filter_map(|(n, v)| Some((*n, (*v)?))));
    let texts: Vec<String> = members.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
    format!("{{{}}}", texts.join(","))
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

const ES256_HEADER: &str = r#"{"alg":"ES256","kid":"ec"}"#;

#[derive(Debug, Clone, Copy)]
enum Want {
    Ok,
    /// `Invalid` whose reason contains this.
    Invalid(&'static str),
    Expired,
    NeedsKey(&'static str),
    Unavailable,
}

fn check(row: &str, got: &Result<Authentic, JwtFailure>, want: Want) {
    let matches = match (got, want) {
        (Ok(a), Want::Ok) => a.fresh,
        (Err(JwtFailure::Invalid(reason)), Want::Invalid(part)) => reason.contains(part),
        (Err(JwtFailure::NeedsKey { kid, .. }), Want::NeedsKey(wanted)) => **kid == *wanted,
        (Err(JwtFailure::Expired), Want::Expired)
        | (Err(JwtFailure::KeysUnavailable { .. }), Want::Unavailable) => true,
        _ => false,
    };
    assert!(matches, "{row}: wanted {want:?}, got {got:?}");
}

#[test]
fn every_configured_algorithm_authenticates() {
    let world = World::new();
    for signer in [&world.es256, &world.es384, &world.ed25519, &world.rs256, &world.ps384] {
        let claims = json!({
            "iss": "https://idp.example", "aud": ["x", "api"], "sub": "user-1",
            "exp": NOW_S + 600, "nbf": NOW_S - 5, "iat": NOW_S - 5,
            "scope": "read  write", "ext": {"shop": "demo"}
        });
        let authentic = world.authenticate(&signer.sign(&claims).unwrap()).unwrap();
        assert!(authentic.fresh);
        assert_eq!(authentic.issuer_index, 0);
        let token = &authentic.token;
        assert_eq!(&*token.subject, "user-1");
        assert_eq!(&*token.scopes, "read write");
        assert_eq!(token.shop, Some(ShopId::parse("demo").unwrap()));
        assert_eq!(token.expires_at, Timestamp::from_unix_s(NOW_S + 600));
        assert_eq!(token.not_before, Some(Timestamp::from_unix_s(NOW_S - 5)));
        assert_eq!(token.generation, GENERATION);
    }
}

#[test]
fn headers() {
    use Want::*;
    let world = World::new();
    let rows: [(&str, Want); 31] = [
        (ES256_HEADER, Ok),
        (r#"{"alg":"ES256"}"#, Ok),
        (r#"{"alg":"ES256","kid":"ec","typ":"anything","x":1}"#, Ok),
        (r#"{"alg":"ES256","kid":"ec","jku":"https://evil.example"}"#, Ok),
        (r#"{"alg":"ES256","kid":"ec","jwk":{"kty":"EC"},"x5c":["a"],"x5u":"b"}"#, Ok),
        (r#"{"alg":"ES256","kid":"ec","b64":false}"#, Ok),
        (r#"{"alg":"ES256","kid":"ec","zip":"DEF"}"#, Ok),
        (r#"{"alg":"none"}"#, Invalid("`alg` is not supported")),
        (r#"{"alg":"None"}"#, Invalid("`alg` is not supported")),
        (r#"{"alg":"NONE"}"#, Invalid("`alg` is not supported")),
        (r#"{"alg":"nOnE","kid":"ec"}"#, Invalid("`alg` is not supported")),
        (r#"{"alg":"es256","kid":"ec"}"#, Invalid("`alg` is not supported")),
        (r#"{"alg":"ES256 ","kid":"ec"}"#, Invalid("`alg` is not supported")),
        (r#"{"alg":"","kid":"ec"}"#, Invalid("`alg` is not supported")),
        (r#"{"kid":"ec"}"#, Invalid("no `alg`")),
        (r#"{"alg":["ES256"]}"#, Invalid("`alg` is not a string")),
        (r#"{"alg":null}"#, Invalid("`alg` is not a string")),
        (r#"{"alg":"HS256","kid":"ec"}"#, Invalid("not one of the issuer's `algorithms`")),
        (r#"{"alg":"RS512","kid":"rsa"}"#, Invalid("not one of the issuer's `algorithms`")),
        (r#"{"alg":"RS256","kid":"ec"}"#, Invalid("not for its `alg`")),
        (r#"{"alg":"ES384","kid":"ec"}"#, Invalid("not for its `alg`")),
        (r#"{"alg":"ES256","kid":"unknown"}"#, NeedsKey("unknown")),
        (r#"{"alg":"ES256","kid":""}"#, NeedsKey("")),
        (r#"{"alg":"ES256","kid":7}"#, Invalid("`kid` is not a string")),
        (r#"{"alg":"ES256","kid":"ec","crit":["exp"]}"#, Invalid("`crit`")),
        (r#"{"alg":"ES256","kid":"ec","crit":null}"#, Invalid("`crit`")),
        (r#"{"alg":"none","alg":"ES256"}"#, Invalid("occurs twice")),
        (r#"{"alg":"ES256","\u0061lg":"ES256"}"#, Invalid("occurs twice")),
        (r#"{"alg":"ES256","kid":"ec","cty":"JWT"}"#, Invalid("nested")),
        (r#"["ES256"]"#, Invalid("header is not a JSON object")),
        ("{", Invalid("header is not JSON")),
    ];
    for (header, want) in rows {
        let token = world.es256.sign_parts(header, &claims(&[])).unwrap();
        check(header, &world.authenticate(&token), want);
    }
}

#[test]
fn typ_rules() {
    use Want::*;
    let mut world = World::new();
    world.issuers[0].typ = texts(&["at+jwt", "application/JWT"]);
    let rows = [
        (r#","typ":"at+jwt""#, Ok),
        (r#","typ":"AT+JWT""#, Ok),
        (r#","typ":"application/at+jwt""#, Ok),
        (r#","typ":"APPLICATION/at+jwt""#, Ok),
        (r#","typ":"JWT""#, Ok),
        ("", Invalid("`typ`")),
        (r#","typ":"""#, Invalid("`typ`")),
        (r#","typ":"logout+jwt""#, Invalid("`typ`")),
        (r#","typ":"text/at+jwt""#, Invalid("`typ`")),
        (r#","typ":["at+jwt"]"#, Invalid("`typ` is not a string")),
    ];
    for (typ, want) in rows {
        let header = format!(r#"{{"alg":"ES256","kid":"ec"{typ}}}"#);
        let token = world.es256.sign_parts(&header, &claims(&[])).unwrap();
        check(&header, &world.authenticate(&token), want);
    }
}

#[test]
fn claim_rules() {
    use Want::*;
    let long = format!("\"{}\"", "x".repeat(256));
    check_claims(&[
        ("iss", None, Invalid("`iss` is missing")),
        ("iss", Some(r#"["https://idp.example"]"#), Invalid("`iss` is not a string")),
        ("iss", Some(r#""https://idp.example/""#), Invalid("names no configured issuer")),
        ("iss", Some(r#""HTTPS://idp.example""#), Invalid("names no configured issuer")),
        ("iss", Some(r#""https://absent.example""#), Unavailable),
        ("aud", None, Invalid("`aud` is missing")),
        ("aud", Some(r#""someone-else""#), Invalid("none of the configured")),
        ("aud", Some(r#""ap""#), Invalid("none of the configured")),
        ("aud", Some(r#"["x","other-api"]"#), Ok),
        ("aud", Some("[]"), Invalid("none of the configured")),
        ("aud", Some(r#"["api",1]"#), Invalid("other than strings")),
        ("aud", Some("null"), Invalid("neither a string")),
        ("aud", Some(r#"{"api":true}"#), Invalid("neither a string")),
        ("sub", None, Invalid("`sub` is missing")),
        ("sub", Some(r#""""#), Invalid("`sub` is empty")),
        ("sub", Some("7"), Invalid("`sub` is not a string")),
        ("sub", Some(&long), Invalid("longer than 255")),
        ("sub", Some(r#""a\r\nX-Auth-Shop-Id: b""#), Invalid("control characters")),
        ("sub", Some(r#""a\u0000""#), Invalid("control characters")),
        ("sub", Some(r#""a\u0085""#), Invalid("control characters")),
        ("sub", Some(r#"" a""#), Invalid("white space")),
        ("sub", Some(r#""auth0|a b é""#), Ok),
        ("scope", Some("null"), Ok),
        ("scope", Some(r#"["a","b:c/d.e"]"#), Ok),
        ("scope", Some(r#"["a b"]"#), Invalid("a scope")),
        ("scope", Some(r#"[""]"#), Invalid("a scope")),
        ("scope", Some(r#""a\\b""#), Invalid("a scope")),
        ("scope", Some(r#""a\tb""#), Invalid("a scope")),
        ("scope", Some(r#"["a",1]"#), Invalid("the scope claim")),
        ("scope", Some("7"), Invalid("the scope claim")),
        ("ext", Some("{}"), Ok),
        ("ext", Some(r#"{"shop":"me"}"#), Invalid("the shop claim")),
        ("ext", Some(r#"{"shop":null}"#), Invalid("the shop claim")),
        ("ext", Some(r#""demo""#), Invalid("the shop claim")),
        ("ext", Some(r#"{"shop":"a","shop":"b"}"#), Invalid("a claim occurs twice")),
    ]);
}

#[test]
fn time_claim_rules() {
    use Want::*;
    let at = |offset: i64| (i64::try_from(NOW_S).unwrap() + offset).to_string();
    let (past, past_leeway) = (at(-59), at(-60));
    let (soon, ahead) = (at(60), at(61));
    let (fraction, passed) = (at(-60) + ".5", at(-61) + ".999");
    check_claims(&[
        ("exp", None, Invalid("`exp` is missing")),
        ("exp", Some("\"1900000000\""), Invalid("`exp` is not a date")),
        ("exp", Some("null"), Invalid("`exp` is not a date")),
        ("exp", Some("true"), Invalid("`exp` is not a date")),
        ("exp", Some("1e300"), Invalid("`exp` is not a date")),
        ("exp", Some("18446744073709551615"), Invalid("`exp` is not a date")),
        ("exp", Some("99999999999999999999999"), Invalid("`exp` is not a date")),
        ("exp", Some("1e999"), Invalid("not JSON")),
        ("exp", Some("NaN"), Invalid("not JSON")),
        ("exp", Some("253402300799"), Ok),
        ("exp", Some("1.9e9"), Ok),
        ("exp", Some("0"), Expired),
        ("exp", Some("-1"), Expired),
        ("exp", Some("-1.5"), Expired),
        ("exp", Some("-0.0"), Expired),
        ("exp", Some(&past), Ok),
        ("exp", Some(&past_leeway), Expired),
        ("exp", Some(&fraction), Ok),
        ("exp", Some(&passed), Expired),
        ("nbf", Some(&soon), Ok),
        ("nbf", Some(&ahead), Invalid("not valid yet")),
        ("nbf", Some("-5"), Ok),
        ("nbf", Some("\"0\""), Invalid("`nbf` is not a date")),
        ("nbf", Some("null"), Invalid("`nbf` is not a date")),
        ("iat", Some(&soon), Ok),
        ("iat", Some(&ahead), Invalid("`iat` lies in the future")),
        ("iat", Some("[]"), Invalid("`iat` is not a date")),
    ]);
}

fn check_claims(rows: &[(&str, Option<&str>, Want)]) {
    let world = World::new();
    for (claim, value, want) in rows {
        let claims = claims(&[(claim, *value)]);
        let token = world.es256.sign_parts(ES256_HEADER, &claims).unwrap();
        check(&claims, &world.authenticate(&token), *want);
    }
}

#[test]
fn payloads_that_are_no_claims() {
    let world = World::new();
    let nested = world.es256.sign_parts(ES256_HEADER, &claims(&[])).unwrap();
    for (payload, reason) in [
        (nested.as_str(), "claims are not JSON"),
        (r#""text""#, "claims are not a JSON object"),
        ("[]", "claims are not a JSON object"),
        (r#"{"sub":"a","sub":"b"}"#, "a claim occurs twice"),
        ("{}x", "claims are not JSON"),
    ] {
        let token = world.es256.sign_parts(ES256_HEADER, payload).unwrap();
        check(payload, &world.authenticate(&token), Want::Invalid(reason));
    }
}

#[test]
fn required_claims() {
    let mut world = World::new();
    world.issuers[0].required_claims = texts(&["azp"]);
    for (azp, good) in [(None, false), (Some("null"), false), (Some("\"x\""), true)] {
        let token = world.es256.sign_parts(ES256_HEADER, &claims(&[("azp", azp)])).unwrap();
        assert_eq!(world.authenticate(&token).is_ok(), good, "{azp:?}");
    }
}

#[test]
fn only_a_good_signature_makes_an_expired_token() {
    let world = World::new();
    let stranger = TokenSigner::generate("ec", Algorithm::ES256).unwrap();
    let expired = claims(&[("exp", Some("1"))]);
    let forged = stranger.sign_parts(ES256_HEADER, &expired).unwrap();
    check("forged", &world.authenticate(&forged), Want::Invalid("signature"));
    let authentic = world.es256.sign_parts(ES256_HEADER, &expired).unwrap();
    check("authentic", &world.authenticate(&authentic), Want::Expired);
    let elsewhere = claims(&[("exp", Some("1")), ("aud", Some("\"x\""))]);
    let elsewhere = world.es256.sign_parts(ES256_HEADER, &elsewhere).unwrap();
    check("elsewhere", &world.authenticate(&elsewhere), Want::Invalid("`aud`"));
}

#[test]
fn algorithm_confusion() {
    let mut world = World::new();
    let header = r#"{"alg":"HS256","kid":"rsa"}"#;
    let message = format!("{}.{}", part(header), part(&claims(&[])));
    let pem = EncodingKey::from_rsa_pem(RSA_PEM).unwrap();
    for secret in [
        RSA_PEM.to_vec(),
        pem.as_bytes().to_vec(),
        world.rs256.jwk()["n"].as_str().unwrap().as_bytes().to_vec(),
    ] {
        let key = EncodingKey::from_secret(&secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        let token = format!("{message}.{}", signature.unwrap());
        check("public key as secret", &world.authenticate(&token), Want::Invalid("`algorithms`"));
        // Even an issuer that was configured carelessly has no secret to verify with.
        world.issuers[0].algorithms.push(JwtAlgorithm::HS256);
        check("careless", &world.authenticate(&token), Want::Invalid("shared secret"));
        world.issuers[0].algorithms.pop();
    }
    let es_only = claims(&[("iss", Some(r#""https://es-only.example""#))]);
    let header = r#"{"alg":"RS256","kid":"rsa"}"#;
    let token = world.rs256.sign_parts(header, &es_only).unwrap();
    check("not in the list", &world.authenticate(&token), Want::Invalid("`algorithms`"));
    // A key that declares PS384 does not verify RS256, although the key could.
    let header = r#"{"alg":"RS256","kid":"rsa-pss"}"#;
    let token = world.rs256.sign_parts(header, &claims(&[])).unwrap();
    check("declared", &world.authenticate(&token), Want::Invalid("not for its `alg`"));
}

#[test]
fn keys_are_the_issuers_own() {
    let mut world = World::new();
    let other = TokenSigner::generate("other", Algorithm::ES256).unwrap();
    world.sets.0.insert(name("es-only"), key_set(&[other.jwk()]));
    let token = other.sign_parts(r#"{"alg":"ES256","kid":"other"}"#, &claims(&[])).unwrap();
    check("another issuer's key", &world.authenticate(&token), Want::NeedsKey("other"));
    let token = other.sign_parts(r#"{"alg":"ES256"}"#, &claims(&[])).unwrap();
    check("no kid", &world.authenticate(&token), Want::Invalid("signature"));
}

#[test]
fn tokens_without_kid_try_a_bounded_number_of_keys() {
    let mut world = World::new();
    let signers: Vec<TokenSigner> = (0..=CANDIDATES_MAX)
        .map(|_| TokenSigner::generate("same", Algorithm::ES256).unwrap())
        .collect();
    let jwks: Vec<&Value> = signers.iter().map(TokenSigner::jwk).collect();
    world.sets.0.insert(name("idp"), key_set(&jwks));
    for header in [r#"{"alg":"ES256"}"#, r#"{"alg":"ES256","kid":"same"}"#] {
        for (index, signer) in signers.iter().enumerate() {
            let token = signer.sign_parts(header, &claims(&[])).unwrap();
            let want = match index {
                CANDIDATES_MAX => Want::Invalid("signature"),
                _ => Want::Ok,
            };
            check(header, &world.authenticate(&token), want);
        }
    }
    let token = world.ed25519.sign_parts(r#"{"alg":"EdDSA"}"#, &claims(&[])).unwrap();
    check("none fits", &world.authenticate(&token), Want::NeedsKey(""));
}

#[test]
fn forged_signatures_and_shapes() {
    use Want::Invalid;
    let world = World::new();
    let good = world.es256.sign_parts(ES256_HEADER, &claims(&[])).unwrap();
    check("good", &world.authenticate(&good), Want::Ok);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let payload = part(&claims(&[("sub", Some(r#""admin""#))]));
    let shape = Invalid("three base64url parts");
    // The last character of the header has two bits that mean nothing and must be zero.
    let loose = format!("{}1", header.strip_suffix('0').unwrap());
    let short = signature.get(..84).unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    let rows = [
        ("psychic", format!("{message}.{zeros}"), Invalid("signature")),
        ("short", format!("{message}.{short}"), Invalid("signature")),
        ("long", format!("{message}.{signature}AAAA"), Invalid("signature")),
        ("payload", format!("{header}.{payload}.{signature}"), Invalid("signature")),
        ("unsigned", format!("{message}."), shape),
        ("two parts", message.to_owned(), shape),
        ("no dots", header.to_owned(), shape),
        ("empty", String::new(), shape),
        ("dots", "..".to_owned(), shape),
        ("no header", format!(".{payload}.{signature}"), shape),
        ("extra dot", format!("{good}."), shape),
        ("leading dot", format!(".{good}"), shape),
        ("five parts", format!("{good}.{payload}.{signature}"), shape),
        ("padding", format!("{good}="), shape),
        ("white space", format!(" {good}"), shape),
        ("newline", format!("{good}\n"), shape),
        ("inner space", good.replacen('.', ". ", 1), shape),
        ("standard base64", format!("{message}.{short}+/"), shape),
        ("not ASCII", format!("{message}.é"), shape),
        ("loose bits", format!("{loose}.{payload}.{signature}"), Invalid("not base64url")),
        ("oversize", format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), Invalid("8 KiB")),
    ];
    for (row, token, want) in rows {
        check(row, &world.authenticate(&token), want);
    }
}

#[test]
fn shared_secrets() {
    let mut world = World::new();
    let claims = claims(&[("iss", Some(r#""https://hmac.example""#))]);
    let sign = |secret: &str, algorithm: Algorithm| {
        let header = json!({"alg": algorithm}).to_string();
        let message = format!("{}.{}", part(&header), part(&claims));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm);
        format!("{message}.{}", signature.unwrap())
    };
    let token = sign(SECRET, Algorithm::HS256);
    let authentic = world.authenticate(&token).unwrap();
    assert_eq!(authentic.issuer_index, 2);
    world.remember(&authentic);
    assert!(!world.authenticate(&token).unwrap().fresh);
    check(
        "guess",
        &world.authenticate(&sign("guess", Algorithm::HS256)),
        Want::Invalid("signature"),
    );
    let other = sign(SECRET, Algorithm::HS512);
    check("other", &world.authenticate(&other), Want::Invalid("`algorithms`"));
    // Reconfigured to public keys under the same generation, a secret's token is no longer found.
    world.issuers[2].secret = None;
    check("no secret", &world.authenticate(&token), Want::Invalid("shared secret"));
}

#[test]
fn the_cache_never_outlives_what_it_rests_on() {
    let mut world = World::new();
    let token =
        world.es256.sign_parts(ES256_HEADER, &claims(&[("nbf", Some("1699999999"))])).unwrap();
    let authentic = world.authenticate(&token).unwrap();
    world.remember(&authentic);
    assert!(!world.authenticate(&token).unwrap().fresh);
    let at = |offset| Timestamp::from_unix_s(NOW_S + offset);

    let last = world.authenticate_at(&token, at(659)).unwrap();
    assert!(!last.fresh);
    check("exp", &world.authenticate_at(&token, at(660)), Want::Expired);
    let early = Timestamp::from_unix_s(NOW_S - 62);
    check("nbf", &world.authenticate_at(&token, early), Want::Invalid("not valid yet"));
    let stale = NOW + STALE_MAX + Duration::from_millis(1);
    check("stale", &world.authenticate_at(&token, stale), Want::Unavailable);

    let reloaded =
        authenticate(&token, &world.issuers, &world.sets, &world.cache, GENERATION + 1, NOW);
    assert!(reloaded.unwrap().fresh);

    let removed = world.sets.0.insert(name("idp"), key_set(&[world.ed25519.jwk()])).unwrap();
    check("key removed", &world.authenticate(&token), Want::NeedsKey("ec"));
    world.sets.0.remove(&name("idp"));
    check("set removed", &world.authenticate(&token), Want::Unavailable);
    world.sets.0.insert(name("idp"), removed);
    assert!(!world.authenticate(&token).unwrap().fresh);

    let issuer = world.issuers.remove(0);
    check("issuer removed", &world.authenticate(&token), Want::Invalid("no configured issuer"));
    world.issuers.push(issuer);
    assert_eq!(world.authenticate(&token).unwrap().issuer_index, 3);
}

#[test]
fn a_key_set_is_trusted_up_to_its_stale_bound() {
    let world = World::new();
    let far = (NOW_S + 100_000).to_string();
    let token =
        world.es256.sign_parts(ES256_HEADER, &claims(&[("exp", Some(far.as_str()))])).unwrap();
    check("fresh", &world.authenticate_at(&token, NOW + STALE_MAX), Want::Ok);
    let past = NOW + STALE_MAX + Duration::from_millis(1);
    check("stale", &world.authenticate_at(&token, past), Want::Unavailable);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_never_panics_nor_authenticates(text in "\\PC{0,200}|[A-Za-z0-9_.=-]{0,300}") {
        let world = Sets::default();
        let issuers = [issuer("idp", &[JwtAlgorithm::ES256])];
        let got = authenticate(&text, &issuers, &world, &Cache::default(), GENERATION, NOW);
        prop_assert!(got.is_err());
    }

    #[test]
    fn arbitrary_json_in_a_signed_token_never_panics(
        header in json_text(),
        payload in json_text(),
        claim in prop::sample::select(vec!["aud", "sub", "exp", "nbf", "iat", "scope", "ext"]),
    ) {
        let world = shared_world();
        let one_odd_claim = claims(&[(claim, Some(&payload))]);
        for (header, claims) in [
            (header.as_str(), payload.as_str()),
            (ES256_HEADER, payload.as_str()),
            (ES256_HEADER, one_odd_claim.as_str()),
        ] {
            let token = world.es256.sign_parts(header, claims).unwrap();
            if let Ok(authentic) = world.authenticate(&token) {
                prop_assert!(authentic.token.expires_at + LEEWAY > NOW);
                prop_assert!(!authentic.token.subject.is_empty());
            }
        }
    }

    #[test]
    fn no_altered_byte_verifies(index in any::<prop::sample::Index>(), byte in 0_u8..128) {
        let world = shared_world();
        for signer in [&world.es256, &world.ed25519] {
            let claims: Value = serde_json::from_str(&claims(&[])).unwrap();
            let token = signer.sign(&claims).unwrap();
            let mut bytes = token.clone().into_bytes();
            let at = index.index(bytes.len());
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            let altered = String::from_utf8(bytes).unwrap();
            prop_assert!(world.authenticate(&token).is_ok());
            prop_assert!(world.authenticate(&altered).is_err(), "{altered}");
        }
    }

    #[test]
    fn key_sets_of_any_shape_never_panic(text in json_text(), member in json_text()) {
        let _ = KeySet::parse(&text, NOW);
        let _ = KeySet::parse(&format!("{{\"keys\":[{member}]}}"), NOW);
    }
}

/// Text that is JSON, or nearly, with the member names that matter.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        "[a-zA-Z0-9_ -]{0,40}".prop_map(|s| format!("\"{s}\"")),
        prop::sample::select(vec![
            "\"ES256\"",
            "\"api\"",
            "\"https://idp.example\"",
            "\"RSA\"",
            "{"
        ])
        .prop_map(str::to_owned),
    ];
    let names = vec![
        "alg", "kid", "typ", "crit", "iss", "aud", "sub", "exp", "nbf", "iat", "scope", "ext",
        "shop", "keys", "kty", "n", "e", "x", "y", "crv", "use", "key_ops",
    ];
    leaf.prop_recursive(3, 40, 8, move |inner| {
        let member = (prop::sample::select(names.clone()), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|v| format!("[{}]", v.join(","))),
            prop::collection::vec(member, 0..8).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn shared_world() -> &'static World {
    static WORLD: std::sync::OnceLock<World> = std::sync::OnceLock::new();
    WORLD.get_or_init(World::new)
}
