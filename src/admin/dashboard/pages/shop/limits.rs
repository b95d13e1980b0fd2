//! The limits of a shop or a key that differ from the configuration's, and how much of each a shop
//! has left.
//!
//! Policies are the configuration's: here one is only replaced by name, for one shop or one key.

use std::time::Duration;

use askama::Template;

use super::super::{Segments, figures, parse, renamed};
use super::key;
use super::{Head, Tab, find, may_in};
use crate::admin::caller::Permission;
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::node::Node;
use crate::admin::operations::limits::{self, LimitFields, Which};
use crate::admin::operations::{OperationError, Precondition, Version, standing};
use crate::decision::policy::LimitPolicy;
use crate::decision::rate_limit::{Algorithm, Quota};
use crate::id::{KeyId, ShopId};
use crate::store::{LimitRecord, ShopRecord};

/// What a limit's form holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LimitForm {
    pub(super) policy: String,
    pub(super) limit: String,
    pub(super) window: String,
    pub(super) burst: String,
}

impl LimitForm {
    fn sent(form: &Form) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        Self {
            policy: text("policy"),
            limit: text("limit"),
            window: text("window"),
            burst: text("burst"),
        }
    }

    /// As the operations take it.
    fn fields(&self) -> Result<LimitFields, Errors> {
        let mut errors = Errors::default();
        let limit = parse::count(&self.limit).map_err(|problem| errors.add("limit", problem));
        let window = parse::duration(&self.window).map_err(|problem| errors.add("window", problem));
        let burst = match self.burst.as_str() {
            "" => Ok(None),
            text => parse::count(text).map(Some).map_err(|problem| errors.add("burst", problem)),
        };
        match (limit, window, burst) {
            (Ok(limit), Ok(window), Ok(burst)) => {
                Ok(LimitFields { policy: self.policy.clone(), limit, window, burst })
            }
            _ => Err(errors),
        }
    }
}

/// A limit of its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) policy: String,
    /// Such as `100 in 1 minute`.
    pub(super) quota: String,
    /// What the configuration says instead; `None`: it has no such limit any more.
    pub(super) usual: Option<String>,
}

/// The limits of a shop's or a key's own, with the form that adds one.
#[derive(Debug)]
pub(super) struct Overrides {
    pub(super) rows: Vec<Override>,
    /// What can be replaced.
    pub(super) policies: Vec<(String, String)>,
    pub(super) form: LimitForm,
    pub(super) errors: Errors,
    /// Where the form is sent.
    pub(super) action: String,
    pub(super) may_write: bool,
}

impl Overrides {
    pub(super) fn of(node: &Node, own: &[LimitRecord], action: String, may_write: bool) -> Self {
        let policies = node.published.load().shared_policies();
        let choice = |policy: &LimitPolicy| {
            let name = policy.name.to_string();
            let label = format!("{name} (usually {})", usual(policy));
            (name, label)
        };
        let row = |own: &LimitRecord| Override {
            policy: own.policy.to_string(),
            quota: quota(u64::from(own.limit), own.window_s, own.burst.map(u64::from)),
            usual: policies.limits.iter().find(|p| p.name == own.policy).map(usual),
        };
        Self {
            rows: own.iter().map(row).collect(),
            policies: policies.limits.iter().map(choice).collect(),
            form: LimitForm::default(),
            errors: Errors::default(),
            action,
            may_write,
        }
    }

    fn returned(self, form: LimitForm, errors: Errors) -> Self {
        Self { form, errors, ..self }
    }
}

fn usual(policy: &LimitPolicy) -> String {
    of_quota(&policy.quota, policy.algorithm)
}

fn of_quota(own: &Quota, algorithm: Algorithm) -> String {
    let (limit, burst) = (u64::from(own.limit.get()), u64::from(own.burst.get()));
    let apart = algorithm == Algorithm::TokenBucket && burst != limit;
    quota(limit, own.window_s(), apart.then_some(burst))
}

fn quota(limit: u64, window_s: u64, burst: Option<u64>) -> String {
    let (limit, window) = (figures::count(limit), figures::exact_length(window_s));
    match burst {
        None => format!("{limit} in {window}"),
        Some(burst) => format!("{limit} in {window}, {} at once", figures::count(burst)),
    }
}

/// `own` with `fields` in the place of the limit of the same name.
fn with(own: &[LimitRecord], fields: &LimitFields) -> Vec<LimitFields> {
    let keep = own.iter().filter(|limit| limit.policy.as_str() != fields.policy);
    let kept = keep.map(|limit| LimitFields {
        policy: limit.policy.to_string(),
        limit: limit.limit,
        window: Duration::from_secs(limit.window_s),
        burst: limit.burst,
    });
    kept.chain([fields.clone()]).collect()
}

/// How much of a quota all of a shop's requests together have left.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    policy: String,
    quota: String,
    /// Whether the quota is the shop's own.
    is_own: bool,
    left: u32,
    at_once: u32,
    /// Until it is whole again.
    whole_in: Option<String>,
}

/// Where the shop `id` stands, in words.
fn standings(visit: &SignedIn, id: &ShopId) -> Result<Vec<Standing>, OperationError> {
    let all = standing::of_shop(visit.node(), visit.caller(), id)?;
    Ok(all.iter().map(Standing::of).collect())
}

impl Standing {
    fn of(at: &standing::Standing) -> Self {
        Self {
            policy: at.policy.to_string(),
            quota: of_quota(&at.quota, at.algorithm),
            is_own: at.is_own,
            left: at.left,
            at_once: at.at_once,
            whole_in: (at.left < at.at_once).then(|| figures::duration(at.whole_in_s)),
        }
    }
}

#[derive(Template)]
#[template(path = "shop_limits.html")]
struct Page {
    frame: Frame,
    head: Head,
    limits: Overrides,
    standings: Vec<Standing>,
}

fn shown(visit: &SignedIn, shop: &ShopRecord) -> Result<Page, OperationError> {
    let head = Head::of(shop, Tab::Limits);
    let may_write = may_in(visit, Permission::LimitsWrite, &shop.id);
    let action = format!("{}/limits", head.base);
    Ok(Page {
        frame: visit.frame(format!("Limits of {}", head.title), "/shops"),
        limits: Overrides::of(visit.node(), &shop.limits, action, may_write),
        standings: standings(visit, &shop.id)?,
        head,
    })
}

/// `GET /shops/{shop}/limits`
pub(in super::super) async fn show(visit: SignedIn, Segments(id): Segments<ShopId>) -> Answer {
    let shop = find(&visit, id).await?;
    page(&shown(&visit, &shop)?)
}

/// `POST /shops/{shop}/limits`
pub(in super::super) async fn put_of_shop(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    form: Form,
) -> Answer {
    let shop = find(&visit, id).await?;
    let sent = LimitForm::sent(&form);
    let shown = shown(&visit, &shop)?;
    let again = |sent: LimitForm, errors: Errors| Page {
        limits: shown.limits.returned(sent, errors),
        ..shown
    };
    let fields = match sent.fields() {
        Ok(fields) => with(&shop.limits, &fields),
        Err(errors) => return invalid_fields(&again(sent, errors)),
    };
    let condition = Precondition::unchanged_since(Version::from(&shop));
    let put = visit
        .blocking(move |node, caller| limits::put_of_shop(node, caller, &id, &fields, &condition));
    match put.await? {
        Ok(_) => Ok(visit.go(&format!("/shops/{id}/limits"), Flash::good(SAVED))),
        Err(error) => invalid(renamed(error, own_field), |errors| again(sent, errors)),
    }
}

const SAVED: &str = "Saved. The new limit counts from the next request on.";
const REMOVED: &str = "Removed. The configuration's limit counts again.";

/// The field of the form that the operation calls `shop-me.window_seconds`.
fn own_field(field: &str) -> String {
    match field.rsplit_once('.').map(|(_, member)| member) {
        Some("window_seconds") => "window".to_owned(),
        Some(member) => member.to_owned(),
        None => "policy".to_owned(),
    }
}

/// `POST /shops/{shop}/limits/remove`
pub(in super::super) async fn remove_of_shop(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    form: Form,
) -> Answer {
    let which = Which::Of(form.text("policy").to_owned());
    visit
        .load(move |node, caller| {
            limits::delete_of_shop(node, caller, &id, &which, &Precondition::none())
        })
        .await?;
    Ok(visit.go(&format!("/shops/{id}/limits"), Flash::good(REMOVED)))
}

/// `POST /shops/{shop}/keys/{key}/limits`
pub(in super::super) async fn put_of_key(
    visit: SignedIn,
    Segments((shop, key)): Segments<(ShopId, KeyId)>,
    form: Form,
) -> Answer {
    let sent = LimitForm::sent(&form);
    let (mut again, record) = key::load(&visit, shop, key).await?;
    let fields = match sent.fields() {
        Ok(fields) => with(&record.limits, &fields),
        Err(errors) => {
            again.limits = again.limits.returned(sent, errors);
            return invalid_fields(&again);
        }
    };
    let condition = Precondition::unchanged_since(Version::from(&record));
    let put = visit.blocking(move |node, caller| {
        limits::put_of_key(node, caller, &shop, key, &fields, &condition)
    });
    match put.await? {
        Ok(_) => Ok(visit.go(&format!("/shops/{shop}/keys/{key}"), Flash::good(SAVED))),
        Err(error) => invalid(renamed(error, own_field), |errors| {
            again.limits = again.limits.returned(sent, errors);
            again
        }),
    }
}

/// `POST /shops/{shop}/keys/{key}/limits/remove`
pub(in super::super) async fn remove_of_key(
    visit: SignedIn,
    Segments((shop, key)): Segments<(ShopId, KeyId)>,
    form: Form,
) -> Answer {
    let which = Which::Of(form.text("policy").to_owned());
    visit
        .load(move |node, caller| {
            limits::delete_of_key(node, caller, &shop, key, &which, &Precondition::none())
        })
        .await?;
    Ok(visit.go(&format!("/shops/{shop}/keys/{key}"), Flash::good(REMOVED)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Name;

    fn form(limit: &str, window: &str, burst: &str) -> LimitForm {
        let own = str::to_owned;
        LimitForm { policy: own("p"), limit: own(limit), window: own(window), burst: own(burst) }
    }

    #[test]
    fn forms_become_limits_or_errors_beside_their_fields() {
        let fields = form("5", "1m", "").fields().unwrap();
        assert_eq!((fields.limit, fields.window.as_secs(), fields.burst), (5, 60, None));
        assert_eq!(form("5", "1m", "9").fields().unwrap().burst, Some(9));
        let errors = form("few", "1 hour", "-").fields().unwrap_err();
        for field in ["limit", "window", "burst"] {
            assert!(errors.get(field).is_some(), "{field}");
        }
        assert_eq!(own_field("shop-me.window_seconds"), "window");
        assert_eq!(own_field("shop-me.limit"), "limit");
        assert_eq!(own_field("shop-me"), "policy");
    }

    #[test]
    fn one_limit_is_replaced_and_the_others_stay() {
        let own = |policy: &str| LimitRecord {
            policy: Name::parse(policy).unwrap(),
            limit: 1,
            window_s: 60,
            burst: None,
        };
        let fields = form("5", "1m", "").fields().unwrap();
        let all = with(&[own("p"), own("q")], &fields);
        let told: Vec<_> = all.iter().map(|l| (l.policy.as_str(), l.limit)).collect();
        assert_eq!(told, [("q", 1), ("p", 5)]);
    }
}
