//! The demo's protected service: answers every request with what reached it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

/// Answers with the request as JSON: method, path, headers, and how long the body is.
pub(super) async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(Value::String(earlier)) => {
                earlier.push_str(", ");
                earlier.push_str(&value);
            }
            Some(_) | None => {
                headers.insert(name.to_string(), Value::String(value.into_owned()));
            }
        }
    }
    // A body that breaks off has no length worth telling.
    let body_bytes = body.collect().await.map(|b| b.to_bytes().len()).ok();
    let seen = json!({
        "upstream": "this is the service behind latchkey; it was sent:",
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("/", |p| p.as_str()),
        "headers": headers,
        "body_bytes": body_bytes,
    });
    Ok(super::loopback::json(&seen))
}
