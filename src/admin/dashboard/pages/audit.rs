//! The audit log: read it, see what each entry changed, verify the chain, take it away as a file.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::Query;
use serde::Deserialize;
use serde_json::Value;

use super::{figures, require};
use crate::admin::api::audit as exported;
use crate::admin::audit::Action;
use crate::admin::caller::Permission;
use crate::admin::dashboard::form::{Errors, Form};
use crate::admin::dashboard::frame::Frame;
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::audit::{self, Entry, Filter};
use crate::admin::percent::encoded;
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::store::audit::Report;

/// Entries on one page.
const PAGE: usize = 50;

/// Which entries are wanted, as the form says it; nothing filled in is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    action: String,
    actor: String,
    subject: String,
    shop: String,
    from: String,
    to: String,
    before: String,
}

impl Wanted {
    /// The filter, and what cannot be one.
    fn filter(&self) -> (Filter, Errors) {
        let mut errors = Errors::default();
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let mut filter = Filter {
            action: Action::parse(self.action.trim()),
            actor: text(&self.actor),
            subject: text(&self.subject),
            ..Filter::default()
        };
        if let Some(shop) = text(&self.shop) {
            match ShopId::parse(&shop) {
                Ok(shop) => filter.shop = Some(shop),
                Err(_) => errors.add("shop", "is no shop's id"),
            }
        }
        for (name, text, place) in
            [("from", &self.from, &mut filter.from), ("to", &self.to, &mut filter.to)]
        {
            match day(text.trim(), name == "to") {
                Ok(at) => *place = at,
                Err(problem) => errors.add(name, problem),
            }
        }
        (filter, errors)
    }

    /// The address of the page before the entry `before`.
    fn page(&self, before: Option<u64>) -> String {
        let before = before.map(|seq| seq.to_string()).unwrap_or_default();
        let fields = [
            ("action", &self.action),
            ("actor", &self.actor),
            ("subject", &self.subject),
            ("shop", &self.shop),
            ("from", &self.from),
            ("to", &self.to),
            ("before", &before),
        ];
        let given = fields.iter().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<String> =
            given.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        if pairs.is_empty() { "/audit".to_owned() } else { format!("/audit?{}", pairs.join("&")) }
    }

    fn is_any(&self) -> bool {
        let Self { action, actor, subject, shop, from, to, .. } = self;
        [action, actor, subject, shop, from, to].iter().any(|field| !field.is_empty())
    }
}

/// The beginning of a day or, if the day is still wanted, the end of it.
fn day(text: &str, to_its_end: bool) -> Result<Option<Timestamp>, &'static str> {
    let end = super::parse::last_day(text)?;
    let day = std::time::Duration::from_secs(24 * 3600);
    Ok(end.map(|end| if to_its_end { end } else { end - day }))
}

/// A member that an entry changed.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    member: String,
    before: Option<String>,
    after: Option<String>,
}

/// An entry as it is shown.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    seq: u64,
    at: Timestamp,
    action: String,
    actor: String,
    label: String,
    address: String,
    subject: String,
    /// The page of what it is about, if that has one.
    href: Option<String>,
    changes: Vec<Change>,
}

impl Row {
    fn of(entry: &Entry) -> Self {
        let record = &entry.record;
        let subject = &record.subject;
        Self {
            seq: entry.seq,
            at: record.at,
            action: record.action.clone(),
            actor: record.actor.name.clone(),
            label: record.actor.label.clone(),
            address: record.address.map(|address| address.to_string()).unwrap_or_default(),
            subject: named(&subject.kind, &subject.id),
            href: subject.shop.map(|shop| match subject.kind.as_str() {
                "key" => format!("/shops/{shop}/keys/{}", encoded(&subject.id)),
                "widget_token" => format!("/shops/{shop}/tokens"),
                _ => format!("/shops/{shop}"),
            }),
            changes: changes(record.before.as_ref(), record.after.as_ref()),
        }
    }
}

/// A subject's kind and id; the kind once, where the id says it too.
fn named(kind: &str, id: &str) -> String {
    if id.starts_with(&format!("{kind}_")) {
        return id.to_owned();
    }
    format!("{} {id}", kind.replace('_', " "))
}

/// What differs, member by member.
fn changes(before: Option<&Value>, after: Option<&Value>) -> Vec<Change> {
    let members = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let (old, new) = (members(before), members(after));
    if old.is_none() && new.is_none() {
        return Vec::new();
    }
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &&String| Change {
        member: name.replace('_', " "),
        before: old.get(*name).map(said),
        after: new.get(*name).map(said),
    };
    names.iter().map(change).filter(|change| change.before != change.after).collect()
}

/// A value as people read it.
fn said(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(said).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| match name.strip_suffix("_seconds") {
                Some(name) => format!("{} {} s", name.replace('_', " "), said(value)),
                None => format!("{} {}", name.replace('_', " "), said(value)),
            };
            let given = members.iter().filter(|(_, value)| !value.is_null());
            given.map(member).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// What a verification found.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    is_intact: bool,
    entries: String,
    first: Option<u64>,
    head: Option<String>,
    faults: Vec<String>,
}

impl Verdict {
    fn of(report: &Report) -> Self {
        Self {
            is_intact: report.is_intact(),
            entries: figures::count(report.entries),
            first: report.first,
            head: report.head.map(|head| head.to_string()),
            faults: report.faults.iter().map(ToString::to_string).collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Page {
    frame: Frame,
    wanted: Wanted,
    errors: Errors,
    actions: Vec<(String, String)>,
    rows: Vec<Row>,
    next: Option<String>,
    first: String,
    is_first: bool,
    is_filtered: bool,
    verdict: Option<Verdict>,
}

/// `GET /audit`
pub(super) async fn show(visit: SignedIn, Query(wanted): Query<Wanted>) -> Answer {
    page(&shown(&visit, wanted, None).await?)
}

async fn shown(
    visit: &SignedIn,
    wanted: Wanted,
    verdict: Option<Verdict>,
) -> Result<Page, crate::admin::dashboard::failure::Failure> {
    let (filter, errors) = wanted.filter();
    let before = wanted.before.parse::<u64>().ok();
    let (entries, next) = visit
        .at_leisure(move |node, caller| audit::list(node, caller, &filter, before, PAGE))
        .await??;
    let every = (String::new(), "Everything".to_owned());
    let actions = Action::ALL.iter().map(|a| (a.as_str().to_owned(), a.as_str().to_owned()));
    Ok(Page {
        frame: visit.frame("Audit log", "/audit"),
        actions: std::iter::once(every).chain(actions).collect(),
        rows: entries.iter().map(Row::of).collect(),
        next: next.map(|next| wanted.page(Some(next))),
        first: wanted.page(None),
        is_first: before.is_none(),
        is_filtered: wanted.is_any(),
        wanted,
        errors,
        verdict,
    })
}

/// `POST /audit/verify`
pub(super) async fn verify(visit: SignedIn, _form: Form) -> Answer {
    let report = visit.at_leisure(move |node, caller| audit::verify(node, caller, None)).await??;
    page(&shown(&visit, Wanted::default(), Some(Verdict::of(&report))).await?)
}

/// `GET /audit.jsonl`
pub(super) async fn export(visit: SignedIn) -> Answer {
    require(&visit, Permission::AuditRead)?;
    let export = visit.load(audit::export).await?;
    Ok(exported::file(visit.node(), export))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_told_member_by_member() {
        let old = json!({"name": "a", "enabled": true, "same": 1, "origins": ["x"]});
        let new = json!({"name": "b", "enabled": false, "same": 1, "origins": []});
        let told = changes(Some(&old), Some(&new));
        let told: Vec<_> = told
            .iter()
            .map(|c| (c.member.as_str(), c.before.as_deref(), c.after.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("enabled", Some("yes"), Some("no")),
                ("name", Some("a"), Some("b")),
                ("origins", Some("x"), Some("none")),
            ]
        );
        let made = changes(None, Some(&json!({"expires_at": null})));
        assert_eq!((made[0].member.as_str(), made[0].before.as_deref()), ("expires at", None));
        let limits = json!({"shop-me": {"limit": 7, "window_seconds": 60, "burst": null}});
        let told = changes(None, Some(&limits));
        let told = told[0].after.as_deref().unwrap();
        assert_eq!(told, "limit 7, window 60 s");
        assert_eq!(named("key", "key_01"), "key_01");
        assert_eq!(named("widget_token", "wt_01"), "widget token wt_01");
        assert_eq!(changes(None, None), []);
        assert_eq!(changes(Some(&json!("text")), None), []);
    }

    #[test]
    fn filters_are_read_and_kept() {
        let wanted = Wanted {
            action: "shop.created".to_owned(),
            actor: " Ada & co ".to_owned(),
            from: "2027-01-02".to_owned(),
            to: "2027-01-02".to_owned(),
            ..Wanted::default()
        };
        let (filter, errors) = wanted.filter();
        assert!(errors.is_empty());
        assert_eq!(filter.action.map(Action::as_str), Some("shop.created"));
        assert_eq!(filter.actor.as_deref(), Some("Ada & co"));
        let day = [filter.from, filter.to].map(|at| at.unwrap().to_string());
        assert_eq!(day, ["2027-01-02T00:00:00Z", "2027-01-03T00:00:00Z"]);
        assert!(wanted.page(Some(7)).contains("actor=%20Ada%20%26%20co%20&"));
        assert!(wanted.page(Some(7)).ends_with("&before=7"));
        let wrong = Wanted { shop: "a/b".into(), from: "soon".into(), ..Wanted::default() };
        let (_, errors) = wrong.filter();
        assert!(errors.get("shop").is_some() && errors.get("from").is_some());
        assert_eq!(Wanted::default().page(None), "/audit");
    }
}
