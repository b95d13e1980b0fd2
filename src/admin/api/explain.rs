//! `POST /explain`: what would come of a request, stage by stage.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::body::Body;
use super::problem::{Problem, ProblemBody};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::explain;
use crate::admin::operations::explanation::{ExplainRequest, Explanation};

/// Explains what would come of a request. Nothing is charged.
#[utoipa::path(post, path = "/explain", tag = "node", operation_id = "explain",
    request_body = ExplainRequest,
    responses(
        (status = 200, description = "Every stage, its verdict and why", body = Explanation),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn explain(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Body { value, .. }: Body<ExplainRequest>,
) -> Result<Json<Explanation>, Problem> {
    Ok(Json(explain::explain(&node, &caller, &value)?))
}
