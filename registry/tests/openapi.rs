//! Asks the running registry whether it keeps to its OpenAPI document: requests made from the schemas, good
//! ones and ones with each part wrong, and only the answers that the document lists.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use registry::http::{calls::Call, openapi};
use serde_json::{Map, Value, json};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};
use support::{Identity, Registry};

/// The type that a schema says; null is another's.
fn kind(schema: &Value) -> &str {
    schema["type"]
        .as_str()
        .or(schema["type"][0].as_str())
        .unwrap()
}

/// A value that a schema allows.
fn good(schema: &Value) -> Value {
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema["examples"].get(0).or(schema["enum"].get(0)) {
        return first.clone();
    }
    match kind(schema) {
        "integer" => schema["minimum"].clone(),
        "string" => json!("x"),
        "boolean" => json!(false),
        "array" => json!([good(&schema["items"])]),
        "object" => {
            let fields = schema["properties"].as_object().unwrap();
            Value::Object(
                fields
                    .iter()
                    .map(|(name, of)| (name.clone(), good(of)))
                    .collect(),
            )
        }
        other => unreachable!("{other}"),
    }
}

/// Values that a schema does not allow.
fn bad(schema: &Value) -> Vec<Value> {
    let mut all = vec![
        json!(null),
        json!({"a": 1}),
        json!(1.5),
        json!("\u{7f}"),
        json!([[]]),
        json!(-1),
        json!(true),
    ];
    all.retain(|value| match kind(schema) {
        "string" => {
            !value.is_string() || schema.get("enum").is_some() || schema.get("examples").is_some()
        }
        "boolean" => !value.is_boolean(),
        _ => true,
    });
    // As if it were left out.
    all.retain(|value| !value.is_null() || !schema["type"].is_array());
    if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        all.extend(
            least
                .checked_sub(1)
                .into_iter()
                .chain(most.checked_add(1))
                .map(|beyond| json!(beyond)),
        );
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        all.push(Value::Array(vec![
            good(&schema["items"]);
            usize::try_from(most).unwrap() + 1
        ]));
    }
    if let Some(most) = schema["maxLength"].as_u64() {
        all.push(json!("x".repeat(usize::try_from(most).unwrap() + 1)));
    }
    all
}

/// Status and body of a call, by a member or by the operator.
fn ask(
    registry: &Registry,
    identity: &Identity,
    operator: bool,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    if !operator {
        return registry.call(Some(identity), method, path, body);
    }
    let mut socket = UnixStream::connect(&registry.paths.admin_socket).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    write!(socket, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// Whether an answer is one that the operation lists, in the form that it says.
#[track_caller]
fn check(operation: &Value, (status, body): &(u16, String), asked: &str) {
    let listed = &operation["responses"][status.to_string()];
    assert!(!listed.is_null(), "{asked}: {status} is not listed: {body}");
    assert_ne!(*status, 500, "{asked}: {body}");
    if *status == 204 {
        return assert_eq!(body, "");
    }
    let document: Map<String, Value> = serde_json::from_str(body).unwrap();
    let schema = &listed["content"]["application/json"]["schema"];
    let needed = if schema.is_null() {
        vec![json!("title"), json!("status")]
    } else {
        schema["required"].as_array().unwrap().clone()
    };
    for field in needed {
        assert!(
            document.contains_key(field.as_str().unwrap()),
            "{asked}: no {field} in {body}"
        );
    }
}

/// A registry and a member of it, which send requests and compare each answer with the document.
struct Conversation {
    registry: Registry,
    node: Identity,
    requests: usize,
}

impl Conversation {
    /// Sends one request and checks the answer against `operation`.
    fn send(&mut self, call: &OperatedCall<'_>, path: &str, body: &str, must_fail: bool) {
        // A minute for each, so that nobody is slowed down; certificates outlive that.
        self.registry.pass(60);
        let method = call.method;
        let answer = ask(
            &self.registry,
            &self.node,
            call.operator,
            method,
            path,
            body,
        );
        let words = format!("{method} {path} {body}");
        check(call.operation, &answer, &words);
        assert!(!must_fail || answer.0 >= 400, "{words}: {}", answer.0);
        self.requests += 1;
    }

    /// Sends a good body, broken ones, and one with each field out of range.
    fn try_bodies(&mut self, call: &OperatedCall<'_>) {
        let schema = &call.operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            return self.send(call, call.path, "", false);
        }
        let whole = good(schema);
        self.send(call, call.path, &whole.to_string(), false);
        self.send(call, call.path, "{", true);
        self.send(call, call.path, &"x".repeat(9_000), true);
        for (field, field_schema) in schema["properties"].as_object().unwrap() {
            for value in bad(field_schema) {
                let mut wrong = whole.clone();
                wrong[field] = value.clone();
                self.send(call, call.path, &wrong.to_string(), true);
            }
        }
    }

    /// Sends each query parameter at its minimum, and out of range.
    fn try_parameters(&mut self, call: &OperatedCall<'_>) {
        let path = call.path;
        for parameter in call.operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let least = format!("{path}?{name}={}", parameter["schema"]["minimum"]);
            self.send(call, &least, "", false);
            let beyond = u128::from(parameter["schema"]["maximum"].as_u64().unwrap()) + 1;
            for wrong in ["-1", "x", "", "1.5", &beyond.to_string()] {
                let path = format!("{path}?{name}={wrong}");
                self.send(call, &path, "", true);
                let (_, body) = ask(
                    &self.registry,
                    &self.node,
                    call.operator,
                    call.method,
                    &path,
                    "",
                );
                let problem: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(problem["field"], *name, "{body}");
            }
        }
    }
}

/// One operation of the document.
struct OperatedCall<'a> {
    operator: bool,
    method: &'a str,
    path: &'a str,
    operation: &'a Value,
}

#[test]
fn the_registry_answers_as_its_document_says() {
    let registry = Registry::start();
    let node = registry.member();
    let mut conversation = Conversation {
        registry,
        node,
        requests: 0,
    };
    for operator in [false, true] {
        let document = openapi::document(operator);
        let mut described = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let method = &method.to_ascii_uppercase();
                let call = OperatedCall {
                    operator,
                    method,
                    path,
                    operation,
                };
                conversation.try_bodies(&call);
                conversation.try_parameters(&call);
                described += 1;
            }
        }
        let calls = Call::by_path(operator)
            .into_iter()
            .flat_map(|(_, calls)| calls);
        assert_eq!(described, calls.count());
    }
    assert!(conversation.requests > 250, "{}", conversation.requests);
}

#[test]
fn other_methods_and_paths_are_no_calls() {
    let registry = Registry::start();
    let node = registry.member();
    for operator in [false, true] {
        for (path, calls) in Call::by_path(operator) {
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                if calls.iter().any(|call| call.route().0.as_str() == method) {
                    continue;
                }
                let (status, body) = ask(&registry, &node, operator, method, path, "");
                assert_eq!(status, 405, "{method} {path}: {body}");
            }
        }
        assert_eq!(
            ask(&registry, &node, operator, "GET", "/v1/nothing", "").0,
            404
        );
    }
}
