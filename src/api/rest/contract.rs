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
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The token as the password of any user.",
                },
            },
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
        Access::Token | Access::Viewer | Access::Operator | Access::Agent => json!([{"token": []}]),
        Access::Ingest => json!([{"token": []}, {"password": []}]),
    };
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "security": security,
        "x-role": route.access.as_str(),
        "responses": responses(route, generator),
    });
    let places: Vec<&str> = route.path.split('/').filter_map(routes::parameter).collect();
    let in_path =
        |name: &&str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let mut parameters: Vec<Value> = places.iter().map(in_path).collect();
    if let Some(query) = route.query {
        parameters.extend(in_query(query, &places, generator));
    }
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(body) = route.body {
        let schema = without(body(generator), &places, generator);
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

/// A query's schema as parameters: it is an object whose properties they are, but for what stands in the path.
fn in_query(
    query: fn(&mut SchemaGenerator) -> Schema,
    places: &[&str],
    generator: &mut SchemaGenerator,
) -> Vec<Value> {
    let reference = query(generator);
    let object = definition(&reference, generator).cloned().unwrap_or_default();
    if let Some(name) = name_of(&reference) {
        generator.definitions_mut().remove(name);
    }
    let required = object["required"].clone();
    let is_required = |name: &str| required.as_array().is_some_and(|all| all.contains(&json!(name)));
    let properties = object.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter =
            json!({"name": name, "in": "query", "description": description, "schema": schema});
        if is_required(&name) {
            parameter["required"] = json!(true);
        }
        parameter
    };
    properties.into_iter().filter(|(name, _)| !places.contains(&name.as_str())).map(parameter).collect()
}

/// A body's schema without what stands in the path.
fn without(body: Schema, places: &[&str], generator: &mut SchemaGenerator) -> Value {
    let named = definition(&body, generator)
        .filter(|object| places.iter().any(|place| object["properties"].get(place).is_some()));
    let Some(mut object) = named.cloned() else { return body.to_value() };
    for place in places {
        object["properties"].as_object_mut().and_then(|properties| properties.remove(*place));
        object["required"].as_array_mut().into_iter().for_each(|all| all.retain(|name| name != place));
    }
    object
}

fn name_of(reference: &Schema) -> Option<&str> {
    reference.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next())
}

/// What a reference leads to.
fn definition<'g>(reference: &Schema, generator: &'g SchemaGenerator) -> Option<&'g Value> {
    generator.definitions().get(name_of(reference)?)
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
