//! What the pollen filter took out of a tenant's stored lines, for `GET /api/beeacon/pollen-filter/stats`.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use futures_util::TryStreamExt;
use serde::Serialize;

use crate::engine::Query;
use crate::error::QueryError;

/// Totals of a tenant, by rule and by service, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PollenFilterStatistics {
    /// All redactions.
    pub redactions: u64,
    /// By rule.
    pub rules: Vec<Count>,
    /// By service.
    pub services: Vec<Count>,
}

/// How often under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The rule's or service's name.
    pub name: String,
    /// How many redactions.
    pub count: u64,
}

const BY_SERVICE_AND_RULE: &str =
    "select service, rule, sum(count) as count from redactions group by service, rule";

impl Query {
    /// What the pollen filter took out of the stored lines of `tenant`, over all time. It runs as a query, under the same
    /// limits.
    ///
    /// # Errors
    /// Those of [`Query::sql`].
    pub async fn pollen_filter_statistics(&self, tenant: &str) -> Result<PollenFilterStatistics, QueryError> {
        let mut rows = self.sql(tenant, BY_SERVICE_AND_RULE).await?;
        let mut statistics = PollenFilterStatistics::default();
        while let Some(batch) = rows.try_next().await? {
            let misfit = |_| QueryError::internal("redactions have an unexpected type");
            let text = |index: usize| cast(batch.column(index), &DataType::Utf8).map_err(misfit);
            let (services, rules) = (text(0)?, text(1)?);
            let counts = cast(batch.column(2), &DataType::UInt64).map_err(misfit)?;
            let names = services.as_string::<i32>().iter().zip(rules.as_string::<i32>());
            for ((service, rule), count) in names.zip(counts.as_primitive::<UInt64Type>()) {
                let count = count.unwrap_or_default();
                statistics.redactions = statistics.redactions.saturating_add(count);
                add(&mut statistics.services, service.unwrap_or_default(), count);
                add(&mut statistics.rules, rule.unwrap_or_default(), count);
            }
        }
        for counts in [&mut statistics.rules, &mut statistics.services] {
            counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        }
        Ok(statistics)
    }
}

fn add(counts: &mut Vec<Count>, name: &str, count: u64) {
    match counts.iter_mut().find(|known| known.name == name) {
        Some(known) => known.count = known.count.saturating_add(count),
        None => counts.push(Count { name: name.to_owned(), count }),
    }
}
