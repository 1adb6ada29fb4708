//! Queries as Grafana sends them: those of dashboards with its macros made into SQL, and those that its PostgreSQL data source asks
//! by itself.

/// What somebody has chosen at a dashboard.
pub(crate) struct Choice<'a> {
    /// The time that is shown.
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    /// The seconds of one bar, which Grafana makes from that time and the width of the panel.
    pub(crate) interval_s: u64,
    /// What is chosen of each variable, as it goes into a query.
    pub(crate) variables: &'a [(&'a str, &'a str)],
}

impl Choice<'_> {
    /// What Grafana makes of a query before it sends it.
    pub(crate) fn interpolated(&self, query: &str) -> String {
        let mut text = query.to_owned();
        for (name, chosen) in self.variables {
            text = text.replace(&format!("${{{name}:sqlstring}}"), chosen);
        }
        text = text.replace("$__interval", &format!("{}s", self.interval_s));
        let bucket = |column: &str| format!("time_bucket('{}.000s',{column}) AS \"time\"", self.interval_s);
        let filter = |column: &str| format!("{column} BETWEEN '{}' AND '{}'", self.from, self.to);
        for (macro_name, is_bucket) in [("$__timeFilter(", false), ("$__timeGroupAlias(", true)] {
            while let Some((before, rest)) = text.split_once(macro_name) {
                let (arguments, after) = rest.split_once(')').expect("a macro of Grafana's ends");
                let column = arguments.split(',').next().unwrap_or_default().trim();
                let made = if is_bucket { bucket(column) } else { filter(column) };
                text = format!("{before}{made}{after}");
            }
        }
        assert!(!text.contains('$'), "{text} still has something of Grafana's in it");
        text
    }
}

/// The schemas whose tables need no schema before their name.
const VISIBLE: &str = "quote_ident(table_schema) IN (SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END \
     FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), \
     array_upper(string_to_array(current_setting('search_path'),','),1)) as i, \
     string_to_array(current_setting('search_path'),',') s)";

/// The server's version, as a number.
pub(crate) const VERSION: &str = "SELECT current_setting('server_version_num')::int/100 as version";

/// Whether there is TimescaleDB, and which.
pub(crate) const TIMESCALE: &str = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";

/// The schemas of the query builder.
pub(crate) const SCHEMAS: &str = "SELECT schema_name AS \"name\" FROM information_schema.schemata WHERE schema_name NOT IN \
     ('information_schema','pg_catalog','pg_toast') ORDER BY schema_name";

/// The tables of the query builder.
pub(crate) fn tables() -> String {
    format!(
        "SELECT CASE WHEN {VISIBLE} THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || \
         quote_ident(table_name) END AS \"table\" FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN \
         ('information_schema','pg_catalog') ORDER BY CASE WHEN {VISIBLE} THEN 0 ELSE 1 END, 1"
    )
}

/// The columns of a table, for the query builder.
pub(crate) fn columns(table: &str) -> String {
    format!(
        "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns WHERE \
         CASE WHEN array_length(parse_ident('{table}'),1) = 2 THEN quote_ident(table_schema) = (parse_ident('{table}'))[1] \
         AND quote_ident(table_name) = (parse_ident('{table}'))[2] ELSE quote_ident(table_name) = '{table}' AND {VISIBLE} END"
    )
}
