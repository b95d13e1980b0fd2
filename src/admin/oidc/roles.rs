//! From what a provider says of somebody to what they may do here.
//!
//! The strongest role of all groups counts; whoever is a member of shops by several groups sees
//! the shops of all of them. Whoever has no role by any group gets none.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::config::{GroupRole, RoleGrant};
use crate::id::ShopId;
use crate::store::Role;

/// A role, and the shops of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) role: Role,
    pub(super) shops: BTreeSet<ShopId>,
}

/// What the groups of somebody allow; `None`: nothing.
pub(super) fn granted(roles: &[GroupRole], groups: &BTreeSet<&str>) -> Option<Granted> {
    let theirs = || roles.iter().filter(|entry| groups.contains(&*entry.group));
    let role = theirs().map(|entry| role_of(&entry.role)).max()?;
    let mut shops = BTreeSet::new();
    if role == Role::Member {
        for entry in theirs() {
            if let RoleGrant::Member(members) = &entry.role {
                shops.extend(members);
            }
        }
    }
    Some(Granted { role, shops })
}

fn role_of(grant: &RoleGrant) -> Role {
    match grant {
        RoleGrant::Owner => Role::Owner,
        RoleGrant::Operator => Role::Operator,
        RoleGrant::Viewer => Role::Viewer,
        RoleGrant::Member(_) => Role::Member,
    }
}

/// The groups that a claim lists: an array of texts, or one text. Anything else in it is no group.
pub(super) fn groups(claim: Option<&Value>) -> BTreeSet<&str> {
    match claim {
        Some(Value::String(group)) => BTreeSet::from([group.as_str()]),
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
            BTreeSet::new()
        }
    }
}

/// The value at a path of member names.
pub(super) fn at<'v>(members: &'v Map<String, Value>, path: &[Box<str>]) -> Option<&'v Value> {
    let (last, way) = path.split_last()?;
    let mut members = members;
    for name in way {
        members = members.get(&**name)?.as_object()?;
    }
    members.get(&**last).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shops(ids: &[&str]) -> BTreeSet<ShopId> {
        ids.iter().map(|id| ShopId::parse(id).unwrap()).collect()
    }

    #[test]
    fn the_strongest_role_counts_and_shops_add_up() {
        let entry = |group: &str, role| GroupRole { group: group.into(), role };
        let roles = [
            entry("a-team", RoleGrant::Member(shops(&["a", "both"]))),
            entry("b-team", RoleGrant::Member(shops(&["b", "both"]))),
            entry("watch", RoleGrant::Viewer),
            entry("run", RoleGrant::Operator),
            entry("boss", RoleGrant::Owner),
            entry("run", RoleGrant::Viewer),
        ];
        for (groups, expected) in [
            (&[][..], None),
            (&["unknown"], None),
            (&["Boss"], None),
            (&["boss "], None),
            (&["a-team"], Some((Role::Member, shops(&["a", "both"])))),
            (&["a-team", "b-team"], Some((Role::Member, shops(&["a", "b", "both"])))),
            (&["a-team", "watch"], Some((Role::Viewer, shops(&[])))),
            (&["run"], Some((Role::Operator, shops(&[])))),
            (&["watch", "boss", "a-team", "run"], Some((Role::Owner, shops(&[])))),
        ] {
            let found = granted(&roles, &groups.iter().copied().collect());
            assert_eq!(found.map(|found| (found.role, found.shops)), expected, "{groups:?}");
        }
    }

    #[test]
    fn claims() {
        let claims = json!({
            "groups": ["a", 7, null, "b", "a"], "one": "x y", "odd": {"a": true}, "null": null,
            "realm": {"access": {"roles": ["r"]}},
        });
        let Value::Object(claims) = &claims else { panic!("an object") };
        let groups = |path: &[&str]| {
            let path: Vec<Box<str>> = path.iter().map(|name| (*name).into()).collect();
            groups(at(claims, &path)).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(groups(&["groups"]), ["a", "b"]);
        assert_eq!(groups(&["one"]), ["x y"], "a group's name may hold spaces");
        assert_eq!(groups(&["realm", "access", "roles"]), ["r"]);
        for path in [&["odd"][..], &["null"], &["none"], &["groups", "a"], &["realm", "x"], &[]] {
            assert!(groups(path).is_empty(), "{path:?}");
        }
    }
}
