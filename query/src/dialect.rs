//! What users and clients of PostgreSQL write, put in the words of DataFusion.
//!
//! This is done on the parsed statement, before it is planned, for every door alike:
//! - `time_bucket(width, time)` becomes `date_bin`, by which files are pruned;
//! - names are freed of `pg_catalog.`, `OPERATOR(pg_catalog.~)` and `COLLATE`;
//! - casts to PostgreSQL's own types (`regclass`, `oid`, `name`, …) become casts to the nearest type;
//! - `current_user`, `current_setting('…')` and their kin become what they are for this session;
//! - a function among the tables becomes a table with its value;
//! - a `select` over a table of the catalog that is always empty becomes an empty one, and what asks for its rows becomes null or
//!   false: DataFusion plans few of the correlated subqueries that such clients write.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, Join, JoinOperator, ObjectName, OrderByKind,
    Query, Select, SelectItem, SetExpr, Statement as SqlStatement, TableAliasColumnDef, TableFactor,
    TableWithJoins, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut, visit_expressions,
    visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use beeacon_record::schema::Column as SchemaColumn;

use crate::error::{QueryError, Shown};
use crate::functions::keywords;
use crate::postgres::settings::Settings;
use crate::system;

/// Puts a statement in DataFusion's words.
pub(crate) fn understand(statement: &mut Statement, settings: &Settings) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(inner) => {
            let mut visitor = Words { settings };
            match inner.visit(&mut visitor) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(error) => Err(error),
            }
        }
        Statement::Explain(explain) => understand(&mut explain.statement, settings),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => Ok(()),
    }
}

/// What stands behind the name of a column that is named beside a wildcard which may hold it as well.
const BESIDE_WILDCARD: char = '\u{1}';

/// The names of a plan's columns as the asker should see them, where they are not those of the plan.
pub(crate) fn shown_names<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Option<Vec<String>> {
    let shown = |name: &String| name.split(BESIDE_WILDCARD).next().unwrap_or_default().to_owned();
    names.clone().any(|name| name.contains(BESIDE_WILDCARD)).then(|| names.map(shown).collect())
}

/// The names that PostgreSQL gives to the columns of an answer; `None` where it has the names of a table.
pub(crate) fn column_names(statement: &Statement) -> Option<Vec<String>> {
    let Statement::Statement(statement) = statement else { return None };
    let SqlStatement::Query(query) = statement.as_ref() else { return None };
    let mut body = query.body.as_ref();
    loop {
        match body {
            SetExpr::Select(select) => return select.projection.iter().map(item_name).collect(),
            SetExpr::Query(query) => body = query.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            _ => return None,
        }
    }
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(expression) => Some(name_of(expression)),
        _ => None,
    }
}

/// An identifier as it is looked up: lower case unless quoted.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// What PostgreSQL calls a column that has no alias.
fn name_of(expression: &Expr) -> String {
    match expression {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded).unwrap_or_default(),
        Expr::Function(function) => last_part(&function.name).unwrap_or_default(),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_of(inner),
        Expr::Cast { expr, data_type, .. } => match name_of(expr).as_str() {
            "?column?" => data_type.to_string().to_lowercase(),
            name => name.to_owned(),
        },
        Expr::CompoundFieldAccess { root, .. } => name_of(root),
        Expr::Case { .. } => "case".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        Expr::Extract { .. } => "extract".to_owned(),
        Expr::Array(_) => "array".to_owned(),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => select.projection.first().and_then(item_name).unwrap_or_default(),
            _ => "?column?".to_owned(),
        },
        _ => "?column?".to_owned(),
    }
}

fn last_part(name: &ObjectName) -> Option<String> {
    Some(folded(name.0.last()?.as_ident()?))
}

struct Words<'a> {
    settings: &'a Settings,
}

impl VisitorMut for Words<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        if query.with.is_none() && empties(&mut query.body) {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        // `generate_series(1, 3) as i` has the column `i` for PostgreSQL and `value` for DataFusion: both can be said.
        let mut bare = Vec::new();
        let collected: ControlFlow<()> = visit_expressions(select, |expression: &Expr| {
            if let Expr::Identifier(ident) = expression {
                bare.push(folded(ident));
            }
            ControlFlow::Continue(())
        });
        debug_assert!(collected.is_continue(), "nothing breaks off the walk");
        let factors = select.from.iter_mut().flat_map(|tables| {
            std::iter::once(&mut tables.relation)
                .chain(tables.joins.iter_mut().map(|join| &mut join.relation))
        });
        for factor in factors {
            if let TableFactor::Table { name, alias: Some(alias), args: Some(_), .. } = factor
                && matches!(last_part(name).as_deref(), Some("generate_series" | "range"))
                && alias.columns.is_empty()
                && bare.contains(&folded(&alias.name))
            {
                alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        order_outside(query);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        gather_projected(&mut select.projection);
        // PostgreSQL takes equal columns, DataFusion wants distinct ones; the protocol gives them their old names again.
        let is_wildcard =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        if select.projection.iter().any(is_wildcard) {
            for (place, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expression) = item
                    && matches!(expression, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                {
                    let name = format!("{}{BESIDE_WILDCARD}{place}", name_of(expression));
                    let alias = Ident::with_quote('"', name);
                    *item = SelectItem::ExprWithAlias { expr: expression.clone(), alias };
                }
            }
        }
        let mut seen: Vec<String> = Vec::with_capacity(select.projection.len());
        for item in &mut select.projection {
            let shown = item.to_string();
            if let SelectItem::UnnamedExpr(expression) = item
                && seen.contains(&shown)
            {
                let alias = Ident::with_quote('"', format!("{}_{}", name_of(expression), seen.len() + 1));
                *item = SelectItem::ExprWithAlias { expr: expression.clone(), alias };
            }
            seen.push(shown);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<QueryError> {
        let TableFactor::Table { name, alias, args: Some(arguments), .. } = factor else {
            return ControlFlow::Continue(());
        };
        unqualify(name);
        let function = last_part(name).unwrap_or_default();
        if matches!(function.as_str(), "generate_series" | "range" | keywords::NAME) {
            return ControlFlow::Continue(());
        }
        let arguments: Vec<String> = arguments.args.iter().map(ToString::to_string).collect();
        let shown = alias.as_ref().map_or_else(|| Ident::new(function.clone()), |alias| alias.name.clone());
        let column =
            alias.as_ref().and_then(|alias| alias.columns.first()).map_or(&shown, |column| &column.name);
        let text = format!("select {name}({}) as {column}", arguments.join(", "));
        let parsed = Parser::new(&GenericDialect {})
            .try_with_sql(&text)
            .and_then(|mut parser| parser.parse_query())
            .map(|subquery| TableFactor::Derived {
                lateral: false,
                subquery,
                alias: Some(datafusion::sql::sqlparser::ast::TableAlias {
                    explicit: true,
                    name: shown.clone(),
                    columns: Vec::new(),
                    at: None,
                }),
                sample: None,
            });
        if let Ok(derived) = parsed {
            *factor = derived;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<QueryError> {
        match self.said(expression) {
            Ok(Some(other)) => *expression = other,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

impl Words<'_> {
    /// The expression in DataFusion's words, where they differ. Its parts are in those words already.
    fn said(&self, expression: &mut Expr) -> Result<Option<Expr>, QueryError> {
        match expression {
            Expr::Collate { expr, .. } => Ok(Some((**expr).clone())),
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = parts.last().and_then(|name| operator(name))
                {
                    *op = plain;
                }
                Ok(None)
            }
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => {
                cast(expr, data_type)
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                Ok(literal_list(right).map(|list| Expr::InList { expr: left.clone(), list, negated: false }))
            }
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                Ok(literal_list(right).map(|list| Expr::InList { expr: left.clone(), list, negated: true }))
            }
            Expr::Exists { subquery, negated } if is_emptied(subquery) => Ok(Some(boolean(*negated))),
            Expr::InSubquery { subquery, negated, .. } if is_emptied(subquery) => Ok(Some(boolean(*negated))),
            Expr::Subquery(subquery) if is_emptied(subquery) => Ok(Some(value(Value::Null))),
            Expr::Subquery(subquery) => {
                look_up(subquery);
                Ok(None)
            }
            Expr::Function(function) => self.function(function),
            _ => Ok(None),
        }
    }

    fn function(&self, function: &mut Function) -> Result<Option<Expr>, QueryError> {
        unqualify(&mut function.name);
        let name = last_part(&function.name).unwrap_or_default();
        if let FunctionArguments::Subquery(subquery) = &function.args {
            if name != "array" {
                return Ok(None);
            }
            if is_emptied(subquery) {
                return Ok(Some(call("make_array", Vec::new())));
            }
            return Ok(gathered(subquery).map(|subquery| Expr::Subquery(Box::new(subquery))));
        }
        let arguments = arguments(function);
        let text = |text: &str| Ok(Some(value(Value::SingleQuotedString(text.to_owned()))));
        match (name.as_str(), arguments.as_slice()) {
            ("current_user" | "session_user" | "user" | "current_role", []) => text(&self.settings.user),
            ("current_database" | "current_catalog", []) => text(system::DATABASE),
            ("current_schema", []) => text(system::PUBLIC),
            ("current_setting", [wanted, rest @ ..]) => {
                let Some(wanted) = literal_text(wanted) else {
                    return Err(misfit("current_setting takes the name of a setting as a literal"));
                };
                match self.settings.get(wanted) {
                    Some(known) => text(&known),
                    None if rest.first().is_some_and(is_true) => Ok(Some(value(Value::Null))),
                    None => Err(misfit(&format!("there is no setting \"{wanted}\""))),
                }
            }
            ("to_regclass", [wanted]) => {
                let oid = literal_text(wanted).and_then(system::relation_oid);
                Ok(Some(oid.map_or_else(|| value(Value::Null), number)))
            }
            ("array_lower" | "array_upper", [array, dimension]) if is_number(dimension, "1") => {
                Ok(split_length(array).map(|length| number(if name == "array_lower" { 1 } else { length })))
            }
            ("time_bucket", [width, time, rest @ ..]) => bucket(width, time, rest).map(Some),
            _ => Ok(None),
        }
    }
}

/// `time_bucket` as `date_bin`. Buckets begin on a Monday, those of months on the first, as TimescaleDB has it.
fn bucket(width: &Expr, time: &Expr, rest: &[Expr]) -> Result<Expr, QueryError> {
    let width = match literal_text(width) {
        Some(text) => interval(text)?,
        None => width.clone(),
    };
    let origin = match rest {
        [] if width.to_string().to_lowercase().contains("month") => {
            parsed("timestamp '2000-01-01T00:00:00Z'")?
        }
        [] => parsed("timestamp '2000-01-03T00:00:00Z'")?,
        [origin] => origin.clone(),
        _ => {
            let message = "time_bucket takes a width, a time and perhaps an origin; times are UTC";
            return Err(misfit(message));
        }
    };
    Ok(call("date_bin", vec![width, time.clone(), origin]))
}

/// An interval such as `300.000s`, `5m` or `1 day`, as Grafana and people write it.
fn interval(text: &str) -> Result<Expr, QueryError> {
    let compact = text.trim();
    let digits = compact.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(compact.len());
    let (amount, unit) = compact.split_at(digits);
    let unit = match unit.trim() {
        "us" => "microseconds",
        "ms" => "milliseconds",
        "s" => "seconds",
        "m" => "minutes",
        "h" => "hours",
        "d" => "days",
        "w" => "weeks",
        "M" => "months",
        other => other,
    };
    let is_plain =
        !unit.is_empty() && unit.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ' || c == '.');
    let whole = amount.trim_end_matches('0').trim_end_matches('.');
    let amount = if amount.contains('.') { whole } else { amount };
    if amount.is_empty() || !is_plain {
        return Err(misfit("the width of time_bucket is an interval such as '5 minutes' or '300s'"));
    }
    parsed(&format!("interval '{amount} {unit}'"))
}

fn parsed(text: &str) -> Result<Expr, QueryError> {
    Parser::new(&GenericDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|_| QueryError::internal("a replacement could not be parsed"))
}

fn cast(inner: &Expr, data_type: &mut DataType) -> Result<Option<Expr>, QueryError> {
    let is_text = matches!(
        data_type,
        DataType::Text
            | DataType::Varchar(_)
            | DataType::CharacterVarying(_)
            | DataType::String(_)
            | DataType::JSON
            | DataType::JSONB
    );
    if is_text && is_nested(inner) {
        return Ok(Some(call("json_text", vec![inner.clone()])));
    }
    match own_type(data_type).as_deref() {
        Some("regclass") => match literal_text(inner) {
            Some(name) if name.parse::<i64>().is_err() => match system::relation_oid(name) {
                Some(oid) => Ok(Some(number(oid))),
                None => Err(misfit(&format!("table '{name}' not found"))),
            },
            _ => Ok(Some(call("beeacon_regclass_name", vec![inner.clone()]))),
        },
        Some("regtype") if literal_text(inner).is_none() => {
            Ok(Some(call("format_type", vec![inner.clone(), value(Value::Null)])))
        }
        Some("oid" | "xid" | "xid8" | "cid") => {
            *data_type = DataType::BigInt(None);
            Ok(None)
        }
        Some(_) => {
            *data_type = DataType::Text;
            Ok(None)
        }
        None => {
            unqualify_type(data_type);
            Ok(None)
        }
    }
}

/// The values of an array that is written as PostgreSQL writes one in text, `'{a,b}'::text[]`, where none is quoted or empty.
fn literal_list(expression: &Expr) -> Option<Vec<Expr>> {
    let Expr::Cast { expr, data_type: DataType::Array(_), .. } = expression else {
        return match expression {
            Expr::Nested(inner) => literal_list(inner),
            _ => None,
        };
    };
    let inner = literal_text(expr)?.strip_prefix('{')?.strip_suffix('}')?;
    let is_plain = |word: &str| !word.is_empty() && !word.contains(['"', '\\', '{', '}']);
    let words: Vec<&str> = inner.split(',').map(str::trim).collect();
    let text = |word: &&str| value(Value::SingleQuotedString((*word).to_owned()));
    words.iter().all(|word| is_plain(word)).then(|| words.iter().map(text).collect())
}

/// Whether this is a column with maps or lists, which clients see as JSON and DataFusion does not cast.
fn is_nested(expression: &Expr) -> bool {
    let name = match expression {
        Expr::Nested(inner) => return is_nested(inner),
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    let nested = [SchemaColumn::Labels, SchemaColumn::Attributes, SchemaColumn::Redactions];
    name.is_some_and(|name| nested.iter().any(|column| folded(name) == column.name()))
}

/// The name of a type that only PostgreSQL has.
fn own_type(data_type: &DataType) -> Option<String> {
    const OWN: [&str; 20] = [
        "regclass",
        "regtype",
        "regproc",
        "regprocedure",
        "regnamespace",
        "regrole",
        "regoper",
        "oid",
        "xid",
        "xid8",
        "cid",
        "name",
        "cstring",
        "char",
        "inet",
        "citext",
        "pg_lsn",
        "int2vector",
        "oidvector",
        "unknown",
    ];
    match data_type {
        DataType::Regclass => Some("regclass".to_owned()),
        DataType::JSON | DataType::JSONB | DataType::Uuid => Some("text".to_owned()),
        DataType::Custom(name, _) => last_part(name).filter(|name| OWN.contains(&name.as_str())),
        _ => None,
    }
}

/// `pg_catalog.int4` as `int4`, also in arrays.
fn unqualify_type(data_type: &mut DataType) {
    match data_type {
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(inner, _)
            | ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::Parenthesis(inner),
        ) => unqualify_type(inner),
        DataType::Custom(name, modifiers) if name.0.len() == 2 && modifiers.is_empty() => {
            let known = last_part(name).and_then(|name| {
                Parser::new(&GenericDialect {})
                    .try_with_sql(&name)
                    .and_then(|mut parser| parser.parse_data_type())
                    .ok()
            });
            if let Some(known) = known {
                *data_type = known;
            }
        }
        _ => {}
    }
}

fn unqualify(name: &mut ObjectName) {
    let qualified = name.0.len() == 2
        && name
            .0
            .first()
            .and_then(|part| part.as_ident())
            .is_some_and(|schema| matches!(folded(schema).as_str(), "pg_catalog" | system::PUBLIC));
    if qualified {
        name.0.remove(0);
    }
}

fn operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// Makes every `select` of a body that has no rows an empty one without tables, if that is all of them.
fn empties(body: &mut SetExpr) -> bool {
    if !is_over_empty(body) {
        return false;
    }
    clear(body);
    true
}

fn is_over_empty(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            let names_all = select
                .projection
                .iter()
                .all(|item| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }));
            names_all && has_no_rows(select)
        }
        SetExpr::Query(query) => query.with.is_none() && is_over_empty(&query.body),
        SetExpr::SetOperation { left, right, .. } => is_over_empty(left) && is_over_empty(right),
        _ => false,
    }
}

fn has_no_rows(select: &Select) -> bool {
    !aggregates(select) && select.from.iter().any(needs_empty)
}

fn clear(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let mut names: Vec<String> = Vec::new();
            for item in &mut select.projection {
                let mut name = item_name(item).unwrap_or_default();
                while names.contains(&name) {
                    name.push('_');
                }
                let alias = Ident::with_quote('"', name.clone());
                names.push(name);
                *item = SelectItem::ExprWithAlias { expr: value(Value::Null), alias };
            }
            select.from.clear();
            select.selection = Some(boolean(false));
            select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
            select.having = None;
        }
        SetExpr::Query(query) => {
            query.order_by = None;
            clear(&mut query.body);
        }
        SetExpr::SetOperation { left, right, .. } => {
            clear(left);
            clear(right);
        }
        _ => {}
    }
}

/// Whether this is what [`clear`] left.
fn is_emptied(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(select) => select.from.is_empty()
            && select.selection.as_ref() == Some(&boolean(false))
            && select.projection.iter().all(
                |item| matches!(item, SelectItem::ExprWithAlias { expr, .. } if *expr == value(Value::Null)),
            ),
        _ => false,
    }
}

/// Whether a group of tables has no row because one that it needs has none.
fn needs_empty(tables: &TableWithJoins) -> bool {
    let kept_without_left = |join: &Join| {
        matches!(
            join.join_operator,
            JoinOperator::Right(_)
                | JoinOperator::RightOuter(_)
                | JoinOperator::FullOuter(_)
                | JoinOperator::RightSemi(_)
                | JoinOperator::RightAnti(_)
        )
    };
    if tables.joins.iter().any(kept_without_left) {
        return false;
    }
    let needed = |join: &&Join| {
        matches!(
            join.join_operator,
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
        )
    };
    is_empty_table(&tables.relation)
        || tables.joins.iter().filter(needed).any(|join| is_empty_table(&join.relation))
}

fn is_empty_table(factor: &TableFactor) -> bool {
    // The lists of the catalog, such as those of privileges, are null in every row.
    let is_null_list = |argument: &Expr| match argument {
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|name| {
            let name = folded(name);
            name.ends_with("acl") || name.ends_with("options") || name.ends_with("config")
        }),
        _ => false,
    };
    if let TableFactor::UNNEST { array_exprs, .. } = factor {
        return array_exprs.iter().any(is_null_list);
    }
    if let TableFactor::Table { name, args: Some(arguments), .. } = factor {
        let unnests = last_part(name).as_deref() == Some("unnest");
        return unnests
            && arguments.args.iter().any(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => is_null_list(argument),
                _ => false,
            });
    }
    if let TableFactor::Derived { subquery, .. } = factor {
        return match subquery.body.as_ref() {
            SetExpr::Select(select) => subquery.with.is_none() && has_no_rows(select),
            _ => false,
        };
    }
    let TableFactor::Table { name, args: None, .. } = factor else { return false };
    let schema_fits = match name.0.as_slice() {
        [_] => true,
        [schema, _] => schema.as_ident().is_some_and(|schema| folded(schema) == "pg_catalog"),
        _ => false,
    };
    schema_fits && last_part(name).is_some_and(|name| system::is_empty(&name))
}

/// Whether a `select` without `group by` gives a row also where there is none.
fn aggregates(select: &Select) -> bool {
    let items = select.projection.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let mut finder = Aggregates { depth: 0 };
    matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty())
        && items.into_iter().any(|item| item.visit(&mut finder).is_break())
}

const AGGREGATES: [&str; 12] = [
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "every",
    "json_agg",
    "jsonb_agg",
];

/// Looks for an aggregate that belongs to the `select` itself, not to one within it.
struct Aggregates {
    depth: usize,
}

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        match expression {
            Expr::Function(function)
                if self.depth == 0
                    && function.over.is_none()
                    && last_part(&function.name).is_some_and(|name| AGGREGATES.contains(&name.as_str())) =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A `select` of one plain value, which others can be made of.
fn single(query: &mut Query) -> Option<&mut Select> {
    if query.with.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let is_plain = select.projection.len() == 1
        && select.distinct.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty())
        && !aggregates(select);
    is_plain.then_some(select.as_mut())
}

/// A value looked up in a table of the catalog: DataFusion wants to see that it is one, and there is one of each number.
fn look_up(query: &mut Query) {
    let Some(select) = single(query) else { return };
    let is_catalog = |factor: &TableFactor| match factor {
        TableFactor::Table { name, args: None, .. } => {
            last_part(name).is_some_and(|name| name.starts_with("pg_"))
        }
        _ => false,
    };
    let [tables] = select.from.as_slice() else { return };
    if !is_catalog(&tables.relation) || !tables.joins.is_empty() {
        return;
    }
    if let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
        select.projection.as_mut_slice()
    {
        *expr = call("max", vec![expr.clone()]);
        query.order_by = None;
    }
}

/// `array(select x …)` as `(select array_agg(x) …)`, which is null where the array would be empty.
fn gathered(subquery: &Query) -> Option<Query> {
    let mut query = subquery.clone();
    query.order_by = None;
    let select = single(&mut query)?;
    let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
        select.projection.as_mut_slice()
    else {
        return None;
    };
    *expr = call("array_agg", vec![expr.clone()]);
    Some(query)
}

/// `x in (select …)` among the columns as a search in what was gathered: DataFusion plans it in conditions only. A missing value is
/// not found.
fn gather_projected(items: &mut [SelectItem]) {
    for item in items {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let walked: ControlFlow<()> = visit_expressions_mut(expr, |inner: &mut Expr| {
            if let Expr::InSubquery { expr, subquery, negated } = inner
                && let Some(gathered) = gathered(subquery)
            {
                let all = Expr::Subquery(Box::new(gathered));
                let found = call("array_has", vec![all, expr.as_ref().clone()]);
                let found = call("coalesce", vec![found, boolean(false)]);
                *inner = if *negated {
                    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) }
                } else {
                    found
                };
            }
            ControlFlow::Continue(())
        });
        debug_assert!(walked.is_continue(), "nothing breaks off the walk");
    }
}

/// An order by what asks a subquery, made an order by a hidden column: DataFusion takes no subquery there.
fn order_outside(query: &mut Query) {
    let Some(order) = &mut query.order_by else { return };
    let OrderByKind::Expressions(keys) = &mut order.kind else { return };
    let asks = |expression: &Expr| {
        visit_expressions(expression, |inner: &Expr| match inner {
            Expr::InSubquery { .. } | Expr::Subquery(_) | Expr::Exists { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    };
    if !keys.iter().any(|key| asks(&key.expr)) {
        return;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let Some(names) = select.projection.iter().map(item_name).collect::<Option<Vec<_>>>() else { return };
    if select.distinct.is_some() || query.with.is_some() {
        return;
    }
    let quoted = |name: &str| Ident::with_quote('"', name);
    let mut inner = select.as_ref().clone();
    for (item, name) in inner.projection.iter_mut().zip(&names) {
        if let SelectItem::UnnamedExpr(expr) = item {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: quoted(name) };
        }
    }
    for (index, key) in keys.iter_mut().enumerate() {
        let is_shown = match &key.expr {
            Expr::Value(_) => true,
            Expr::Identifier(ident) => names.contains(&folded(ident)),
            _ => false,
        };
        if !is_shown {
            let alias = quoted(&format!("beeacon_order_{index}"));
            let hidden = Expr::Identifier(alias.clone());
            let expr = std::mem::replace(&mut key.expr, hidden);
            inner.projection.push(SelectItem::ExprWithAlias { expr, alias });
        }
    }
    gather_projected(&mut inner.projection);
    let shown = names.iter().map(|name| SelectItem::UnnamedExpr(Expr::Identifier(quoted(name))));
    let mut outer = Select { projection: shown.collect(), ..select.as_ref().clone() };
    outer.selection = None;
    outer.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    outer.having = None;
    let text = format!("select 1 from ({inner}) as beeacon_ordered");
    let parsed =
        Parser::new(&GenericDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_query());
    let Ok(parsed) = parsed else { return };
    if let SetExpr::Select(around) = *parsed.body {
        outer.from = around.from;
        **select = outer;
    }
}

fn misfit(message: &str) -> QueryError {
    QueryError::Plan { shown: Shown::new(message), place: None }
}

fn value(value: Value) -> Expr {
    Expr::Value(value.with_empty_span())
}

fn boolean(flag: bool) -> Expr {
    value(Value::Boolean(flag))
}

fn number(number: i64) -> Expr {
    value(Value::Number(number.to_string(), false))
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let arguments =
        arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The arguments, if all of them are plain ones.
fn arguments(function: &Function) -> Vec<Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let plain = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    });
    plain.collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn literal_text(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => literal_text(inner),
        Expr::Cast { expr, .. } => literal_text(expr),
        _ => None,
    }
}

fn is_true(expression: &Expr) -> bool {
    matches!(expression, Expr::Value(value) if value.value == Value::Boolean(true))
}

fn is_number(expression: &Expr, number: &str) -> bool {
    matches!(expression, Expr::Value(value) if matches!(&value.value, Value::Number(text, _) if text == number))
}

/// How many parts `string_to_array` of two literals has.
fn split_length(expression: &Expr) -> Option<i64> {
    let Expr::Function(function) = expression else { return None };
    let arguments = arguments(function);
    let [text, separator] = arguments.as_slice() else { return None };
    let (text, separator) = (literal_text(text)?, literal_text(separator)?);
    let splits = last_part(&function.name).as_deref() == Some("string_to_array") && !separator.is_empty();
    if !splits || text.is_empty() {
        return None;
    }
    i64::try_from(text.split(separator).count()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let mut statement = crate::guard::parse(text).unwrap();
        understand(&mut statement, &Settings::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
        statement.to_string()
    }

    #[test]
    fn words_of_postgresql_become_those_of_datafusion() {
        let table = [
            ("select pg_catalog.abs(1)", "SELECT abs(1)"),
            (
                "select a OPERATOR(pg_catalog.~) 'x' COLLATE pg_catalog.default from t",
                "SELECT a ~ 'x' FROM t",
            ),
            (
                "select current_user, current_setting('server_version_num')::int / 100",
                "SELECT 'beeacon', '150000'::INT / 100",
            ),
            (
                "select time_bucket('300.000s', timestamp) from logs",
                "SELECT date_bin(INTERVAL '300 seconds', timestamp, TIMESTAMP '2000-01-03T00:00:00Z') FROM logs",
            ),
            (
                "select time_bucket('0.500s', t) from t",
                "SELECT date_bin(INTERVAL '0.5 seconds', t, TIMESTAMP '2000-01-03T00:00:00Z') FROM t",
            ),
            (
                "select time_bucket('1 month', t) from t",
                "SELECT date_bin(INTERVAL '1 month', t, TIMESTAMP '2000-01-01T00:00:00Z') FROM t",
            ),
            (
                "select '16384'::pg_catalog.oid, relname::name from pg_class",
                "SELECT '16384'::BIGINT, relname::TEXT FROM pg_class",
            ),
            ("select 1, 1", "SELECT 1, 1 AS \"?column?_2\""),
            ("select i from generate_series(1, 3) as i", "SELECT i FROM generate_series(1, 3) AS i (i)"),
            ("select a.value from generate_series(1, 3) a", "SELECT a.value FROM generate_series(1, 3) a"),
            (
                "select array(select attname from pg_attribute a where a.attrelid = c.oid order by 1) from pg_class c",
                "SELECT (SELECT array_agg(attname) FROM pg_attribute a WHERE a.attrelid = c.oid) FROM pg_class c",
            ),
            (
                "select relname from pg_class order by case when oid in (select 1) then 0 else 1 end, 1",
                "SELECT \"relname\" FROM (SELECT relname AS \"relname\", CASE WHEN coalesce(array_has((SELECT array_agg(1)), oid), false) THEN 0 ELSE 1 END AS \"beeacon_order_0\" FROM pg_class) AS beeacon_ordered ORDER BY \"beeacon_order_0\", 1",
            ),
            (
                "select (select c.relkind = 'c' from pg_class c where c.oid = t.typrelid) from pg_type t",
                "SELECT (SELECT max(c.relkind = 'c') FROM pg_class c WHERE c.oid = t.typrelid) FROM pg_type t",
            ),
            (
                "select s[1] from string_to_array('a,b', ',') s",
                "SELECT s[1] FROM (SELECT string_to_array('a,b', ',') AS s) AS s",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn what_asks_an_empty_table_of_the_catalog_has_no_rows() {
        let table = [
            (
                "select pol.polname, array(select 1) from pg_catalog.pg_policy pol where true order by 1",
                "SELECT NULL AS \"polname\", NULL AS \"array\" WHERE false",
            ),
            (
                "select (select d.adbin from pg_attrdef d where d.adrelid = a.attrelid) from pg_attribute a",
                "SELECT NULL FROM pg_attribute a",
            ),
            (
                "select 1 from pg_class where exists (select 1 from pg_index)",
                "SELECT 1 FROM pg_class WHERE false",
            ),
            ("select count(*) from pg_index", "SELECT count(*) FROM pg_index"),
            (
                "select c.oid from pg_class c left join pg_index i on true",
                "SELECT c.oid FROM pg_class c LEFT JOIN pg_index i ON true",
            ),
            ("select * from pg_index", "SELECT * FROM pg_index"),
        ];
        for (text, expected) in table {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn columns_have_postgresqls_names() {
        let names = |text: &str| column_names(&crate::guard::parse(text).unwrap());
        let expected = ["count", "Time", "level", "?column?", "max", "int"];
        let text = "select count(*), t as \"Time\", l.Level, 1 + 1, pg_catalog.max(x), 5::int from l";
        assert_eq!(names(text), Some(expected.map(str::to_owned).to_vec()));
        assert_eq!(names("select * from logs"), None);
        assert_eq!(names("explain select 1"), None);
    }

    #[test]
    fn a_width_that_is_no_interval_is_refused() {
        for width in ["", "five minutes", "5", "5 m'; drop", "-5m"] {
            assert!(interval(width).is_err(), "{width}");
        }
    }
}
