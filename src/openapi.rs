//! The description of the HTTP routes, made from their table: OpenAPI 3.1 for programs, and a page for people.
//!
//! Schemas of bodies stand here by the names that the table uses.

use axum::Router;
use axum::http::Method;
use axum::response::Response;
use axum::routing::get;
use beeacon_access::{ErrorBody, ErrorEnvelope, Needs, Rate, Route, Routes, Takes};
use beeacon_events::EventType;
use serde_json::{Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, Info, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Schema,
};

use crate::page;

/// The doors.
pub(crate) fn router(routes: &Routes) -> Router {
    let (description, page) = (json!(document(routes)), page(routes));
    Router::new()
        .route("/api/openapi.json", get(move || async move { axum::Json(description) }))
        .route("/api/docs", get(move || async move { show(&page) }))
}

fn show(body: &str) -> Response {
    page::html("HTTP routes of Beeacon", body)
}

/// An answer with what was found, as [`crate::asked::success`] makes it.
fn found(data: Value) -> Value {
    json!({
        "type": "object",
        "required": ["api_version", "status", "data"],
        "properties": {
            "api_version": { "type": "integer" },
            "status": { "type": "string", "enum": ["success"] },
            "data": data,
        },
    })
}

/// Every schema, by name.
fn schemas() -> Vec<(&'static str, Value)> {
    let texts = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "type": "string" })))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let scalar = json!({ "type": ["string", "number", "boolean", "null"] });
    vec![
        ("Object", json!({ "type": "object" })),
        ("Text", json!({ "type": "string" })),
        (
            "Status",
            json!({
                "type": "object",
                "required": ["api_version"],
                "properties": { "api_version": { "type": "integer" } },
            }),
        ),
        (
            "Settings",
            json!({
                "type": "object",
                "required": ["api_version", "settings"],
                "properties": {
                    "api_version": { "type": "integer" },
                    "settings": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["key", "value", "origin"],
                            "properties": {
                                "key": { "type": "string" },
                                "value": { "type": ["string", "null"], "description": "As the file would have it" },
                                "origin": { "type": "string", "enum": ["default", "file"] },
                            },
                        },
                    },
                },
            }),
        ),
        (
            "Report",
            json!({
                "type": "object",
                "required": ["api_version", "generated", "version", "healthy", "checks"],
                "properties": {
                    "api_version": { "type": "integer" },
                    "generated": { "type": "string", "format": "date-time" },
                    "version": { "type": "string" },
                    "healthy": { "type": "boolean" },
                    "checks": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["check", "severity", "message"],
                            "properties": {
                                "check": { "type": "string" },
                                "severity": { "type": "string", "enum": ["fine", "warning", "fault"] },
                                "message": { "type": "string" },
                            },
                        },
                    },
                },
            }),
        ),
        (
            "Query",
            json!({
                "type": "object",
                "required": ["query"],
                "additionalProperties": false,
                "properties": {
                    "query": { "type": "string", "description": "SQL; see docs/sql.md" },
                    "parameters": {
                        "description": "Values for $1, $2 and so on, or for $name",
                        "oneOf": [
                            { "type": "array", "items": scalar },
                            { "type": "object", "additionalProperties": scalar },
                        ],
                    },
                },
            }),
        ),
        (
            "Events",
            found(json!({
                "type": "object",
                "required": ["events", "last"],
                "properties": {
                    "events": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["id", "type", "timestamp", "source", "payload", "metadata", "correlation_id"],
                            "properties": {
                                "id": { "type": "string" },
                                "type": { "type": "string", "enum": EventType::ALL },
                                "timestamp": { "type": "string", "format": "date-time" },
                                "source": { "type": "string" },
                                "payload": { "type": "object" },
                                "metadata": { "type": "object" },
                                "correlation_id": { "type": ["string", "null"] },
                            },
                        },
                    },
                    "last": { "type": ["string", "null"], "description": "The last one's id, for after" },
                },
            })),
        ),
        ("Found", found(json!({ "type": "object" }))),
        (
            "Alerting",
            json!({
                "type": "object",
                "required": ["api_version", "status", "messages", "open", "incidents", "alerts"],
                "properties": {
                    "api_version": { "type": "integer" },
                    "status": { "type": "object" },
                    "messages": { "type": "object" },
                    "open": { "type": "object" },
                    "incidents": { "type": "array", "items": { "type": "object" } },
                    "alerts": { "type": "array", "items": { "type": "object" } },
                },
            }),
        ),
        (
            "AlertNote",
            json!({
                "type": "object",
                "additionalProperties": false,
                "properties": texts(&["by", "note"]),
            }),
        ),
        (
            "AlertAssignment",
            json!({
                "type": "object",
                "required": ["assigned_to"],
                "additionalProperties": false,
                "properties": {
                    "by": { "type": "string" },
                    "note": { "type": "string" },
                    "assigned_to": { "type": ["string", "null"] },
                },
            }),
        ),
        (
            "AlertChange",
            json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "by": { "type": "string", "description": "Who says so, where no token says it" },
                    "note": { "type": "string" },
                    "status": { "type": "string", "enum": ["acknowledged", "resolved"] },
                    "assigned_to": { "type": ["string", "null"] },
                },
            }),
        ),
        (
            "Silence",
            json!({
                "type": "object",
                "required": ["matchers", "ends_at", "created_by"],
                "additionalProperties": false,
                "properties": {
                    "matchers": {
                        "type": "array",
                        "items": { "type": "string" },
                        "description": "As Alertmanager writes them, such as service=\"web\"",
                    },
                    "starts_at": { "type": "string", "format": "date-time" },
                    "ends_at": { "type": "string", "format": "date-time" },
                    "created_by": { "type": "string" },
                    "comment": { "type": "string" },
                },
            }),
        ),
        ("Rows", json!({ "type": "array", "items": { "type": "object" } })),
        (
            "SessionRequest",
            json!({
                "type": "object",
                "required": ["agent", "host", "version"],
                "properties": {
                    "agent": { "type": "string", "format": "uuid" },
                    "host": { "type": "string" },
                    "version": { "type": "string" },
                },
            }),
        ),
        (
            "SessionAnswer",
            json!({
                "type": "object",
                "required": ["epoch", "sources"],
                "properties": {
                    "epoch": { "type": "integer" },
                    "sources": { "type": "array", "items": { "type": "object", "properties": texts(&["source", "cursor"]) } },
                },
            }),
        ),
        (
            "IngestAnswer",
            json!({
                "type": "object",
                "required": ["committed", "rows", "duplicate_rows"],
                "properties": {
                    "committed": { "type": "array", "items": { "type": "object" } },
                    "rows": { "type": "integer" },
                    "duplicate_rows": { "type": "integer" },
                },
            }),
        ),
    ]
}

/// A schema from its JSON. What cannot be read is an object, and a test says so.
fn schema(value: &Value) -> RefOr<Schema> {
    serde_json::from_value(value.clone()).unwrap_or_else(|_| Ref::from_schema_name("Object").into())
}

/// The description of a table.
pub(crate) fn document(routes: &Routes) -> OpenApi {
    let mut paths = Paths::new();
    for route in routes.iter() {
        let item = PathItem::new(method(&route.method), operation(route));
        match paths.paths.get_mut(route.path) {
            Some(known) => known.merge_operations(item),
            None => {
                paths.paths.insert(route.path.to_owned(), item);
            }
        }
    }
    let mut components = ComponentsBuilder::new()
        .schema("ErrorBody", ErrorBody::schema())
        .schema("Error", ErrorEnvelope::schema())
        .security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    for (name, value) in schemas() {
        components = components.schema(name, schema(&value));
    }
    let mut info = Info::new("Beeacon", env!("CARGO_PKG_VERSION"));
    info.description =
        Some("The HTTP routes of a Beeacon. docs/http-api.md has roles, errors and limits.".to_owned());
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

fn method(method: &Method) -> HttpMethod {
    match method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

/// The names in braces of a path.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn operation(route: &Route) -> Operation {
    let name: String = route
        .path
        .trim_start_matches('/')
        .chars()
        .filter(|c| !matches!(c, '{' | '}'))
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut operation = OperationBuilder::new()
        .operation_id(Some(format!("{}_{name}", route.method.as_str().to_ascii_lowercase())))
        .summary(Some(route.does))
        .description(Some(format!("Needs the role: {}.", route.needs.name())));
    for name in parameters(route.path) {
        let text = schema(&json!({ "type": "string" }));
        let parameter =
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        operation = operation.parameter(parameter.schema(Some(text)));
    }
    for (name, meaning) in route.query {
        let text = schema(&json!({ "type": "string" }));
        let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query);
        let parameter = parameter.required(Required::False).description(Some(*meaning));
        operation = operation.parameter(parameter.schema(Some(text)));
    }
    let body = |kind: &str, schema: RefOr<Schema>| {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        RequestBodyBuilder::new().required(Some(Required::True)).content(kind, content).build()
    };
    let binary = || schema(&json!({ "type": "string", "format": "binary" }));
    match route.takes {
        Takes::Nothing => {}
        Takes::Json(name) => {
            operation =
                operation.request_body(Some(body("application/json", Ref::from_schema_name(name).into())));
        }
        Takes::Bytes(kind) => operation = operation.request_body(Some(body(kind, binary()))),
    }
    let (kinds, name) = route.gives;
    let mut good = ResponseBuilder::new().description(route.does);
    for kind in kinds {
        let schema = match *kind {
            "application/json" => Ref::from_schema_name(name).into(),
            _ => binary(),
        };
        good = good.content(*kind, ContentBuilder::new().schema(Some(schema)).build());
    }
    operation = operation.response("2XX", good.build());
    for (range, description) in [("4XX", "It was refused"), ("5XX", "It cannot be answered now")] {
        let error: RefOr<Schema> = Ref::from_schema_name("Error").into();
        let mut response = ResponseBuilder::new()
            .description(description)
            .content("application/json", ContentBuilder::new().schema(Some(error)).build());
        if route.path == "/readyz" {
            response = response.content("text/plain", ContentBuilder::new().schema(Some(binary())).build());
        }
        operation = operation.response(range, response.build());
    }
    if route.needs != Needs::Nothing {
        operation = operation.security(SecurityRequirement::new("token", Vec::<String>::new()));
    }
    operation.build()
}

/// The page: every route with its role, parameters and the schema of what it takes.
fn page(routes: &Routes) -> String {
    let schemas = schemas();
    let shown = |name: &str| {
        let found = schemas.iter().find(|(known, _)| *known == name).map(|(_, schema)| schema);
        let text = found.and_then(|schema| serde_json::to_string_pretty(schema).ok()).unwrap_or_default();
        format!(
            "<details><summary>{}</summary><pre><code>{}</code></pre></details>",
            page::escaped(name),
            page::escaped(&text)
        )
    };
    let mut body = "<p>Errors, roles, tokens and limits: docs/http-api.md. For programs: <a href=\"/api/openapi.json\">/api/openapi.json</a>.</p>\n\
                    <table>\n<tr><th>Route<th>Role<th>What it does<th>Takes<th>Answers</tr>\n"
        .to_owned();
    for route in routes.iter() {
        let takes = match route.takes {
            Takes::Nothing => String::new(),
            Takes::Json(name) => shown(name),
            Takes::Bytes(kind) => page::escaped(kind),
        };
        let query: String = route
            .query
            .iter()
            .map(|(name, meaning)| {
                format!("<br><code>?{}=</code> {}", page::escaped(name), page::escaped(meaning))
            })
            .collect();
        let (kinds, name) = route.gives;
        let marks = match (route.audited, route.rate) {
            (true, _) => ", audited",
            (false, Rate::Free) => ", not counted",
            (false, Rate::Counted) => "",
        };
        body.push_str(&format!(
            "<tr><td><code>{} {}</code>{query}<td>{}{marks}<td>{}<td>{takes}<td>{}<br>{}</tr>\n",
            route.method,
            page::escaped(route.path),
            route.needs.name(),
            page::escaped(route.does),
            page::escaped(&kinds.join(", ")),
            shown(name),
        ));
    }
    body + "</table>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::routes;

    #[test]
    fn the_description_has_every_route_and_every_schema_that_is_named() {
        let text = json!(document(&routes())).to_string();
        let description: Value = serde_json::from_str(&text).unwrap();
        for route in routes().iter() {
            let operation = &description["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.does, "{}", route.path);
            assert_eq!(operation["security"].is_array(), route.needs != Needs::Nothing, "{}", route.path);
        }
        let known = description["components"]["schemas"].as_object().unwrap();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(known.contains_key(name), "{name}");
        }
        for (name, value) in schemas() {
            assert_eq!(known[name]["type"], value["type"], "{name} was not understood");
        }
        let parameters = &known["Query"]["properties"]["parameters"]["oneOf"];
        assert_eq!(parameters.as_array().map(Vec::len), Some(2), "{parameters}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let text = page(&routes());
        for route in routes().iter() {
            assert!(text.contains(&page::escaped(route.path)), "{}", route.path);
        }
        for foreign in ["<script", "src=", "http://", "https://", "@import", "url("] {
            assert!(!text.contains(foreign), "{foreign}");
        }
    }
}
