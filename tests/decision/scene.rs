//! A request and the world it meets, as plain values drawn from small alphabets, so that the
//! cases that matter come up often and shrink to something readable.

/// The time of every scene, unless it says otherwise; the times of others lie around it.
pub(super) const NOW_S: u64 = 10_000;
/// Times around [`NOW_S`], in seconds, the common one first.
const LATER: [u64; 5] = [NOW_S + 100, NOW_S + 1, NOW_S, NOW_S - 1, NOW_S - 500];
/// Seconds of leeway that every issuer allows.
pub(super) const LEEWAY_S: u64 = 60;
/// For how long a key set is trusted.
pub(super) const STALE_S: u64 = 1000;

/// The shops there can be. The third never exists, though keys and tokens may be of it.
pub(super) const SHOPS: [&str; 3] = ["alpha", "beta", "gone"];
pub(super) const CLIENTS: [&str; 2] = ["192.0.2.7", "198.51.100.7"];
/// What keys may be restricted to; holds the first client only.
pub(super) const NETWORK: &str = "192.0.2.0/24";

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(super) struct Scene {
    pub(super) now_s: u64,
    /// [`SHOPS`] without the last.
    pub(super) shops: [ShopScene; 2],
    pub(super) keys: [KeyScene; 2],
    pub(super) allow_loopback: bool,
    /// The age of the key set of the issuer `ed`, if it has one.
    pub(super) key_set_age_s: Option<u64>,
    /// The issuer was asked for the key already.
    pub(super) refreshed: bool,
    /// The address has failed too often.
    pub(super) throttled: bool,
    /// The quota is used up.
    pub(super) full: bool,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) client: usize,
    pub(super) api_key: Field<ApiKeyText>,
    pub(super) widget_token: Field<WidgetTokenText>,
    pub(super) authorization: Field<AuthorizationText>,
    pub(super) origin: Field<&'static str>,
    pub(super) referer: Field<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) struct ShopScene {
    pub(super) exists: bool,
    pub(super) enabled: bool,
    pub(super) url: &'static str,
    pub(super) widget_origin: Option<&'static str>,
    pub(super) tokens_valid_from_s: u64,
}

#[derive(Debug, Clone)]
pub(super) struct KeyScene {
    pub(super) exists: bool,
    /// Index into [`SHOPS`].
    pub(super) shop: usize,
    pub(super) expires_s: Option<u64>,
    pub(super) grace_until_s: Option<u64>,
    pub(super) restricted: bool,
}

/// A header field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field<T> {
    Absent,
    Once(T),
    Twice(T),
    /// Once, with a byte that is not ASCII.
    NotAscii,
}

#[derive(Debug, Clone)]
pub(super) enum ApiKeyText {
    /// The key of [`Scene::keys`] at this place.
    Of(usize),
    Unknown,
    Other(&'static str),
}

#[derive(Debug, Clone)]
pub(super) enum WidgetTokenText {
    Signed {
        shop: usize,
        scopes: &'static str,
        issued_s: u64,
        expires_s: u64,
        revoked: bool,
        signer: Signer,
    },
    Other(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    Known,
    /// The number is not known.
    Unknown,
    /// The number is known, the key is another.
    Impostor,
}

#[derive(Debug, Clone)]
pub(super) enum AuthorizationText {
    Bearer(Jwt),
    Other(&'static str),
}

#[derive(Debug, Clone)]
pub(super) struct Jwt {
    pub(super) issuer: JwtIssuer,
    pub(super) signed: JwtSigned,
    pub(super) audience: &'static str,
    pub(super) subject: Option<&'static str>,
    pub(super) scopes: &'static str,
    pub(super) shop: Option<&'static str>,
    pub(super) not_before_s: Option<u64>,
    pub(super) expires_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JwtIssuer {
    /// Signs by HMAC with a secret that the configuration knows.
    Secret,
    /// Signs by Ed25519; its key set may be missing.
    Ed25519,
    /// Not configured.
    Stranger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JwtSigned {
    Well,
    Forged,
    /// By a `kid` that the key set does not hold.
    ByUnknownKey,
    /// `alg: none`.
    Not,
}

impl Scene {
    /// The scene that these bytes choose; every scene has such bytes, about 80 of them.
    /// In that of no bytes everything is as it should be, and no credential is presented.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Dice(bytes.into_iter()).scene()
    }
}

/// Turns bytes into choices; zero, and the end of the bytes, is always the first choice.
struct Dice(std::vec::IntoIter<u8>);

impl Dice {
    fn byte(&mut self) -> usize {
        usize::from(self.0.next().unwrap_or_default())
    }

    /// Any of `choices`, all alike.
    fn any<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.byte() % choices.len()].clone()
    }

    /// The first of `choices` three times out of four.
    fn mostly<T: Clone>(&mut self, choices: &[T]) -> T {
        match self.byte() {
            0..192 => choices[0].clone(),
            byte => choices[byte % choices.len()].clone(),
        }
    }

    fn field<T: Clone>(&mut self, present: bool, value: T) -> Field<T> {
        match self.byte() {
            250.. => Field::NotAscii,
            240..250 => Field::Twice(value),
            byte if present == (byte < 200) => Field::Once(value),
            _ => Field::Absent,
        }
    }

    fn scene(&mut self) -> Scene {
        let (path, mechanism) = self.path();
        Scene {
            now_s: NOW_S,
            shops: [self.shop(["https://alpha.example", "http://alpha.example:8080"]), {
                self.shop(["http://beta.example", "https://www.beta.example"])
            }],
            keys: [self.key(0), self.key(1)],
            allow_loopback: self.mostly(&[false, true]),
            key_set_age_s: self.mostly(&[Some(0), None, Some(STALE_S), Some(STALE_S + 1)]),
            refreshed: self.any(&[false, true]),
            throttled: self.byte() > 240,
            full: self.byte() > 230,
            method: self.mostly(&["GET", "POST", "DELETE", "OPTIONS", "FETCH"]),
            path,
            client: self.mostly(&[0, 1]),
            api_key: {
                let text = self.api_key();
                self.field(mechanism == 1, text)
            },
            widget_token: {
                let text = self.widget_token();
                self.field(mechanism == 2, text)
            },
            authorization: {
                let text = self.authorization();
                self.field(mechanism == 3, text)
            },
            origin: {
                let text = self.origin();
                self.field(false, text)
            },
            referer: {
                let text = self.referer();
                self.field(false, text)
            },
        }
    }

    /// A path and the credential it is meant for: 0 none, 1 API key, 2 widget token, 3 JWT.
    fn path(&mut self) -> (String, usize) {
        let shop = self.mostly(&["alpha", "me", "beta", "gone", "alpha;x=1", "Alpha", "al%70ha"]);
        let (path, mechanism) = self.any(&[
            ("/api/search/all", 0),
            ("/api/search/all", 3),
            ("/api/search/private/all", 3),
            ("/api/plugin/shops/{shop}/orders", 1),
            ("/api/plugin/shops/{shop}/orders/7", 1),
            ("/api/plugin/shops/{shop}/widget-token", 1),
            ("/api/shops/{shop}/widget-token", 1),
            ("/api/plugin/shops/{shop}", 1),
            ("/api/widget/search", 2),
            ("/api/widget/compare/a", 2),
            ("/api/widget/other", 2),
            ("/api/any/{shop}/x", 1),
            ("/api/any/{shop}/x", 2),
            ("/api/any/{shop}/x", 3),
            ("/api/{shop}", 0),
        ]);
        let path = path.replace("{shop}", shop);
        let path = match self.byte() {
            0..230 => path,
            byte => {
                let tails = [
                    "/..",
                    "/%2e%2e/x",
                    "//x",
                    "/a%2fb",
                    "/%00",
                    "/%ff",
                    "/%2541",
                    "/",
                    "/caf%c3%a9",
                ];
                format!("{path}{}", tails[byte % tails.len()])
            }
        };
        (path, mechanism)
    }

    fn shop(&mut self, urls: [&'static str; 2]) -> ShopScene {
        ShopScene {
            exists: self.mostly(&[true, false]),
            enabled: self.mostly(&[true, false]),
            url: self.mostly(&urls),
            widget_origin: self.mostly(&[None, Some("https://*.partner.example")]),
            tokens_valid_from_s: self.mostly(&[0, NOW_S - 10, NOW_S - 9]),
        }
    }

    fn key(&mut self, shop: usize) -> KeyScene {
        KeyScene {
            exists: self.mostly(&[true, false]),
            shop: self.mostly(&[shop, 2]),
            expires_s: self.maybe_time(),
            grace_until_s: self.maybe_time(),
            restricted: self.any(&[false, true]),
        }
    }

    fn maybe_time(&mut self) -> Option<u64> {
        let time = self.any(&LATER);
        self.mostly(&[None, Some(time)])
    }

    fn api_key(&mut self) -> ApiKeyText {
        self.mostly(&[
            ApiKeyText::Of(0),
            ApiKeyText::Of(1),
            ApiKeyText::Unknown,
            ApiKeyText::Other(""),
            ApiKeyText::Other("sk_"),
            ApiKeyText::Other("SK_00000000000000000000000000000000"),
            ApiKeyText::Other("sk_0000000000000000000000000000000 "),
        ])
    }

    fn widget_token(&mut self) -> WidgetTokenText {
        let signed = WidgetTokenText::Signed {
            shop: self.mostly(&[0, 1, 2]),
            scopes: self.any(&["*", "search", "compare search", "", "searching"]),
            issued_s: self.any(&[NOW_S - 10, NOW_S - 11]),
            expires_s: self.mostly(&LATER),
            revoked: self.mostly(&[false, true]),
            signer: self.mostly(&[Signer::Known, Signer::Unknown, Signer::Impostor]),
        };
        self.mostly(&[signed, WidgetTokenText::Other("lkw1_AAAA"), WidgetTokenText::Other("")])
    }

    fn authorization(&mut self) -> AuthorizationText {
        let jwt = Jwt {
            issuer: self.any(&[JwtIssuer::Secret, JwtIssuer::Ed25519, JwtIssuer::Ed25519]),
            signed: self.mostly(&[
                JwtSigned::Well,
                JwtSigned::Forged,
                JwtSigned::ByUnknownKey,
                JwtSigned::Not,
            ]),
            audience: self.mostly(&["api", "another"]),
            subject: self.mostly(&[Some("somebody"), None]),
            scopes: self.any(&["private", "", "openid private", "public", "*"]),
            shop: self.any(&[Some("alpha"), Some("beta"), Some("gone"), None]),
            not_before_s: self.mostly(&[None, Some(NOW_S + 60), Some(NOW_S + 61)]),
            expires_s: self.mostly(&[NOW_S + 100, NOW_S - 59, NOW_S - 60, NOW_S - 61]),
        };
        let strange = Jwt { issuer: JwtIssuer::Stranger, ..jwt.clone() };
        self.mostly(&[
            AuthorizationText::Bearer(jwt),
            AuthorizationText::Bearer(strange),
            AuthorizationText::Other("Basic c2tfOnB3"),
            AuthorizationText::Other("Bearer"),
            AuthorizationText::Other("Bearer a.b.c"),
            AuthorizationText::Other(""),
        ])
    }

    fn origin(&mut self) -> &'static str {
        self.any(&[
            "https://alpha.example",
            "https://beta.example",
            "https://www.alpha.example",
            "http://alpha.example:8080",
            "http://alpha.example",
            "https://ALPHA.example:443",
            "https://shop.partner.example",
            "https://partner.example",
            "https://alpha.example.evil.example",
            "https://evil-alpha.example",
            "https://alpha.example.",
            "https://alpha.example/",
            "https://a@alpha.example",
            "http://localhost:3000",
            "null",
            "",
        ])
    }

    fn referer(&mut self) -> &'static str {
        self.any(&[
            "https://alpha.example/page?q=1",
            "https://beta.example",
            "https://evil.example/https://alpha.example/",
            "about:blank",
        ])
    }
}
