//! Large requests, up to and over what the proxy and latchkey (`server.header_bytes_max`, 16 KiB)
//! take: whatever comes of them, nobody is admitted who would not be otherwise.

use super::super::peer::Kind;
use super::super::scene::{OWN, Scene, Sent, told};
use super::super::table::{Cell, Note};
use crate::support::http::{Request, get};

pub(in super::super) fn fields_6k(scene: &mut Scene) -> Cell {
    judged(scene, |request| padded(request, 1, 6_000), Some(200))
}

pub(in super::super) fn fields_12k(scene: &mut Scene) -> Cell {
    judged(scene, |request| padded(request, 3, 4_000), Some(200))
}

pub(in super::super) fn fields_24k(scene: &mut Scene) -> Cell {
    judged(scene, |request| padded(request, 4, 6_000), None)
}

pub(in super::super) fn fields_96k(scene: &mut Scene) -> Cell {
    judged(scene, |request| padded(request, 16, 6_000), None)
}

pub(in super::super) fn many_fields(scene: &mut Scene) -> Cell {
    judged(scene, |request| padded(request, 150, 1), None)
}

/// The good one is too long as well, and so not good.
pub(in super::super) fn credential(scene: &mut Scene) -> Cell {
    let long = "0".repeat(9_000);
    let before = [format!("sk_{long}"), format!("{} {long}", scene.who.key)];
    let mut cell = Cell::Holds;
    for key in before {
        cell = judged(scene, |request| request.without("x-shop-api-key").key(&key), None);
    }
    cell
}

pub(in super::super) fn path_3k(scene: &mut Scene) -> Cell {
    target(scene, &format!("{OWN}/{}", "x".repeat(3_000)), Some(200))
}

pub(in super::super) fn path_6k(scene: &mut Scene) -> Cell {
    target(scene, &format!("{OWN}/{}", "x".repeat(6_000)), None)
}

pub(in super::super) fn path_12k(scene: &mut Scene) -> Cell {
    target(scene, &format!("{OWN}/{}", "x".repeat(12_000)), None)
}

pub(in super::super) fn query_6k(scene: &mut Scene) -> Cell {
    target(scene, &format!("{OWN}?{}", "x".repeat(6_000)), Some(200))
}

pub(in super::super) fn query_24k(scene: &mut Scene) -> Cell {
    target(scene, &format!("{OWN}?{}", "x".repeat(24_000)), None)
}

fn padded(request: Request, fields: usize, bytes: usize) -> Request {
    let value = "x".repeat(bytes);
    (0..fields).fold(request, |r, at| r.header(&format!("X-Padding-{at}"), &value))
}

fn target(scene: &mut Scene, target: &str, right: Option<u16>) -> Cell {
    judge(scene, &get(target), right)
}

fn judged(scene: &mut Scene, alter: impl Fn(Request) -> Request, right: Option<u16>) -> Cell {
    judge(scene, &alter(get(OWN)), right)
}

/// Sends it with a key, if it has none, and with one that is not good.
fn judge(scene: &mut Scene, request: &Request, right: Option<u16>) -> Cell {
    let has_key = request.names().any(|name| name.eq_ignore_ascii_case("x-shop-api-key"));
    let unknown = format!("sk_{}", "0".repeat(32));
    let bad = if has_key { request.clone() } else { request.clone().key(&unknown) };
    let host = "api.example";
    if let Some(Sent { answer, seen }) = scene.send_bytes("bad key", &bad.bytes(host)) {
        scene.check_unseen("bad key", seen.as_ref());
        if answer.status < 400 {
            scene.complain("bad key", format!("is answered {}", answer.status));
        }
        if has_key {
            return Cell::Is(told(&answer));
        }
    }
    let good = if has_key { bad } else { request.clone().key(&scene.who.key.clone()) };
    let Some(Sent { answer, seen }) = scene.send_bytes("good key", &good.bytes(host)) else {
        return Cell::Is("_closed_".to_owned());
    };
    if right.is_some_and(|right| answer.status != right) {
        scene.complain("good key", format!("is answered {}", told(&answer)));
    }
    if (answer.status == 200) != seen.is_some() || !matches!(answer.status, 200 | 400..=499) {
        scene.complain("good key", format!("is answered {}, seen: {seen:?}", answer.status));
    }
    let padding: usize = request.names().filter(|name| name.starts_with("X-Padding")).count();
    if let Some(seen) = seen {
        let passed = seen.head.matches("adding-").count();
        if passed != padding {
            scene.complain("good key", format!("{passed} of {padding} fields reach the API"));
        }
        let is_told = matches!(scene.kind, Kind::Nginx | Kind::Caddy | Kind::Traefik);
        if !is_told && request.bytes(host).len() > 16 * 1024 {
            scene.note(Note::NotTold);
        }
    }
    Cell::Is(told(&answer))
}
