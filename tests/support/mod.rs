//! What the integration tests stand on: the running binary and real peers on loopback.

pub(crate) mod browser;
pub(crate) mod collector;
pub(crate) mod dashboard;
pub(crate) mod gateway;
pub(crate) mod h2;
pub(crate) mod http;
pub(crate) mod idp;
pub(crate) mod openid;
pub(crate) mod schema;
pub(crate) mod script;
pub(crate) mod secrets;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod world;

use std::time::Duration;

/// Asks again and again, without hurry, until there is an answer; panics when patience ends.
///
/// Only for what the binary does by itself as time passes (an expiry, a refill), which no signal
/// announces.
pub(crate) fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("it did not happen in time");
}
