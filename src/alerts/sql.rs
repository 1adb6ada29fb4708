//! The queries of rules, asked of the query room as a user's are: with its limits, and the same rows.

use std::time::Duration;

use beeacon_alerts::runner::{Answer, AskError, AskSql};
use beeacon_alerts::{Labels, Sample};
use beeacon_query::{Ask, Query, QueryError};

use crate::server::TENANT;

/// Asks the query room.
pub(crate) struct Sql {
    pub(crate) query: Query,
    pub(crate) time_max: Duration,
}

impl AskSql for Sql {
    fn ask(&self, sql: &str, rows_max: usize) -> Answer {
        let query = self.query.clone();
        let mut ask = Ask::new(TENANT, sql);
        ask.time_max = Some(self.time_max);
        Box::pin(async move {
            let rows = query.labelled(ask, rows_max).await.map_err(told)?;
            let sample = |row: beeacon_query::Labelled| Sample {
                labels: row.labels.into_iter().collect::<Labels>(),
                value: row.value,
            };
            Ok(rows.into_iter().map(sample).collect())
        })
    }
}

/// What a fault of the query itself is in its own words; a fault of the data is not, since it may quote a line.
fn told(error: QueryError) -> AskError {
    let is_busy = matches!(error, QueryError::Busy { .. });
    let text = match &error {
        QueryError::Plan { .. } | QueryError::Syntax { .. } | QueryError::Format { .. } => {
            error.for_the_asker()
        }
        other => other.to_string(),
    };
    AskError { text, is_busy }
}
