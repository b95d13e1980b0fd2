//! Widget tokens: issue, list, revoke one, revoke all.
//!
//! Tokens are signed and recorded here; verifying them is `decision::widget_token`'s.

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayString;

use super::validate::Faults;
use super::{Created, Idempotency, OperationError, Page, Resource, gone, keys, now, shops};
use crate::admin::audit::{self, Action, Subject, view};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::{Node, Turn};
use crate::admin::patch::Change;
use crate::clock::Timestamp;
use crate::decision::policy::Policies;
use crate::decision::widget_token::{SCOPES_BYTES_MAX, SigningKey, WidgetToken, sign};
use crate::id::{KeyId, ShopId, TokenId};
use crate::secret::random_bytes;
use crate::store::{ShopRecord, SigningKeyRecord, TokenRecord, WriteTx};

/// A token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// For which shop.
    pub shop: ShopId,
    /// With which scopes; none: every scope, `*`.
    pub scopes: Vec<String>,
    /// For how long; `None`: as the configuration says.
    pub lifetime: Option<Duration>,
    /// Who wants it: a key id, an admin token id, …
    pub issued_by: String,
    /// The API key on whose authority it is wanted, if that is one: it has to be good still.
    pub authority: Option<KeyId>,
    /// Recognizes a repetition.
    pub idempotency: Option<Idempotency>,
}

/// Issues one token. Its text is in the result and nowhere else.
pub fn issue(
    node: &Node,
    caller: &Caller,
    request: IssueRequest,
) -> Result<Created<TokenRecord>, OperationError> {
    caller.require_in(Permission::TokensWrite, &request.shop)?;
    let now = now(node);
    node.mutate(|tx, _, turn| {
        let mut issuer = Issuer::new(node, tx, now)?;
        let issued = issuer.issue(tx, turn, request)?;
        issuer.finish(tx)?;
        if !issued.replayed {
            let token = &issued.record;
            let subject = Subject::widget_token(&token.shop, token.id);
            let after = Some(view::widget_token(token));
            audit::record(tx, caller, now, Action::WidgetTokenIssued, subject, None, after)?;
        }
        Ok(issued)
    })
}

/// Issues a token for each of `requests`, in one transaction; a request that is refused refuses
/// no other. An error of the whole means that none was issued. For the data plane, where the
/// decision said who may; these tokens stand in the list of tokens, not in the audit log, which
/// they would flood.
pub fn issue_batch(
    node: &Node,
    requests: Vec<IssueRequest>,
) -> Result<Vec<Result<Created<TokenRecord>, OperationError>>, OperationError> {
    let now = now(node);
    node.mutate(|tx, _, turn| {
        let mut issuer = Issuer::new(node, tx, now)?;
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            match issuer.issue(tx, turn, request) {
                Err(OperationError::Store(error)) => return Err(error.into()),
                result => results.push(result),
            }
        }
        issuer.finish(tx)?;
        Ok(results)
    })
}

/// Up to `limit` tokens of a shop, from the first after `after`; expired ones are among them until
/// they are pruned.
pub fn list(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    after: Option<TokenId>,
    limit: usize,
) -> Result<Page<TokenRecord>, OperationError> {
    caller.require_in(Permission::TokensRead, shop)?;
    let found = node.store.read(|tx| {
        let Some(_) = tx.shop(shop)? else { return Ok(None) };
        tx.tokens_of_shop(shop, after, limit.saturating_add(1)).map(Some)
    })?;
    Ok(Page::of(found.ok_or(OperationError::NotFound(Resource::Shop))?, limit))
}

/// Revokes a token; a token that is revoked already stays so.
pub fn revoke(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    id: TokenId,
) -> Result<(), OperationError> {
    caller.require_in(Permission::TokensWrite, shop)?;
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let found = tx.token(id)?.filter(|token| token.shop == *shop);
        let mut token = found.ok_or(OperationError::NotFound(Resource::WidgetToken))?;
        if token.revoked_at.is_none() {
            let before = Some(view::widget_token(&token));
            token.revoked_at = Some(now);
            tx.put_token(&token)?;
            let (subject, after) =
                (Subject::widget_token(shop, id), Some(view::widget_token(&token)));
            audit::record(tx, caller, now, Action::WidgetTokenRevoked, subject, before, after)?;
            patch.push(Change::RevokeToken(token));
        }
        Ok(())
    })
}

/// Revokes every token of a shop that was issued until now; from when on tokens are valid. Tokens
/// issued after this call are, even within the same millisecond.
pub fn revoke_all(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
) -> Result<Timestamp, OperationError> {
    caller.require_in(Permission::TokensWrite, shop)?;
    let now = now(node);
    node.mutate(|tx, patch, turn| {
        let old = shops::find(tx, shop)?;
        let mut new = old.clone();
        let next = now + Duration::from_millis(1);
        new.tokens_valid_from = next.max(turn.after_last_issued()).max(old.tokens_valid_from);
        let valid_from = new.tokens_valid_from;
        let new = shops::change_shop(tx, patch, &old, new, now)?;
        shops::record_change(tx, caller, Action::WidgetTokensRevoked, &old, &new)?;
        Ok(valid_from)
    })
}

/// The decision about the request may be old: its body came after. Whoever revoked the key since
/// was told that it is refused, and "revoke all" would not reach a token issued after it.
fn require_good(
    tx: &WriteTx,
    shop: &ShopRecord,
    key: KeyId,
    now: Timestamp,
) -> Result<(), OperationError> {
    let key = keys::find(tx, &shop.id, key)?;
    let over = |until: Option<Timestamp>| until.is_some_and(|until| until <= now);
    if !shop.enabled || over(key.expires_at) || over(key.grace_until) {
        return Err(OperationError::NotFound(Resource::Key));
    }
    Ok(())
}

/// Issues tokens within one transaction.
struct Issuer<'a> {
    node: &'a Node,
    policies: Arc<Policies>,
    signer: SigningKey,
    /// The signing key as it will be stored, and the expiry it was stored with.
    key: SigningKeyRecord,
    stored_expiry: Timestamp,
    now: Timestamp,
}

impl<'a> Issuer<'a> {
    fn new(node: &'a Node, tx: &WriteTx, now: Timestamp) -> Result<Self, OperationError> {
        let keys = tx.signing_keys()?;
        let key = keys.into_iter().rev().find(|key| key.retired_at.is_none());
        let key = key.ok_or_else(|| {
            let message = "there is no signing key; rotate signing keys to make one";
            OperationError::Conflict(message.to_owned())
        })?;
        let signer = SigningKey::new(key.id, &key.key);
        let policies = node.published.load().shared_policies();
        Ok(Self { node, policies, signer, stored_expiry: key.last_expiry, key, now })
    }

    /// Keeps the signing key for as long as the tokens it signed.
    fn finish(self, tx: &mut WriteTx) -> Result<(), OperationError> {
        if self.key.last_expiry > self.stored_expiry {
            tx.put_signing_key(&self.key)?;
        }
        Ok(())
    }

    fn issue(
        &mut self,
        tx: &mut WriteTx,
        turn: &mut Turn,
        request: IssueRequest,
    ) -> Result<Created<TokenRecord>, OperationError> {
        let idempotency = request.idempotency.as_ref();
        if let Some(made) = Idempotency::replay(idempotency, tx, self.now)? {
            let id = TokenId::parse(&made).map_err(|_| gone(Resource::WidgetToken))?;
            let token = tx.token(id)?.ok_or_else(|| gone(Resource::WidgetToken))?;
            return Ok(Created::replayed(token));
        }
        let scopes = self.scopes(&request.scopes)?;
        let policy = &self.policies.widget;
        let lifetime = request.lifetime.unwrap_or(policy.lifetime);
        let mut faults = Faults::default();
        let min = Duration::from_secs(1);
        faults.within("lifetime_seconds", lifetime, min, policy.lifetime_max);
        faults.into_result()?;
        let shop = shops::find(tx, &request.shop)?;
        if let Some(key) = request.authority {
            require_good(tx, &shop, key, self.now)?;
        }
        let issued_at = self.now.max(shop.tokens_valid_from);
        let token = WidgetToken {
            id: TokenId(u128::from_be_bytes(random_bytes(self.node.entropy.as_ref())?)),
            shop: request.shop,
            scopes,
            issued_at,
            expires_at: issued_at + lifetime,
        };
        let record = TokenRecord {
            id: token.id,
            shop: token.shop,
            scopes: token.scopes.to_string(),
            issued_at,
            expires_at: token.expires_at,
            revoked_at: None,
            issued_by: request.issued_by,
        };
        tx.put_token(&record)?;
        Idempotency::note(idempotency, tx, record.id.to_string(), self.now)?;
        self.key.last_expiry = self.key.last_expiry.max(token.expires_at);
        turn.last_issued = turn.last_issued.max(issued_at);
        Ok(Created::new(record, Some(sign(&token, &self.signer))))
    }

    /// Scopes as a token carries them: known, each once.
    fn scopes(&self, asked: &[String]) -> Result<ArrayString<SCOPES_BYTES_MAX>, OperationError> {
        let mut faults = Faults::default();
        let mut granted: Vec<&str> = Vec::new();
        for (i, scope) in asked.iter().enumerate() {
            let known = scope == "*" || self.policies.widget.scopes.iter().any(|s| **s == **scope);
            if !known {
                let all: Vec<&str> = self.policies.widget.scopes.iter().map(|s| &**s).collect();
                let problem = format!("is not a scope; there are `*`, `{}`", all.join("`, `"));
                faults.add(format!("scopes[{i}]"), problem);
            } else if !granted.contains(&scope.as_str()) {
                granted.push(scope);
            }
        }
        faults.into_result()?;
        let text = if granted.is_empty() || granted.contains(&"*") {
            "*".to_owned()
        } else {
            granted.join(" ")
        };
        ArrayString::from(&text).map_err(|_| {
            let problem = format!("are longer than {SCOPES_BYTES_MAX} bytes together; use `*`");
            OperationError::invalid("scopes", problem)
        })
    }
}
