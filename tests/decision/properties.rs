//! Random scenes: the model agrees; taking a grant away never opens anything; what has expired or
//! was revoked stays so.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::model;
use super::scene::{AuthorizationText, Field, JwtSigned, Scene, Signer, WidgetTokenText};
use super::town::{Counts, Town};

const MECHANISMS: [&str; 4] = ["widget_token", "shop_api_key", "jwt", "anonymous"];

/// All scenes.
fn scenes() -> impl Strategy<Value = Scene> {
    proptest::collection::vec(any::<u8>(), 80).prop_map(Scene::from_bytes)
}

fn admitted(scene: &Scene) -> bool {
    MECHANISMS.contains(&Town::new(scene).outcome())
}

proptest! {
    #![proptest_config(Config::with_cases(4000))]

    #[test]
    fn the_model_agrees(scene in scenes()) {
        let town = Town::new(&scene);
        let expected = model::outcome(&scene);
        prop_assert_eq!(town.outcome(), expected);
        // Only a credential that is not valid counts against the address; only what reaches the
        // limits is charged, and what they refuse is charged to none.
        let charged = Counts {
            failures: usize::from(expected == "invalid_credential"),
            requests: usize::from(MECHANISMS.contains(&expected)),
        };
        prop_assert_eq!(town.counts(), charged);
        // Once more, now that a token may be in the cache.
        prop_assert_eq!(town.outcome(), expected);
    }

    #[test]
    fn removing_a_grant_never_widens_access(scene in scenes(), which in 0usize..11) {
        let mut less = scene.clone();
        remove_grant(&mut less, which);
        if admitted(&less) {
            prop_assert!(admitted(&scene), "refused with more: {less:?}");
        }
    }

    #[test]
    fn expired_and_revoked_stay_refused(scene in scenes(), seconds in 0u64..1_000_000_000) {
        let mut later = scene.clone();
        revoke(&mut later);
        prop_assert!(!admitted(&later) || is_anonymous(&later), "revoked: {later:?}");
        later.now_s += seconds;
        prop_assert!(!admitted(&later) || is_anonymous(&later), "revoked, later: {later:?}");
        if Town::new(&scene).outcome() == "expired_credential" {
            let mut later = scene;
            later.now_s += seconds;
            prop_assert!(!admitted(&later), "expired: {later:?}");
        }
    }
}

fn is_anonymous(scene: &Scene) -> bool {
    Town::new(scene).outcome() == "anonymous"
}

/// Takes something away that access may rest on.
fn remove_grant(scene: &mut Scene, which: usize) {
    match which {
        // A disabled shop refuses; a JWT may be of one that does not exist. So only what an
        // enabled shop grants goes with it.
        0..2 => scene.shops[which].exists &= !scene.shops[which].enabled,
        2..4 => scene.shops[which - 2].enabled = false,
        4..6 => scene.keys[which - 4].exists = false,
        6 => scene.shops.iter_mut().for_each(|shop| shop.widget_origin = None),
        7 => scene.shops.iter_mut().for_each(|shop| shop.url = "https://elsewhere.example"),
        8 => scene.keys.iter_mut().for_each(|key| key.restricted = true),
        9 => scene.key_set_age_s = None,
        _ => remove_scopes(scene),
    }
}

fn remove_scopes(scene: &mut Scene) {
    if let Field::Once(WidgetTokenText::Signed { scopes, .. }) = &mut scene.widget_token {
        *scopes = "";
    }
    if let Field::Once(AuthorizationText::Bearer(jwt)) = &mut scene.authorization {
        jwt.scopes = "";
    }
}

/// Revokes every credential that the request may present, or its issuer's key.
fn revoke(scene: &mut Scene) {
    scene.keys.iter_mut().for_each(|key| key.exists = false);
    if let Field::Once(WidgetTokenText::Signed { revoked, signer, .. }) = &mut scene.widget_token {
        (*revoked, *signer) = (true, Signer::Known);
    }
    if let Field::Once(AuthorizationText::Bearer(jwt)) = &mut scene.authorization {
        jwt.signed = JwtSigned::Forged;
    }
}

/// The alphabets are worth something only if every outcome comes up.
#[test]
fn scenes_reach_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let reached: BTreeSet<_> = (0..5000)
        .map(|_| model::outcome(&scenes().new_tree(&mut runner).unwrap().current()))
        .collect();
    let codes = [
        "bad_request",
        "not_found",
        "missing_credential",
        "invalid_credential",
        "expired_credential",
        "keys_unavailable",
        "needs_key",
        "cross_tenant",
        "shop_disabled",
        "network_not_allowed",
        "origin_mismatch",
        "insufficient_scope",
        "rate_limited",
    ];
    assert_eq!(reached, codes.into_iter().chain(MECHANISMS).collect());
}
