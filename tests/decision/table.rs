//! Every refusal of the decision core has a row: how it comes about and how it answers.

use latchkey::decision::Decision;
use latchkey::decision::denial::{Code, Denial};

use super::scene::{
    ApiKeyText, AuthorizationText, Field, Jwt, JwtIssuer, JwtSigned, NOW_S, Scene, Signer,
    WidgetTokenText,
};
use super::town::Town;

struct Row {
    /// The variant of [`Denial`].
    variant: &'static str,
    code: Code,
    status: u16,
    challenge: bool,
    retry_after: bool,
    change: fn(&mut Scene),
}

/// Rows change a request that a good API key admits, on the plugin's path.
const ROWS: [Row; 26] = [
    row("BadPath", Code::BadRequest, 400, |s| s.path.push_str("/..")),
    row("BadPath", Code::BadRequest, 400, |s| s.path = "/api/plugin/shops/alpha;x=1/a".into()),
    row("BadCredentialField", Code::BadRequest, 400, |s| {
        s.api_key = Field::Twice(ApiKeyText::Of(0));
    }),
    row("BadCredentialField", Code::BadRequest, 400, |s| s.api_key = Field::NotAscii),
    row("AmbiguousCredentials", Code::BadRequest, 400, |s| {
        s.path = "/api/any/alpha/x".into();
        s.authorization = Field::Once(bearer(JwtSigned::Well, ""));
    }),
    row("NotFound", Code::NotFound, 404, |s| s.path = "/".into()),
    row("MissingCredential", Code::MissingCredential, 401, |s| s.api_key = Field::Absent)
        .with_challenge(),
    row("MissingCredential", Code::MissingCredential, 401, |s| {
        s.path = "/api/search/private/x".into();
    })
    .with_challenge(),
    row("InvalidCredential", Code::InvalidCredential, 401, |s| {
        s.api_key = Field::Once(ApiKeyText::Unknown);
    })
    .with_challenge(),
    row("InvalidCredential", Code::InvalidCredential, 401, |s| s.keys[0].exists = false)
        .with_challenge(),
    row("InvalidCredential", Code::InvalidCredential, 401, |s| s.shops[0].exists = false)
        .with_challenge(),
    row("InvalidCredential", Code::InvalidCredential, 401, |s| {
        s.keys[0].grace_until_s = Some(NOW_S);
    })
    .with_challenge(),
    row("ExpiredCredential", Code::ExpiredCredential, 401, |s| s.keys[0].expires_s = Some(NOW_S))
        .with_challenge(),
    row("KeysUnavailable", Code::KeysUnavailable, 503, |s| {
        s.path = "/api/search/all".into();
        s.authorization = Field::Once(bearer(JwtSigned::Well, ""));
        s.key_set_age_s = None;
    })
    .with_retry_after(),
    row("CrossTenant", Code::CrossTenant, 403, |s| s.path = "/api/plugin/shops/beta/x".into()),
    row("CrossTenant", Code::CrossTenant, 403, |s| s.path = "/api/plugin/shops/gone/x".into()),
    row("ShopDisabled", Code::ShopDisabled, 403, |s| s.shops[0].enabled = false),
    row("ShopDisabled", Code::ShopDisabled, 403, |s| {
        s.path = "/api/any/me/x".into();
        s.api_key = Field::Absent;
        s.authorization = Field::Once(bearer_of("alpha"));
        s.shops[0].enabled = false;
    }),
    row("ShopDisabled", Code::ShopDisabled, 403, |s| {
        s.path = "/api/search/all".into();
        s.authorization = Field::Once(bearer_of("alpha"));
        s.shops[0].enabled = false;
    }),
    row("NetworkNotAllowed", Code::NetworkNotAllowed, 403, |s| {
        s.keys[0].restricted = true;
        s.client = 1;
    }),
    row("OriginMismatch", Code::OriginMismatch, 403, |s| {
        s.origin = Field::Once("https://beta.example");
    }),
    row("OriginMismatch", Code::OriginMismatch, 403, |s| {
        s.referer = Field::Once("https://beta.example/page");
    }),
    row("InsufficientScope", Code::InsufficientScope, 403, |s| {
        s.path = "/api/widget/search".into();
        s.widget_token = Field::Once(widget_token("compare"));
    }),
    row("InsufficientScope", Code::InsufficientScope, 403, |s| {
        s.path = "/api/search/private/x".into();
        s.authorization = Field::Once(bearer(JwtSigned::Well, "public"));
    })
    .with_challenge(),
    row("TooManyFailures", Code::RateLimited, 429, |s| s.throttled = true).with_retry_after(),
    row("RateLimited", Code::RateLimited, 429, |s| s.full = true).with_retry_after(),
];

const fn row(variant: &'static str, code: Code, status: u16, change: fn(&mut Scene)) -> Row {
    Row { variant, code, status, challenge: false, retry_after: false, change }
}

impl Row {
    const fn with_challenge(self) -> Self {
        Self { challenge: true, ..self }
    }

    const fn with_retry_after(self) -> Self {
        Self { retry_after: true, ..self }
    }
}

fn bearer(signed: JwtSigned, scopes: &'static str) -> AuthorizationText {
    AuthorizationText::Bearer(jwt(signed, scopes))
}

fn bearer_of(shop: &'static str) -> AuthorizationText {
    AuthorizationText::Bearer(Jwt { shop: Some(shop), ..jwt(JwtSigned::Well, "") })
}

fn jwt(signed: JwtSigned, scopes: &'static str) -> Jwt {
    Jwt {
        issuer: JwtIssuer::Ed25519,
        signed,
        audience: "api",
        subject: Some("somebody"),
        scopes,
        shop: None,
        not_before_s: None,
        expires_s: NOW_S + 100,
    }
}

fn widget_token(scopes: &'static str) -> WidgetTokenText {
    WidgetTokenText::Signed {
        shop: 0,
        scopes,
        issued_s: NOW_S,
        expires_s: NOW_S + 100,
        revoked: false,
        signer: Signer::Known,
    }
}

/// A request that passes.
fn good() -> Scene {
    Scene {
        path: "/api/plugin/shops/alpha/orders".into(),
        api_key: Field::Once(ApiKeyText::Of(0)),
        ..Scene::from_bytes(Vec::new())
    }
}

/// The variant's name; a new variant does not compile until it has one here, and fails below
/// until it has a row.
fn variant(denial: &Denial<'_>) -> &'static str {
    match denial {
        Denial::BadPath(_) => "BadPath",
        Denial::BadCredentialField { .. } => "BadCredentialField",
        Denial::AmbiguousCredentials => "AmbiguousCredentials",
        Denial::NotFound => "NotFound",
        Denial::MissingCredential { .. } => "MissingCredential",
        Denial::InvalidCredential { .. } => "InvalidCredential",
        Denial::ExpiredCredential { .. } => "ExpiredCredential",
        Denial::KeysUnavailable { .. } => "KeysUnavailable",
        Denial::CrossTenant => "CrossTenant",
        Denial::ShopDisabled => "ShopDisabled",
        Denial::NetworkNotAllowed => "NetworkNotAllowed",
        Denial::OriginMismatch { .. } => "OriginMismatch",
        Denial::InsufficientScope { .. } => "InsufficientScope",
        Denial::TooManyFailures { .. } => "TooManyFailures",
        Denial::RateLimited { .. } => "RateLimited",
    }
}

#[test]
fn every_denial_has_a_row_and_answers_as_it_says() {
    assert_eq!(Town::new(&good()).outcome(), "shop_api_key");
    for row in &ROWS {
        let mut scene = good();
        (row.change)(&mut scene);
        let town = Town::new(&scene);
        let Decision::Refuse(refusal) = town.decide() else {
            panic!("{}: not refused: {scene:?}", row.variant);
        };
        let denial = refusal.denial;
        assert_eq!(variant(&denial), row.variant, "{scene:?}");
        assert_eq!(denial.code(), row.code, "{denial:?}");
        assert_eq!(denial.code().status(), row.status, "{denial:?}");
        assert_eq!(denial.challenge().is_some(), row.challenge, "{denial:?}");
        assert_eq!(denial.retry_after_us().is_some(), row.retry_after, "{denial:?}");
        assert!(!denial.detail().is_empty() && !denial.reason().is_empty());
    }
}

/// An identity provider may have tenants that hold no credentials here.
#[test]
fn a_jwt_of_a_shop_that_does_not_exist_is_admitted() {
    for path in ["/api/any/me/x", "/api/any/alpha/x", "/api/search/all"] {
        let mut scene = good();
        scene.path = path.into();
        scene.api_key = Field::Absent;
        scene.authorization = Field::Once(bearer_of("alpha"));
        assert_eq!(Town::new(&scene).outcome(), "jwt", "{scene:?}");
        scene.shops[0].exists = false;
        assert_eq!(Town::new(&scene).outcome(), "jwt", "{scene:?}");
        // What was set before it was deleted does not count.
        scene.shops[0].enabled = false;
        assert_eq!(Town::new(&scene).outcome(), "jwt", "{scene:?}");
    }
}

/// The codes that the core itself gives are those of the rows; the others are the shell's: they
/// come from sockets and upstreams.
#[test]
fn every_code_has_a_row_or_is_the_shells() {
    let shell = [
        Code::RequestTimeout,
        Code::PayloadTooLarge,
        Code::UriTooLong,
        Code::HeadersTooLarge,
        Code::UpstreamUnreachable,
        Code::UpstreamError,
        Code::UpstreamTimeout,
        Code::Overloaded,
        Code::Internal,
    ];
    for code in Code::ALL {
        let rows = ROWS.iter().filter(|row| row.code == code).count();
        assert_eq!(rows == 0, shell.contains(&code), "{}", code.as_str());
    }
}

/// Spec §5: an unknown key, a revoked one and one of a deleted shop look the same.
#[test]
fn unknown_revoked_and_orphaned_keys_look_the_same() {
    let answers: Vec<_> = ROWS
        .iter()
        .filter(|row| row.variant == "InvalidCredential")
        .map(|row| {
            let mut scene = good();
            (row.change)(&mut scene);
            let town = Town::new(&scene);
            let Decision::Refuse(refusal) = town.decide() else { panic!("{scene:?}") };
            let denial = refusal.denial;
            (denial.code(), denial.detail().into_owned(), denial.challenge().map(String::from))
        })
        .collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}
