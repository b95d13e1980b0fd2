//! The JSON of the audit log.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::admin::operations::audit::Entry;
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::store::audit::{Fault, Point, Report};

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditActor {
    /// An operator's or an admin token's id, `socket`, `cli` or `system`.
    pub label: String,
    /// What people called it then.
    pub name: String,
    /// What it might do then.
    pub role: String,
}

/// What something was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditSubject {
    /// Its kind, such as `shop`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The shop that it is or belongs to.
    #[schema(value_type = Option<String>)]
    pub shop: Option<ShopId>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its number; one more than that of the entry before.
    pub seq: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who.
    pub actor: AuditActor,
    /// From which address; `null` if not over a network.
    pub address: Option<String>,
    /// What was done.
    #[schema(example = "shop.created")]
    pub action: String,
    /// To what.
    pub subject: AuditSubject,
    /// What it was, as far as that changed; `null` where there was nothing.
    pub before: Option<Map<String, Value>>,
    /// What it is, as far as that changed; `null` where there is nothing.
    pub after: Option<Map<String, Value>>,
    /// Its place in the chain.
    pub mac: String,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let Entry { seq, mac, record } = entry;
        Self {
            seq,
            at: record.at,
            actor: AuditActor {
                label: record.actor.label,
                name: record.actor.name,
                role: record.actor.role.to_string(),
            },
            address: record.address.map(|address| address.to_string()),
            action: record.action,
            subject: AuditSubject {
                kind: record.subject.kind,
                id: record.subject.id,
                shop: record.subject.shop,
            },
            before: record.before.map(members),
            after: record.after.map(members),
            mac: mac.to_string(),
        }
    }
}

/// The members of an object; anything else as the one member `value`.
fn members(value: Value) -> Map<String, Value> {
    if let Value::Object(members) = value {
        return members;
    }
    std::iter::once(("value".to_owned(), value)).collect()
}

/// Where the audit log ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// The number of the last entry; `null` if there is none.
    pub seq: Option<u64>,
    /// Its place in the chain.
    pub mac: Option<String>,
    /// The two as `expect` of a verification takes them. Keep it where who can write the database
    /// cannot: it shows later whether the whole log was put back to an older state.
    pub expect: Option<String>,
}

impl From<Option<Point>> for AuditHead {
    fn from(point: Option<Point>) -> Self {
        Self {
            seq: point.map(|point| point.seq),
            mac: point.map(|point| point.mac.to_string()),
            expect: point.map(|point| point.to_string()),
        }
    }
}

/// What to verify beside the chain itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditVerify {
    /// A head noted earlier, `<seq>:<mac>`, that the log has to hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

/// Something wrong with the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditFault {
    /// At which entry.
    pub seq: u64,
    /// What kind of fault, in one word.
    #[schema(example = "altered")]
    pub kind: String,
    /// What is wrong.
    pub detail: String,
}

impl From<Fault> for AuditFault {
    fn from(fault: Fault) -> Self {
        Self { seq: fault.seq(), kind: fault.kind().to_owned(), detail: fault.to_string() }
    }
}

/// What a walk along the audit log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerified {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// How many entries there are.
    pub entries: u64,
    /// The number of the first one; those before it were removed by retention.
    pub first: Option<u64>,
    /// Where the log ends.
    pub head: AuditHead,
    /// What is wrong, the first faults of it.
    pub faults: Vec<AuditFault>,
}

impl From<Report> for AuditVerified {
    fn from(report: Report) -> Self {
        Self {
            intact: report.is_intact(),
            entries: report.entries,
            first: report.first,
            head: AuditHead::from(report.head),
            faults: report.faults.into_iter().map(AuditFault::from).collect(),
        }
    }
}
