//! Compares a running registry with its OpenAPI document: sends valid requests made from the schemas, and requests with
//! each part invalid, and accepts only the answers that the document lists.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use registry::http::{calls::Call, openapi};
use serde_json::{Map, Value, json};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};
use support::{Identity, Registry};

/// Returns the type of a schema; of a type that may be null too, the other one.
fn type_of(schema: &Value) -> &str {
    schema["type"]
        .as_str()
        .or(schema["type"][0].as_str())
        .unwrap()
}

/// Returns a value that a schema allows.
fn valid_value(schema: &Value) -> Value {
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema["examples"].get(0).or(schema["enum"].get(0)) {
        return first.clone();
    }
    match type_of(schema) {
        "integer" => schema["minimum"].clone(),
        "string" => json!("x"),
        "boolean" => json!(false),
        "array" => json!([valid_value(&schema["items"])]),
        "object" => {
            let fields = schema["properties"].as_object().unwrap();
            Value::Object(
                fields
                    .iter()
                    .map(|(name, of)| (name.clone(), valid_value(of)))
                    .collect(),
            )
        }
        other => unreachable!("{other}"),
    }
}

/// Returns values that a schema does not allow.
fn invalid_values(schema: &Value) -> Vec<Value> {
    let mut all = vec![
        json!(null),
        json!({"a": 1}),
        json!(1.5),
        json!("\u{7f}"),
        json!([[]]),
        json!(-1),
        json!(true),
    ];
    all.retain(|value| match type_of(schema) {
        "string" => {
            !value.is_string() || schema.get("enum").is_some() || schema.get("examples").is_some()
        }
        "boolean" => !value.is_boolean(),
        _ => true,
    });
    // Null is allowed where it means the same as a missing field.
    all.retain(|value| !value.is_null() || !schema["type"].is_array());
    if let (Some(min), Some(max)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        all.extend(
            min.checked_sub(1)
                .into_iter()
                .chain(max.checked_add(1))
                .map(|beyond| json!(beyond)),
        );
    }
    if let Some(max) = schema["maxItems"].as_u64() {
        all.push(Value::Array(vec![
            valid_value(&schema["items"]);
            usize::try_from(max).unwrap() + 1
        ]));
    }
    if let Some(max) = schema["maxLength"].as_u64() {
        all.push(json!("x".repeat(usize::try_from(max).unwrap() + 1)));
    }
    all
}

/// Makes a call as a member or as the operator; returns the status and the body.
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

/// Checks that an operation lists the status of an answer, and that the answer has the required fields.
#[track_caller]
fn check(operation: &Value, (status, body): &(u16, String), request: &str) {
    let listed = &operation["responses"][status.to_string()];
    assert!(
        !listed.is_null(),
        "{request}: {status} is not listed: {body}"
    );
    assert_ne!(*status, 500, "{request}: {body}");
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
            "{request}: no {field} in {body}"
        );
    }
}

/// A registry with a member, and the number of requests that were sent to it.
struct Conversation {
    registry: Registry,
    node: Identity,
    requests: usize,
}

impl Conversation {
    /// Sends one request and checks the answer against `operation`.
    fn send(&mut self, call: &OperatedCall<'_>, path: &str, body: &str, expect_rejection: bool) {
        // A minute passes before each request, so that no limit is reached. The certificates last longer than the test.
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
        assert!(
            !expect_rejection || answer.0 >= 400,
            "{words}: {}",
            answer.0
        );
        self.requests += 1;
    }

    /// Sends a good body, broken ones, and one with each field out of range.
    fn try_bodies(&mut self, call: &OperatedCall<'_>) {
        let schema = &call.operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            return self.send(call, call.path, "", false);
        }
        let valid = valid_value(schema);
        self.send(call, call.path, &valid.to_string(), false);
        self.send(call, call.path, "{", true);
        self.send(call, call.path, &"x".repeat(9_000), true);
        for (field, field_schema) in schema["properties"].as_object().unwrap() {
            for value in invalid_values(field_schema) {
                let mut wrong = valid.clone();
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
            let min = format!("{path}?{name}={}", parameter["schema"]["minimum"]);
            self.send(call, &min, "", false);
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
fn the_registry_answers_as_its_openapi_document_describes() {
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
fn other_methods_and_paths_are_rejected() {
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
