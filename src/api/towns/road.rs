//! From a request by HTTP to an operation: what stands in the path, in the query, and in the body is read as one.

use std::sync::Arc;

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::super::request::Request;
use super::super::response::{Outcome, Problem, reply};
use super::super::rpc::read_named;
use super::super::state::ApiState;
use super::{Caller, Operation};
use crate::ids::{AgentId, BeadId, InvalidId, TownId};

/// The header that names a call.
const KEY: &str = "idempotency-key";

/// What stands in the path, by name.
type Places = [(&'static str, String)];

/// An operation whose parameters stand in the path and in the query.
pub(crate) async fn asked<O: Operation>(state: Arc<ApiState>, request: Request) -> Outcome {
    check_places(&request.params)?;
    let encoded =
        |(name, value): &(&str, String)| format!("{name}={}&", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let whole = request.params.iter().map(encoded).collect::<String>() + &request.head.query;
    let params = serde_urlencoded::from_str(&whole)
        .map_err(|error| Problem::bad_request(format!("query: {error}")))?;
    let identity = request.identity()?;
    answer::<O>(Caller { state, identity }, params).await
}

/// An operation whose parameters stand in the path and in a body of JSON.
pub(crate) async fn told<O: Operation>(state: Arc<ApiState>, mut request: Request) -> Outcome {
    check_places(&request.params)?;
    let identity = request.identity()?;
    if O::KEYED
        && let Some(key) = only_key(&request)?
    {
        let key = key.to_owned();
        request.params.push(("idempotencyKey", key));
    }
    let params = read_body(&state, &mut request).await?;
    answer::<O>(Caller { state, identity }, params).await
}

async fn answer<O: Operation>(caller: Caller, params: O::Params) -> Outcome {
    let answer = O::run(caller, params).await?;
    let body = serde_json::to_vec(&answer).map_err(|_| Problem::internal())?;
    Ok(reply(O::status(&answer), "application/json", body))
}

/// What stands in the header that names a call, if it is there.
pub(super) fn only_key(request: &Request) -> Result<Option<&str>, Problem> {
    let mut keys = request.headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    match (key.to_str(), keys.next()) {
        (_, Some(_)) => Err(Problem::bad_request("Idempotency-Key: send one")),
        (Ok(key), None) => Ok(Some(key)),
        (Err(_), None) => Err(Problem::bad_request("Idempotency-Key: expected visible characters")),
    }
}

/// Reads a body, with what stands in the path as if it stood there. A body that names it again is refused.
pub(super) async fn read_body<T: DeserializeOwned>(
    state: &ApiState,
    request: &mut Request,
) -> Result<T, Problem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoQuery {}
    let NoQuery {} = request.query()?;
    let body = state.read_json(request).await?;
    let body = std::str::from_utf8(&body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let whole =
        joined(&request.params, body).ok_or_else(|| Problem::bad_request("the body is no JSON object"))?;
    read(&whole).map_err(|(field, problem)| {
        let colon = if field.is_empty() { "" } else { ": " };
        Problem::bad_request(format!("{field}{colon}{problem}"))
    })
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, (String, String)> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = read_named(&mut reader)?;
    match reader.end() {
        Ok(()) => Ok(value),
        Err(_) => Err((String::new(), "something follows the JSON object".to_owned())),
    }
}

/// The text of one object; `None` if the body is none. An empty body is an empty object.
fn joined(places: &Places, body: &str) -> Option<String> {
    let body = body.trim_matches([' ', '\t', '\r', '\n']);
    let rest = if body.is_empty() { "}" } else { body.strip_prefix('{')? };
    let named = places.iter().map(|(name, value)| format!("{}:{}", json!(name), json!(value)));
    let named = named.collect::<Vec<_>>().join(",");
    let empty = named.is_empty() || rest.trim_start().starts_with('}');
    Some(format!("{{{named}{}{rest}", if empty { "" } else { "," }))
}

/// Whether everything in the path can be a name at all.
pub(super) fn check_places(places: &Places) -> Result<(), Problem> {
    for (name, value) in places {
        let checked: Result<(), InvalidId> = match *name {
            "town" => TownId::parse(value).map(drop),
            "bead" => BeadId::parse(value).map(drop),
            _ => AgentId::parse(value).map(drop),
        };
        checked.map_err(|rule| Problem::new(StatusCode::NOT_FOUND, "not_found", rule.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        town: TownId,
        reason: Option<String>,
    }

    fn told(body: &str) -> Result<Params, (String, String)> {
        let whole = joined(&[("town", "main".to_owned())], body);
        read(&whole.ok_or((String::new(), "no object".to_owned()))?)
    }

    #[test]
    fn the_path_and_the_body_are_one_object() {
        let town = TownId::parse("main").expect("valid");
        for body in ["", " ", "{}", " { } "] {
            assert_eq!(told(body), Ok(Params { town: town.clone(), reason: None }), "{body:?}");
        }
        let reason = Some("r".to_owned());
        assert_eq!(told("\n{\"reason\": \"r\"}\n"), Ok(Params { town, reason }));
    }

    #[test]
    fn a_body_that_is_not_one_strict_object_is_refused() {
        for body in ["[]", "1", "{", "{,}", "{} {}", "{\"reason\":1}", "{\"other\":1}", "{}x", "\"town\""] {
            assert!(told(body).is_err(), "{body}");
        }
        let again = told("{\"town\": \"other\"}").expect_err("the path says it");
        assert_eq!(again.0, "town");
    }
}
