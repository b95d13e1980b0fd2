//! Asking endpoints whether they are well: one task per endpoint and process, on the first
//! worker's thread. What it finds out all workers see.
//!
//! A probe is a request of latchkey's own, on a connection of its own: it carries nobody's
//! credential and no identity fields, so that it can be told from a caller's.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use http::{Request, StatusCode, header};

use super::connect::connect;
use super::endpoint::Endpoint;
use super::h1::H1;
use super::h2::H2;
use super::request_body::RequestBody;
use super::state::State;
use crate::config::ProbeConfig;
use crate::https::with_causes;

const USER_AGENT: &str = concat!("latchkey/", env!("CARGO_PKG_VERSION"), " (probe)");

/// Probes the endpoints of `state` for as long as somebody has it.
pub(super) fn start(state: &Arc<State>) {
    for index in 0..state.endpoints.len() {
        tokio::task::spawn_local(run(Arc::downgrade(state), index));
    }
}

async fn run(state: Weak<State>, index: usize) {
    // In a row; of the kind that the endpoint is not.
    let mut contrary = 0;
    let mut well = true;
    loop {
        let Some(state) = state.upgrade() else {
            return;
        };
        let Some(config) = state.config.probe.clone() else {
            return;
        };
        let result = tokio::time::timeout(config.timeout, probe(&state, index, &config)).await;
        let result = result.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        contrary = if result.is_ok() == well { 0 } else { contrary + 1 };
        let needed = if well { config.failures } else { config.successes };
        if contrary >= needed.get() {
            contrary = 0;
            well = !well;
            tell(&state, index, well, result.err());
        }
        drop(state);
        tokio::time::sleep(config.interval).await;
    }
}

fn tell(state: &State, index: usize, well: bool, reason: Option<String>) {
    let news = state.endpoints.get(index).is_some_and(|e| e.health.probed(well));
    let (upstream, endpoint) = (state.name.as_str(), state.authority(index));
    match reason {
        _ if !news => {}
        Some(reason) => tracing::warn!(
            target: "latchkey::server",
            upstream, endpoint, reason, "endpoint left out: its probes fail"
        ),
        None => tracing::info!(
            target: "latchkey::server",
            upstream, endpoint, "endpoint taken back: its probes succeed"
        ),
    }
}

/// One probe; 2xx is well.
async fn probe(state: &Arc<State>, index: usize, config: &ProbeConfig) -> Result<(), String> {
    let endpoint = Endpoint::new(state, index).ok_or("the endpoint is gone")?;
    let target = state.endpoints.get(index).ok_or("the endpoint is gone")?.target.as_ref();
    let target = target.map_err(ToString::to_string)?;
    let mut request = Request::new(RequestBody::empty());
    *request.uri_mut() = config.path.clone().into();
    request.headers_mut().insert(header::HOST, endpoint.host().clone());
    request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
    endpoint.address(&mut request, target.http2);
    let stream = connect(target, config.timeout).await.map_err(|error| error.to_string())?;
    let status = if target.http2 {
        let mut h2 = H2::new(stream).await.map_err(|error| with_causes(&error))?;
        h2.send(request).await.map_err(|unanswered| with_causes(&unanswered.error))?.status()
    } else {
        let mut h1 = H1::new(stream).await.map_err(|error| with_causes(&error))?;
        let mut answer = pin!(h1.send(request));
        let answer = poll_fn(|cx| {
            h1.poll(cx);
            match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => Poll::Pending,
            }
        });
        answer.await.map_err(|error| with_causes(&error.into_error()))?.status()
    };
    judge(status)
}

fn judge(status: StatusCode) -> Result<(), String> {
    if status.is_success() { Ok(()) } else { Err(format!("it answered {}", status.as_u16())) }
}
