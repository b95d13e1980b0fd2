//! JSON Schema, as far as the description of the admin API uses it: does a value keep to a schema,
//! and values that do.
//!
//! A keyword that is not known here panics: nothing of the description goes unchecked.

use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::{Map, Value, json};

/// The keywords that are looked at, and those that say nothing about values.
const KNOWN: [&str; 25] = [
    "$ref",
    "type",
    "oneOf",
    "anyOf",
    "allOf",
    "enum",
    "const",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "maxItems",
    "items",
    "properties",
    "required",
    "additionalProperties",
    "propertyNames",
    "uniqueItems",
    "description",
    "title",
    "example",
    "examples",
    "default",
    "deprecated",
];

/// The description, for what its schemas refer to.
#[derive(Clone, Copy)]
pub(crate) struct Schemas<'d>(pub(crate) &'d Value);

impl<'d> Schemas<'d> {
    fn resolve(self, reference: &str) -> &'d Value {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// Complains of everything in `value` that does not keep to `schema`.
    pub(crate) fn faults(self, schema: &'d Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(schema, value, "$", &mut faults);
        faults
    }

    /// Where members are listed, an answer has those and no other: others are undocumented.
    fn check(self, schema: &'d Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        self.check_part(schema, value, at, faults);
        let described = self.described(schema);
        let members = value.as_object().filter(|_| !described.is_empty());
        for name in members.into_iter().flat_map(Map::keys) {
            if !described.contains(&name.as_str()) {
                faults.push(format!("{at}.{name}: is not described"));
            }
        }
    }

    /// The members that `schema` lists, in all of its parts; none if it lists none, or allows any.
    fn described(self, schema: &'d Value) -> Vec<&'d str> {
        let Some(schema) = schema.as_object().filter(|s| !s.contains_key("additionalProperties"))
        else {
            return Vec::new();
        };
        let reference = schema.get("$ref").and_then(Value::as_str).map(|r| self.resolve(r));
        let parts = reference.into_iter().chain(list(schema, "allOf"));
        let own = schema.get("properties").and_then(Value::as_object);
        let own = own.into_iter().flat_map(Map::keys).map(String::as_str);
        own.chain(parts.flat_map(|part| self.described(part))).collect()
    }

    fn check_part(self, schema: &'d Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let Some(schema) = schema.as_object() else {
            assert_eq!(schema, &Value::Bool(true), "{at}: no schema");
            return;
        };
        for keyword in schema.keys() {
            assert!(KNOWN.contains(&keyword.as_str()), "{at}: the keyword {keyword} is not known");
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            self.check_part(self.resolve(reference), value, at, faults);
        }
        for part in list(schema, "allOf") {
            self.check_part(part, value, at, faults);
        }
        for choice in ["oneOf", "anyOf"] {
            let choices = list(schema, choice);
            let fits = choices.iter().filter(|c| self.faults(c, value).is_empty()).count();
            if !choices.is_empty() && (fits == 0 || (choice == "oneOf" && fits > 1)) {
                faults.push(format!("{at}: fits {fits} of {choice}: {value}"));
            }
        }
        let types = types(schema);
        if !types.is_empty() && !types.iter().any(|name| is_type(name, value)) {
            faults.push(format!("{at}: {value} is not {types:?}"));
        }
        if schema.contains_key("enum") && !list(schema, "enum").contains(value) {
            faults.push(format!("{at}: {value} is not in the enumeration"));
        }
        check_scalar(schema, value, at, faults);
        self.check_members(schema, value, at, faults);
    }

    fn check_members(
        self,
        schema: &'d Map<String, Value>,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        if let (Some(items), Some(members)) = (schema.get("items"), value.as_array()) {
            for (i, member) in members.iter().enumerate() {
                self.check(items, member, &format!("{at}[{i}]"), faults);
            }
        }
        let Some(members) = value.as_object() else {
            return;
        };
        for name in list(schema, "required") {
            if !members.contains_key(name.as_str().expect("a name")) {
                faults.push(format!("{at}: {name} is missing"));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, member) in members {
            let at = format!("{at}.{name}");
            match (properties.and_then(|p| p.get(name)), schema.get("additionalProperties")) {
                (Some(property), _) => self.check(property, member, &at, faults),
                (None, Some(Value::Bool(false))) => faults.push(format!("{at}: is not described")),
                (None, Some(rest)) => self.check(rest, member, &at, faults),
                (None, None) => {}
            }
        }
    }

    /// Values that keep to `schema`, and that often mean something.
    pub(crate) fn valid(self, schema: &Value) -> BoxedStrategy<Value> {
        let Some(schema) = schema.as_object() else {
            return junk();
        };
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.valid(self.resolve(reference));
        }
        let choices = [list(schema, "oneOf"), list(schema, "anyOf")].concat();
        if !choices.is_empty() {
            return Union::new(choices.iter().map(|choice| self.valid(choice))).boxed();
        }
        if schema.contains_key("enum") {
            return prop::sample::select(list(schema, "enum").to_vec()).boxed();
        }
        let of_type = |name: &&str| match *name {
            "object" => self.object(schema),
            "array" => {
                let item = schema.get("items").map_or_else(junk, |items| self.valid(items));
                prop::collection::vec(item, 0..3).prop_map(Value::from).boxed()
            }
            "string" => string(schema),
            "integer" | "number" => {
                let low = schema.get("minimum").and_then(Value::as_i64).unwrap_or(0);
                let high = schema.get("maximum").and_then(Value::as_i64).unwrap_or(low + 100_000);
                prop_oneof![Just(low), Just(high), low..=high].prop_map(Value::from).boxed()
            }
            "boolean" => any::<bool>().prop_map(Value::from).boxed(),
            _ => Just(Value::Null).boxed(),
        };
        match &*types(schema) {
            [] => junk(),
            types => Union::new(types.iter().map(of_type)).boxed(),
        }
    }

    fn object(self, schema: &Map<String, Value>) -> BoxedStrategy<Value> {
        let mut object = Just(Map::new()).boxed();
        let required = list(schema, "required");
        for (name, property) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let value = self.valid(property);
            let member = if required.contains(&json!(name)) {
                value.prop_map(Some).boxed()
            } else {
                prop::option::weighted(0.6, value).boxed()
            };
            let name = name.clone();
            let with = move |(mut object, member): (Map<String, Value>, Option<Value>)| {
                object.extend(member.map(|value| (name.clone(), value)));
                object
            };
            object = (object, member).prop_map(with).boxed();
        }
        if let Some(rest @ Value::Object(_)) = schema.get("additionalProperties") {
            let names = prop_oneof!["shop-me", "widget-search", "[a-z]{1,8}"];
            let more = prop::collection::btree_map(names, self.valid(rest), 0..3);
            let join = |(mut object, more): (Map<String, Value>, _)| {
                object.extend::<std::collections::BTreeMap<_, _>>(more);
                object
            };
            object = (object, more).prop_map(join).boxed();
        }
        object.prop_map(Value::Object).boxed()
    }
}

fn list<'s>(schema: &'s Map<String, Value>, keyword: &str) -> &'s [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        None => Vec::new(),
        Some(Value::String(name)) => vec![name],
        Some(names) => names.as_array().expect("types").iter().filter_map(Value::as_str).collect(),
    }
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}

fn check_scalar(schema: &Map<String, Value>, value: &Value, at: &str, faults: &mut Vec<String>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let measure = value.as_f64();
    let length = value.as_str().and_then(|text| u32::try_from(text.chars().count()).ok());
    let items = value.as_array().and_then(|items| u32::try_from(items.len()).ok());
    for (measure, low, high) in [
        (measure, "minimum", "maximum"),
        (length.map(f64::from), "minLength", "maxLength"),
        (items.map(f64::from), "minItems", "maxItems"),
    ] {
        let Some(measure) = measure else { continue };
        if bound(low).is_some_and(|low| measure < low)
            || bound(high).is_some_and(|high| measure > high)
        {
            faults.push(format!("{at}: {value} is out of bounds"));
        }
    }
    let is_time = schema.get("format").is_some_and(|format| format == "date-time");
    if let (true, Some(text)) = (is_time, value.as_str())
        && latchkey::clock::Timestamp::parse_rfc3339(text).is_none()
    {
        faults.push(format!("{at}: {text:?} is no date-time"));
    }
}

fn string(schema: &Map<String, Value>) -> BoxedStrategy<Value> {
    if schema.get("format").is_some_and(|format| format == "date-time") {
        let times = ["2030-01-31T12:00:00Z", "2020-02-29T23:59:59.5+02:00", "2099-01-01T00:00:00Z"];
        return prop::sample::select(times.to_vec()).prop_map(Value::from).boxed();
    }
    let low = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
    let words = ["demo", "https://shop.example", "viewer", "member", "search", "10.0.0.0/8", "GET"];
    let known = words.into_iter().map(str::to_owned);
    let example = schema.get("example").and_then(Value::as_str).map(str::to_owned);
    let known: Vec<String> = known.chain(example).filter(|w| w.len() as u64 >= low).collect();
    let any = format!("[ -~äß]{{{low},{}}}", low + 12);
    let any = proptest::string::string_regex(&any).expect("a pattern").boxed();
    let known = if known.is_empty() { any.clone() } else { prop::sample::select(known).boxed() };
    prop_oneof![2 => known, 1 => any].prop_map(Value::from).boxed()
}

/// Any JSON of a few members.
pub(crate) fn junk() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(Value::from("\u{0}\u{7f}\u{202e}")),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}
