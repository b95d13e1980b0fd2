//! All of `evaluate` against the model of it that was written from the spec alone.
//!
//! Input: bytes that choose the world, the request and its credentials, one choice after another.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/decision/model.rs"]
mod model;
#[path = "../../tests/naive/mod.rs"]
mod naive;
#[path = "../../tests/decision/scene.rs"]
mod scene;
#[path = "../../tests/decision/town.rs"]
mod town;

use scene::Scene;
use town::{Counts, Town};

const MECHANISMS: [&str; 4] = ["widget_token", "shop_api_key", "jwt", "anonymous"];

fuzz_target!(|input: &[u8]| {
    let scene = Scene::from_bytes(input.to_vec());
    let expected = model::outcome(&scene);
    let town = Town::new(&scene);
    assert_eq!(town.outcome(), expected, "{scene:?}");
    let charged = Counts {
        failures: usize::from(expected == "invalid_credential"),
        requests: usize::from(MECHANISMS.contains(&expected)),
    };
    assert_eq!(town.counts(), charged, "{scene:?}");
    // Once more, now that a token may be in the cache.
    assert_eq!(town.outcome(), expected, "{scene:?}");
});
