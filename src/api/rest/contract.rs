//! `GET /openapi.json`: the contract, OpenAPI 3.1, made from the route table.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::super::access::Access;
use super::super::request::Request;
use super::super::response::{Outcome, reply};
use super::super::routes::{self, Dialect, ROUTES, Route};
use super::super::rpc::METHODS;
use super::super::state::ApiState;

pub(crate) async fn contract(state: Arc<ApiState>, _request: Request) -> Outcome {
    let text = state.contract.get_or_init(|| Bytes::from(document().to_string()));
    Ok(reply(StatusCode::OK, "application/json", text.clone()))
}

/// The whole document.
pub(crate) fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut generator);
    }
    let methods: Map<String, Value> = METHODS
        .iter()
        .map(|method| {
            let entry = json!({
                "summary": method.summary,
                "role": method.access.as_str(),
                "params": (method.params)(&mut generator),
                "result": (method.result)(&mut generator),
            });
            (method.name.to_owned(), entry)
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "plimsoll",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs a fleet of AI agents, and shows, records and guards everything the fleet does.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Problem": {
                    "description": "Refused; the message says what to do.",
                    "content": {"application/json": {"schema": problem()}},
                },
                "OpenAiProblem": {
                    "description": "Refused, in the shape of the OpenAI API.",
                    "content": {"application/json": {"schema": openai_problem()}},
                },
            },
        },
        "x-rpc-methods": methods,
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let security = match route.access {
        Access::Public => json!([]),
        Access::Scrape | Access::FirstMessage => json!([{}, {"token": []}]),
        Access::Token | Access::Viewer | Access::Operator => json!([{"token": []}]),
    };
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "security": security,
        "x-role": route.access.as_str(),
        "responses": responses(route, generator),
    });
    if let Some(query) = route.query {
        operation["parameters"] = parameters(query, generator);
    }
    for name in route.path.split('/').filter(|segment| routes::is_parameter(segment)) {
        let name = name.trim_matches(['{', '}']);
        let schema = json!({"type": "string"});
        operation["parameters"] = json!([{"name": name, "in": "path", "required": true, "schema": schema}]);
    }
    if let Some(body) = route.body {
        let schema = body(generator);
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let path = route.path.trim_matches('/').replace(['/', '.'], "_").replace(['{', '}'], "");
    let path = if path.is_empty() { "page".to_owned() } else { path };
    format!("{}_{path}", route.method.as_str().to_ascii_lowercase())
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut content = Map::new();
    for (i, content_type) in route.answer.types.iter().enumerate() {
        let schema = match route.answer.schema {
            Some(schema) if i == 0 => schema(generator).to_value(),
            Some(_) | None if *content_type == "application/json" => json!({"type": "object"}),
            Some(_) | None => json!({"type": "string"}),
        };
        content.insert((*content_type).to_owned(), json!({"schema": schema}));
    }
    let mut meant = json!({"description": "As asked."});
    if !content.is_empty() {
        meant["content"] = Value::Object(content);
    }
    let mut responses = Map::new();
    responses.insert(route.answer.status.to_string(), meant);
    let problem = match routes::dialect(route.path) {
        Dialect::Own => "#/components/responses/Problem",
        Dialect::OpenAi => "#/components/responses/OpenAiProblem",
    };
    responses.insert("default".to_owned(), json!({"$ref": problem}));
    Value::Object(responses)
}

/// A query's schema as parameters: it is an object whose properties they are.
fn parameters(query: fn(&mut SchemaGenerator) -> Schema, generator: &mut SchemaGenerator) -> Value {
    let reference = query(generator);
    let name = reference.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
    let object = name.and_then(|name| generator.definitions_mut().remove(name)).unwrap_or_default();
    let properties = object.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({"name": name, "in": "query", "description": description, "schema": schema})
    };
    Value::Array(properties.into_iter().map(parameter).collect())
}

fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "requestId": {"type": "string", "description": "By this a bug is found in the log."},
            },
        }},
    })
}

fn openai_problem() -> Value {
    let nullable = json!({"type": ["string", "null"]});
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": nullable,
                "code": nullable,
                "partial": {"type": "string", "description": "What had been answered before it failed."},
            },
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_as_reviewed() {
        let mut document = document();
        document["info"]["version"] = json!("x.y.z");
        insta::assert_json_snapshot!("openapi", document);
    }

    #[test]
    fn every_reference_of_the_contract_leads_somewhere() {
        let document = document();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(object) => {
                    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').expect("a local reference");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    open.extend(object.values());
                }
                Value::Array(items) => open.extend(items),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
    }
}
