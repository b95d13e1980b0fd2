//! A widget token verifies as it was signed, and in no other form.
//!
//! Input: up to 16 pairs of bytes, a place in the token and what to change there; then, after a
//! zero pair, the scopes it is signed with.

#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Method};
use latchkey::clock::{Now, Timestamp};
use latchkey::decision::principal::Principal;
use latchkey::decision::request::RequestView;
use latchkey::decision::widget_token::{SCOPES_BYTES_MAX, WidgetToken, sign};
use latchkey::decision::{Context, Decision, Round, evaluate};
use latchkey::id::{ShopId, TokenId};
use libfuzzer_sys::fuzz_target;

mod world;

use world::World;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fuzz_target!(|input: &[u8]| {
    let edits: Vec<&[u8]> = input.chunks_exact(2).take(16).take_while(|e| *e != [0, 0]).collect();
    let scopes = input.get(edits.len() * 2 + 2..).unwrap_or_default();
    let scopes: String = scopes.iter().take(SCOPES_BYTES_MAX).map(|b| letter(*b)).collect();
    let token = WidgetToken {
        id: TokenId(7),
        shop: ShopId::parse("shop").expect("an id"),
        scopes: scopes.as_str().try_into().expect("it was cut"),
        issued_at: Timestamp::default(),
        expires_at: Timestamp::from_unix_s(60),
    };
    let text = sign(&token, &WORLD.signing_key);
    let original = text.expose().as_bytes();
    let mut edited = original.to_vec();
    for edit in edits {
        match (edit[0], edit[1]) {
            (at, 0) => edited.truncate(usize::from(at)),
            (255, byte) => edited.push(byte),
            (at, change) => {
                if let Some(byte) = edited.get_mut(usize::from(at)) {
                    *byte ^= change;
                }
            }
        }
    }
    let Ok(value) = HeaderValue::from_bytes(&edited) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-widget-token", value);
    let client = IpAddr::from([192, 0, 2, 1]);
    let request =
        RequestView { method: &Method::GET, path: "/widget/any", headers: &headers, client };
    let context = Context { facts: &*WORLD, limits: &*WORLD, verified: &*WORLD };
    match evaluate(&request, &context, Now::default(), Round::First) {
        Decision::Admit(admitted) => {
            assert_eq!(edited, original, "an altered token verifies");
            let Principal::WidgetToken { token: seen, .. } = admitted.principal() else {
                panic!("admitted as something else");
            };
            assert_eq!(*seen, token);
        }
        Decision::Refuse(refusal) => assert_ne!(edited, original, "{:?}", refusal.denial),
        Decision::NeedsKey { .. } => panic!("no issuer is concerned"),
    }
});

fn letter(byte: u8) -> char {
    match byte % 28 {
        26 => ' ',
        27 => '*',
        n => char::from(b'a' + n),
    }
}
