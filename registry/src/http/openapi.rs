//! Describes all calls in OpenAPI 3.1, from the table of calls.

use crate::{
    http::{
        admin::MAX_AUDIT_LOG_ENTRIES,
        api::MAX_WAIT_SECONDS,
        calls::{AllowedCaller, Call},
    },
    service::{MAX_TTL_S, MAX_USES},
};
use actix_web::http::Method;
use serde_json::{Map, Value, json};
use wire::registry::{BODY_LIMIT, MAX_NODES, SOFTWARE_LIMIT};

/// Returns the schema of an integer within a range.
fn number(min: u64, max: u64) -> Value {
    json!({"type": "integer", "minimum": min, "maximum": max})
}

/// Returns the schema of a signed document's version.
fn document_version() -> Value {
    number(0, u64::MAX)
}

fn text() -> Value {
    json!({"type": "string"})
}

/// Returns the schema of a text, with a valid example.
fn text_like(example: &str) -> Value {
    json!({"type": "string", "examples": [example]})
}

fn one_of(values: &[&str]) -> Value {
    json!({"type": "string", "enum": values})
}

fn list(schema: &Value, max: usize) -> Value {
    json!({"type": "array", "items": schema, "maxItems": max})
}

fn object(fields: &[(&str, Value)], required: &[&str]) -> Value {
    let fields: Map<String, Value> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({"type": "object", "properties": fields, "required": required})
}

/// Returns the field `version`, which all documents of nodes have.
fn version() -> (&'static str, Value) {
    ("version", json!({"type": "integer", "const": 1}))
}

/// Allows null too, which is the same as leaving out the field.
fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    schema
}

/// Returns the fields by which an invitation, or a signature of a request from a file, fixes properties of a node.
fn requested_properties() -> [(&'static str, Value); 3] {
    let length = json!({"type": "integer", "minimum": 1, "maximum": 32, "examples": [16]});
    [
        ("name", or_null(text_like("printer"))),
        ("prefix_length", or_null(length)),
        ("prefix", or_null(text_like("77/16"))),
    ]
}

/// Returns the fields of an announcement.
fn announcement_fields() -> Vec<(&'static str, Value)> {
    vec![
        version(),
        (
            "endpoints",
            list(&text_like("udp:45.67.0.1:1194"), wire::text::FEW),
        ),
        (
            "software",
            json!({"type": "string", "maxLength": SOFTWARE_LIMIT}),
        ),
        ("network_version", document_version()),
        ("network_applied", document_version()),
        ("revocations_version", document_version()),
        ("unreachable", list(&text_like("9/16"), wire::text::FEW)),
        ("instance", document_version()),
    ]
}

/// Returns the fields of a new invitation.
fn invitation_fields() -> Vec<(&'static str, Value)> {
    let own = [
        ("ttl_s", number(1, MAX_TTL_S.unsigned_abs())),
        ("uses", or_null(number(1, MAX_USES.into()))),
        ("anonymous", json!({"type": "boolean"})),
    ];
    own.into_iter().chain(requested_properties()).collect()
}

/// Returns the schema of a call's body.
pub fn body(call: Call) -> Option<Value> {
    let step = one_of(&["stage", "activate", "retire"]);
    let force = json!({"type": "boolean"});
    let fields: (Vec<(&str, Value)>, Vec<&str>) = match call {
        Call::Claim => (
            vec![version(), ("token", text()), ("csr", text())],
            vec!["version", "token", "csr"],
        ),
        Call::Renew => (vec![version(), ("csr", text())], vec!["version", "csr"]),
        Call::Announce => (announcement_fields(), vec!["version", "endpoints"]),
        Call::Depart => (vec![version()], vec!["version"]),
        Call::Invite => (invitation_fields(), vec!["ttl_s"]),
        Call::Sign => (
            std::iter::once(("csr", text()))
                .chain(requested_properties())
                .collect(),
            vec!["csr"],
        ),
        Call::Rename => (
            vec![("node", text()), ("name", text())],
            vec!["node", "name"],
        ),
        Call::Revoke => (vec![("node", text())], vec!["node"]),
        Call::RevokeInvitation => (vec![("invitation", text())], vec!["invitation"]),
        Call::Set => (
            vec![("key", text()), ("value", text())],
            vec!["key", "value"],
        ),
        Call::RequestCa => (Vec::new(), Vec::new()),
        Call::RotateCa => (
            vec![
                ("step", step),
                ("force", force),
                ("certificate", or_null(text())),
            ],
            vec!["step"],
        ),
        Call::RotateKey => {
            let key = one_of(&["babel", "tls-crypt"]);
            (
                vec![("key", key), ("step", step), ("force", force)],
                vec!["key", "step"],
            )
        }
        Call::Backup => (vec![("path", text())], vec!["path"]),
        Call::Bootstrap
        | Call::Network
        | Call::Revocations
        | Call::Invitations
        | Call::Nodes
        | Call::Rollout
        | Call::Parameters
        | Call::AuditLog => return None,
    };
    let mut schema = object(&fields.0, &fields.1);
    // Nodes of a later version may send more fields. An operator's command has the version of the registry.
    if let (AllowedCaller::Operator, Some(schema)) = (call.allowed_caller(), schema.as_object_mut())
    {
        schema.insert("additionalProperties".into(), false.into());
    }
    Some(schema)
}

/// Returns the fields of a successful answer.
fn answer(call: Call) -> &'static [&'static str] {
    match call {
        Call::Claim => &["version", "prefix", "certificate", "ca", "network"],
        Call::Renew => &["version", "certificate"],
        Call::Announce => &[
            "version",
            "ttl_s",
            "rejected_endpoints",
            "at",
            "network_version",
            "revocations_version",
            "renew",
            "other_machine",
            "nodes",
        ],
        Call::Depart => &["version", "certificates"],
        Call::Bootstrap => &[
            "version",
            "nodes",
            "hidden_nodes",
            "network_version",
            "revocations_version",
        ],
        Call::Network | Call::Revocations => {
            &["version", "payload", "key_id", "certificate", "signature"]
        }
        Call::Invite => &["version", "invitation", "id", "expires_at"],
        Call::Invitations => &["version", "invitations"],
        Call::RevokeInvitation => &["version", "invitation"],
        Call::Sign => &["version", "registry", "claimed"],
        Call::Nodes => &["version", "nodes"],
        Call::Rename => &["version", "prefix", "name"],
        Call::Revoke => &["version", "prefix", "certificates", "revocations_version"],
        Call::Rollout => &[
            "version",
            "network_version",
            "revocations_version",
            "nodes",
            "announced",
            "network_received",
            "network_applied",
            "revocations_received",
            "unreachable",
        ],
        Call::Parameters => &["version", "parameters"],
        Call::RequestCa => &["version", "csr", "network", "has_root"],
        Call::Set | Call::RotateCa | Call::RotateKey | Call::Backup => {
            &["version", "summary", "network_version"]
        }
        Call::AuditLog => &["version", "entries"],
    }
}

/// Returns the query parameters of a call.
pub fn query(call: Call) -> Vec<(&'static str, Value)> {
    match call {
        Call::Bootstrap => vec![(
            "count",
            number(0, u64::try_from(MAX_NODES).unwrap_or(u64::MAX)),
        )],
        Call::Network | Call::Revocations => {
            vec![
                ("after", document_version()),
                ("wait", number(0, MAX_WAIT_SECONDS)),
            ]
        }
        Call::AuditLog => vec![("count", number(0, MAX_AUDIT_LOG_ENTRIES.into()))],
        Call::Claim
        | Call::Renew
        | Call::Announce
        | Call::Depart
        | Call::Invite
        | Call::Invitations
        | Call::RevokeInvitation
        | Call::Sign
        | Call::Nodes
        | Call::Rename
        | Call::Revoke
        | Call::Rollout
        | Call::Parameters
        | Call::Set
        | Call::RequestCa
        | Call::RotateCa
        | Call::RotateKey
        | Call::Backup => Vec::new(),
    }
}

/// Returns the statuses with which a call is rejected, and those of failures (500 and 503).
pub fn error_statuses(call: Call) -> Vec<u16> {
    let own: &[u16] = match call {
        Call::Claim => &[403, 409, 422, 429, 507],
        Call::Renew => &[409, 422, 429],
        Call::Announce => &[422, 429],
        Call::Bootstrap => &[429],
        Call::Invite | Call::RotateCa | Call::RotateKey => &[409, 422],
        Call::Sign => &[409, 422, 507],
        Call::Rename => &[404, 409, 422],
        Call::Set | Call::Backup | Call::Depart => &[422],
        Call::Revoke | Call::RevokeInvitation => &[404],
        Call::Network
        | Call::Revocations
        | Call::Invitations
        | Call::Nodes
        | Call::Rollout
        | Call::Parameters
        | Call::RequestCa
        | Call::AuditLog => &[],
    };
    let operator: &[u16] = match call.allowed_caller() {
        AllowedCaller::Anybody => &[],
        AllowedCaller::Member | AllowedCaller::Renewer => &[401, 403],
        AllowedCaller::Operator => &[403],
    };
    let read: &[u16] = if call.has_body() {
        &[400, 408, 413]
    } else {
        &[]
    };
    let parameters: &[u16] = if query(call).is_empty() { &[] } else { &[400] };
    let mut all = [own, operator, read, parameters, &[500, 503]].concat();
    all.sort_unstable();
    all.dedup();
    all
}

fn operation(call: Call) -> Value {
    let fields: Vec<_> = answer(call).iter().map(|name| (*name, json!({}))).collect();
    let success = json!({"description": "The request was carried out.", "content": {"application/json": {"schema": object(&fields, answer(call))}}});
    let mut responses = Map::from_iter([("200".to_owned(), success)]);
    if matches!(call, Call::Network | Call::Revocations) {
        responses.insert(
            "204".into(),
            json!({"description": "There is no newer version."}),
        );
    }
    for status in error_statuses(call) {
        let problem = json!({"$ref": "#/components/schemas/Problem"});
        let content = json!({"application/problem+json": {"schema": problem}});
        responses.insert(
            status.to_string(),
            json!({"description": "The request was rejected.", "content": content}),
        );
    }
    let parameters: Vec<Value> = query(call)
        .into_iter()
        .map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema}))
        .collect();
    let security = match call.allowed_caller() {
        AllowedCaller::Anybody | AllowedCaller::Operator => json!([]),
        AllowedCaller::Member | AllowedCaller::Renewer => json!([{"certificate": []}]),
    };
    let mut all = json!({
        "operationId": format!("{call:?}"),
        "summary": call.summary(),
        "parameters": parameters,
        "security": security,
        // Without a certificate nobody but an operator can distinguish them otherwise.
        "x-allowed-caller": format!("{:?}", call.allowed_caller()).to_ascii_lowercase(),
        "responses": responses,
    });
    if let (Some(schema), Some(all)) = (body(call), all.as_object_mut()) {
        let content = json!({"application/json": {"schema": schema}});
        all.insert(
            "requestBody".into(),
            json!({"required": true, "content": content}),
        );
    }
    all
}

/// Returns the OpenAPI document of the operator's calls, or of those of nodes.
pub fn document(operator: bool) -> Value {
    let paths = Call::by_path(operator).into_iter().map(|(path, calls)| {
        let operations = calls.into_iter().map(|call| {
            let method: Method = call.route().0;
            (method.as_str().to_ascii_lowercase(), operation(call))
        });
        (path.to_owned(), Value::Object(operations.collect()))
    });
    let problem = object(
        &[
            ("type", text()),
            ("title", text()),
            ("status", number(400, 599)),
            ("detail", text()),
            ("field", text()),
        ],
        &["title", "status"],
    );
    let title = if operator {
        "warren registry, for its operator"
    } else {
        "warren registry, for nodes"
    };
    let server = if operator {
        "http+unix://run/warren-registry/admin.sock"
    } else {
        "https://registry.example:9443"
    };
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "description": format!("Bodies have at most {BODY_LIMIT} bytes."),
        },
        "servers": [{"url": server}],
        "paths": paths.collect::<Map<_, _>>(),
        "components": {
            "schemas": {"Problem": problem},
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
        },
    })
}
