//! No header text gets in without a secret: a world whose secrets the input cannot know admits
//! nobody on a route that takes credentials, and nothing panics.
//!
//! Input: a byte that chooses the route, then lines; the first byte of each names the field.

#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use latchkey::clock::Now;
use latchkey::decision::principal::Mechanism;
use latchkey::decision::request::RequestView;
use latchkey::decision::{Context, Decision, Round, evaluate};
use libfuzzer_sys::fuzz_target;

mod world;

use world::World;

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
