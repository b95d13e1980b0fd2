//! The API's own description as a page to read: made of the document that
//! `/api/v1/openapi.json` serves, so that it cannot say anything else. Needs no script.

use std::sync::OnceLock;

use askama::Template;
use serde_json::Value;

use super::frame::Frame;
use super::visit::SignedIn;
use super::{Answer, page};
use crate::admin::api;
use crate::admin::percent::encoded;

#[derive(Template)]
#[template(path = "api.html")]
struct Page {
    frame: Frame,
    base: String,
    reference: &'static Reference,
}

/// The document, in the order in which it is read.
struct Reference {
    title: String,
    description: String,
    groups: Vec<Group>,
    schemas: Vec<Schema>,
}

struct Group {
    name: String,
    title: String,
    anchor: String,
    operations: Vec<Operation>,
}

struct Operation {
    anchor: String,
    method: String,
    path: String,
    summary: String,
    description: String,
    parameters: Vec<Parameter>,
    body: Option<Type>,
    responses: Vec<Response>,
    curl_arguments: String,
}

struct Parameter {
    name: String,
    place: String,
    is_required: bool,
    kind: Type,
    description: String,
}

struct Response {
    status: String,
    description: String,
    kind: Option<Type>,
}

/// A type in words, and the schema it leads to.
#[derive(Clone, Default)]
struct Type {
    words: String,
    schema: Option<String>,
}

struct Schema {
    name: String,
    description: String,
    kind: Type,
    members: Vec<Member>,
}

struct Member {
    name: String,
    is_required: bool,
    kind: Type,
    description: String,
}

/// The page.
pub(super) async fn show(visit: SignedIn) -> Answer {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    let reference = REFERENCE.get_or_init(|| {
        let document = serde_json::to_value(api::description()).unwrap_or_default();
        Reference::of(&document)
    });
    let base = visit.origin().unwrap_or_else(|| "http://localhost".to_owned());
    page(&Page { frame: visit.frame("API", "/api"), base, reference })
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn members(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn items(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

impl Reference {
    fn of(document: &Value) -> Self {
        let info = document.get("info").cloned().unwrap_or_default();
        let mut groups: Vec<Group> = Vec::new();
        for (path, methods) in members(document.get("paths")) {
            for (method, operation) in members(Some(methods)) {
                let tag = items(operation.get("tags")).next().and_then(Value::as_str);
                let tag = tag.unwrap_or("other");
                let made = Operation::of(path, method, operation);
                match groups.iter_mut().find(|group| group.name == tag) {
                    Some(group) => group.operations.push(made),
                    None => groups.push(Group {
                        name: tag.to_owned(),
                        title: capitalized(tag),
                        anchor: format!("group-{}", encoded(&tag.replace(' ', "-"))),
                        operations: vec![made],
                    }),
                }
            }
        }
        let schemas = members(document.pointer("/components/schemas"));
        Self {
            title: text(&info, "title"),
            description: text(&info, "description"),
            groups,
            schemas: schemas.map(|(name, schema)| Schema::of(name, schema)).collect(),
        }
    }
}

impl Operation {
    /// A command to copy.
    fn curl(&self, base: &str) -> String {
        let Self { curl_arguments, path, .. } = self;
        format!("curl{curl_arguments} -H \"Authorization: Bearer $LATCHKEY_TOKEN\" {base}{path}")
    }

    fn label(&self) -> String {
        format!("curl command for {} {}", self.method, self.path)
    }

    fn of(path: &str, method: &str, operation: &Value) -> Self {
        let method = method.to_uppercase();
        let schema = operation.pointer("/requestBody/content").and_then(first_schema);
        let body = schema.map(Type::of);
        let mut curl_arguments = String::new();
        if method != "GET" {
            curl_arguments = format!(" -X {method}");
        }
        if body.is_some() {
            curl_arguments.push_str(" -H 'Content-Type: application/json' -d '{}'");
        }
        let responses = members(operation.get("responses")).map(|(status, response)| Response {
            status: status.clone(),
            description: text(response, "description"),
            kind: response.get("content").and_then(first_schema).map(Type::of),
        });
        Self {
            anchor: format!("op-{}", encoded(&text(operation, "operationId"))),
            path: path.to_owned(),
            summary: text(operation, "summary"),
            description: text(operation, "description"),
            parameters: items(operation.get("parameters")).map(Parameter::of).collect(),
            body,
            responses: responses.collect(),
            method,
            curl_arguments,
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn first_schema(content: &Value) -> Option<&Value> {
    members(Some(content)).next().and_then(|(_, media)| media.get("schema"))
}

impl Parameter {
    fn of(parameter: &Value) -> Self {
        Self {
            name: text(parameter, "name"),
            place: text(parameter, "in"),
            is_required: parameter.get("required").and_then(Value::as_bool).unwrap_or_default(),
            kind: parameter.get("schema").map(Type::of).unwrap_or_default(),
            description: text(parameter, "description"),
        }
    }
}

impl Schema {
    fn of(name: &str, schema: &Value) -> Self {
        let required: Vec<&str> = items(schema.get("required")).filter_map(Value::as_str).collect();
        let member = |(name, schema): (&String, &Value)| Member {
            name: name.clone(),
            is_required: required.contains(&name.as_str()),
            kind: Type::of(schema),
            description: text(schema, "description"),
        };
        Self {
            name: name.to_owned(),
            description: text(schema, "description"),
            kind: Type::of(schema),
            members: members(schema.get("properties")).map(member).collect(),
        }
    }
}

impl Type {
    fn of(schema: &Value) -> Self {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            return Self { words: name.clone(), schema: Some(name) };
        }
        for choice in ["oneOf", "anyOf", "allOf"] {
            let parts: Vec<Self> = items(schema.get(choice)).map(Self::of).collect();
            if !parts.is_empty() {
                let words: Vec<&str> = parts.iter().map(|part| part.words.as_str()).collect();
                let schema = parts.iter().find_map(|part| part.schema.clone());
                return Self { words: words.join(" or "), schema };
            }
        }
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind.as_str()],
            kinds => items(kinds).filter_map(Value::as_str).collect(),
        };
        let mut words = kinds.join(" or ");
        let mut named = None;
        if let Some(of) = schema.get("items").map(Self::of) {
            words = format!("list of {}", of.words);
            named = of.schema;
        } else if let Some(of) = schema.get("additionalProperties").filter(|of| of.is_object()) {
            let of = Self::of(of);
            words = format!("object of {}", of.words);
            named = of.schema;
        }
        let values: Vec<&str> = items(schema.get("enum")).filter_map(Value::as_str).collect();
        if !values.is_empty() {
            words = format!("one of {}", values.join(", "));
        } else if let Some(format) = schema.get("format").and_then(Value::as_str) {
            words = format!("{words} ({format})");
        }
        Self { words, schema: named }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_document_is_read() {
        let document = serde_json::to_value(api::description()).unwrap();
        let reference = Reference::of(&document);
        let operations: usize = reference.groups.iter().map(|group| group.operations.len()).sum();
        let described: usize =
            members(document.get("paths")).map(|(_, path)| members(Some(path)).count()).sum();
        assert_eq!(operations, described);
        assert!(operations > 20);
        for schema in &reference.schemas {
            assert!(!schema.kind.words.is_empty() || !schema.members.is_empty(), "{}", schema.name);
        }
        let known = |kind: &Type| {
            let name = kind.schema.as_ref();
            name.is_none_or(|name| reference.schemas.iter().any(|schema| schema.name == *name))
        };
        for operation in reference.groups.iter().flat_map(|group| &group.operations) {
            assert!(!operation.summary.is_empty(), "{}", operation.anchor);
            assert!(operation.body.iter().all(known));
            assert!(operation.responses.iter().filter_map(|r| r.kind.as_ref()).all(known));
        }
    }
}
