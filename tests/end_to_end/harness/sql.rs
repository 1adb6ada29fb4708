//! SQL over HTTP, as any user would ask.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::http::{Response, request};

/// The SQL door of a server.
#[derive(Clone, Copy)]
pub(crate) struct Sql {
    pub(crate) address: SocketAddr,
}

impl Sql {
    /// The answer as it came.
    pub(crate) fn ask(&self, query: &str, accept: &str) -> std::io::Result<Response> {
        let body = json!({ "query": query }).to_string();
        let headers = [("Content-Type", "application/json"), ("Accept", accept)];
        request(self.address, "POST", "/api/v1/sql", &headers, body.as_bytes())
    }

    /// The rows, each a JSON object.
    ///
    /// # Panics
    /// When the query fails.
    pub(crate) fn rows(&self, query: &str) -> Vec<Value> {
        self.try_rows(query).unwrap_or_else(|fault| panic!("{query}: {fault}"))
    }

    /// The rows, or what went wrong.
    pub(crate) fn try_rows(&self, query: &str) -> Result<Vec<Value>, String> {
        let response = self.ask(query, "application/json").map_err(|error| error.to_string())?;
        if response.status != 200 {
            return Err(format!("{}: {}", response.status, response.text()));
        }
        rows_of(&response.body)
    }

    /// One number.
    pub(crate) fn number(&self, query: &str) -> u64 {
        self.try_number(query).unwrap_or_else(|fault| panic!("{query}: {fault}"))
    }

    /// One number, or what went wrong.
    pub(crate) fn try_number(&self, query: &str) -> Result<u64, String> {
        let rows = self.try_rows(query)?;
        let first = rows.first().and_then(Value::as_object).and_then(|row| row.values().next());
        first.and_then(number_of).ok_or_else(|| format!("not a number: {rows:?}"))
    }
}

/// A number, also where JSON writes it as text because it may exceed what a double holds.
pub(crate) fn number_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn rows_of(body: &[u8]) -> Result<Vec<Value>, String> {
    let whole: Result<Value, _> = serde_json::from_slice(body);
    match whole {
        Ok(Value::Array(rows)) => Ok(rows),
        Ok(Value::Object(mut object)) => match object.remove("rows") {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Ok(vec![Value::Object(object)]),
        },
        // One object a line.
        _ => body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(|error| error.to_string()))
            .collect(),
    }
}
