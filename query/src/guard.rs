//! What is checked before a query is planned, and before it is run.
//!
//! Parser, planner and expressions recurse over what they are given, and a stack overflow ends the process, ingest included.
//! So size and depth are bounded while the text is still a flat list of tokens; then the statement must be one that reads;
//! then functions that make values grow are bounded, because their output is not seen by the memory pool.

use datafusion::common::tree_node::TreeNode;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::prelude::SQLOptions;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Phase, QueryError, Shown};
use crate::limits::{
    GROWTH_MAX, PARSER_RECURSION_MAX, QUERY_DEPTH_MAX, QUERY_TEXT_BYTES_MAX, QUERY_TOKENS_MAX,
};
use crate::position::Place;

/// Checks the text's length, its number of tokens and its nesting.
pub(crate) fn check_text(query: &str) -> Result<(), QueryError> {
    if query.len() > QUERY_TEXT_BYTES_MAX {
        return Err(QueryError::TextBytes { bytes: query.len(), max: QUERY_TEXT_BYTES_MAX });
    }
    let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize_with_location().map_err(|error| {
        QueryError::Syntax { shown: Shown::new(error.message), place: Place::from_location(error.location) }
    })?;
    let (mut count, mut depth, mut prefixes) = (0_usize, 0_usize, 0_usize);
    for token in &tokens {
        let place = Place::from_location(token.span.start);
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Word(word) if word.keyword == Keyword::CASE => depth += 1,
            Token::Word(word) if word.keyword == Keyword::END => depth = depth.saturating_sub(1),
            _ => {}
        }
        // Each `not` and each sign in front of an expression nests it as a bracket would.
        prefixes = if is_prefix(&token.token) { prefixes + 1 } else { 0 };
        count += 1;
        if count > QUERY_TOKENS_MAX {
            return Err(QueryError::Tokens { max: QUERY_TOKENS_MAX, place });
        }
        if depth.max(prefixes) > QUERY_DEPTH_MAX {
            return Err(QueryError::Depth { max: QUERY_DEPTH_MAX, place });
        }
    }
    Ok(())
}

fn is_prefix(token: &Token) -> bool {
    match token {
        Token::Minus | Token::Plus | Token::Tilde | Token::ExclamationMark => true,
        Token::Word(word) => word.keyword == Keyword::NOT,
        _ => false,
    }
}

/// Parses a checked text into the one statement it must be, and that statement must read.
pub(crate) fn parse(query: &str) -> Result<Statement, QueryError> {
    let sort = |error| QueryError::from_datafusion(error, Phase::Plan, query, 0);
    let mut statements = DFParserBuilder::new(query)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(PARSER_RECURSION_MAX)
        .build()
        .map_err(sort)?
        .parse_statements()
        .map_err(|error| if is_recursion(&error) { too_deep() } else { sort(error) })?;
    let count = statements.len();
    match (statements.pop_front(), count) {
        (None, _) => Err(QueryError::Empty),
        (Some(statement), 1) if reads(&statement) => Ok(statement),
        (Some(_), 1) => Err(QueryError::ReadOnly),
        (Some(_), count) => Err(QueryError::Statements { count }),
    }
}

fn too_deep() -> QueryError {
    QueryError::Depth { max: PARSER_RECURSION_MAX, place: None }
}

fn is_recursion(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::RecursionLimitExceeded => true,
            // DataFusion puts the limit into words of its own.
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
                text.contains("recursion limit")
            }
        },
        _ => false,
    }
}

fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => sql_reads(statement),
        Statement::Explain(explain) => reads(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn sql_reads(statement: &SqlStatement) -> bool {
    match statement {
        SqlStatement::Query(_)
        | SqlStatement::ShowTables { .. }
        | SqlStatement::ShowColumns { .. }
        | SqlStatement::ExplainTable { .. } => true,
        SqlStatement::Explain { statement, .. } => sql_reads(statement),
        _ => false,
    }
}

/// Checks the plan as the user wrote it: nothing in it writes, and nothing grows without bound.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<(), QueryError> {
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(plan).map_err(|_| QueryError::ReadOnly)?;
    let mut product = 1_u64;
    let walked = plan.apply_with_subqueries(|node| {
        let mut largest = 1_u64;
        node.apply_expressions(|expression| {
            largest = largest.max(growth(expression));
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })?;
        product = product.saturating_mul(largest);
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| QueryError::from_datafusion(error, Phase::Plan, "", 0))?;
    if product > GROWTH_MAX { Err(QueryError::Growth { max: GROWTH_MAX }) } else { Ok(()) }
}

/// How many times longer than its longest input a value can become, by the functions that are known for it.
fn growth(expression: &Expr) -> u64 {
    let children = |combine: fn(u64, u64) -> u64| {
        let mut combined = 1_u64;
        let mut first = true;
        // The closure never fails, so neither does the walk.
        let walked = expression.apply_children(|child| {
            let own = growth(child);
            combined = if first { own } else { combine(combined, own) };
            first = false;
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        });
        if walked.is_ok() { combined } else { u64::MAX }
    };
    match expression {
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => children(u64::saturating_add),
        Expr::ScalarFunction(function) => {
            let size = |index: usize| function.args.get(index).map_or(u64::MAX, whole_number);
            match function.name() {
                "repeat" | "array_repeat" | "list_repeat" => {
                    children(u64::max).saturating_mul(size(1).max(1))
                }
                "lpad" | "rpad" | "array_resize" | "list_resize" => {
                    children(u64::max).saturating_mul(size(1).max(1))
                }
                "range" | "generate_series" => series(&function.args),
                "replace" | "regexp_replace" | "overlay" => {
                    let with = function.args.get(2).map_or(1, text_length);
                    children(u64::max).saturating_mul(with.max(1))
                }
                "concat" | "concat_ws" | "make_array" | "make_list" | "array_concat" | "array_cat"
                | "list_concat" | "list_cat" | "array_append" | "array_push_back" | "list_append"
                | "list_push_back" | "array_prepend" | "array_push_front" | "list_prepend"
                | "list_push_front" | "struct" | "named_struct" | "map" => children(u64::saturating_add),
                _ => children(u64::max),
            }
        }
        _ => children(u64::max),
    }
}

/// A literal's value; anything else is taken as unbounded.
fn whole_number(expression: &Expr) -> u64 {
    match expression {
        Expr::Cast(cast) => whole_number(&cast.expr),
        Expr::Negative(_) => 0,
        Expr::Literal(value, _) => match value {
            ScalarValue::Int64(Some(number)) => u64::try_from(*number).unwrap_or(0),
            ScalarValue::UInt64(Some(number)) => *number,
            _ => u64::MAX,
        },
        _ => u64::MAX,
    }
}

fn signed_number(expression: &Expr) -> Option<i128> {
    match expression {
        Expr::Negative(inner) => signed_number(inner).map(|number| -number),
        Expr::Cast(cast) => signed_number(&cast.expr),
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => Some(i128::from(*number)),
        Expr::Literal(ScalarValue::UInt64(Some(number)), _) => Some(i128::from(*number)),
        _ => None,
    }
}

/// The length of a list made by `range` or `generate_series` from literal numbers; others are unbounded.
fn series(arguments: &[Expr]) -> u64 {
    let numbers: Option<Vec<i128>> = arguments.iter().map(signed_number).collect();
    let length = match numbers.as_deref() {
        Some([stop]) => Some(stop.saturating_add(1)),
        Some([start, stop]) => Some((stop - start).saturating_add(1)),
        Some([start, stop, step]) if *step != 0 => Some(((stop - start) / step).saturating_add(1)),
        _ => None,
    };
    length.map_or(u64::MAX, |length| u64::try_from(length.max(1)).unwrap_or(u64::MAX))
}

fn text_length(expression: &Expr) -> u64 {
    match expression {
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(Some(text)) => u64::try_from(text.len()).unwrap_or(u64::MAX),
            _ => 1,
        },
        _ => GROWTH_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_without_blanks_and_comments() {
        let query = format!("select 1 {}", "/* c */ ".repeat(QUERY_TOKENS_MAX + 10));
        assert!(check_text(&query).is_ok());
        let query = format!("select 1{}", "+1".repeat(QUERY_TOKENS_MAX / 2));
        assert!(matches!(check_text(&query), Err(QueryError::Tokens { place: Some(_), .. })));
    }

    #[test]
    fn brackets_in_a_string_are_no_nesting() {
        assert!(check_text(&format!("select '{}'", "(".repeat(60))).is_ok());
        let deep = format!("select {}1{}", "(".repeat(51), ")".repeat(51));
        let Err(QueryError::Depth { place: Some(place), .. }) = check_text(&deep) else {
            panic!("not refused")
        };
        assert_eq!(place, Place { line: 1, column: 58 });
    }

    #[test]
    fn only_statements_that_read_pass() {
        let reading = [
            "select 1",
            "with a as (select 1) select * from a",
            "values (1)",
            "explain select 1",
            "explain analyze select 1",
            "show tables",
            "describe logs",
            "(select 1) union select 2",
            "show columns from logs",
        ];
        for query in reading {
            assert!(parse(query).is_ok(), "{query}");
        }
        let writing = [
            "insert into logs values (1)",
            "create table a (b int)",
            "create table a as select 1",
            "drop table logs",
            "create view v as select 1",
            "delete from logs",
            "update logs set host = 'a'",
            "set a = 1",
            "reset a",
            "copy logs to '/tmp/x'",
            "copy (select 1) to '/tmp/x'",
            "truncate logs",
            "begin",
            "commit",
            "create external table t stored as csv location '/etc/passwd'",
            "prepare p as select 1",
            "execute p",
            "explain insert into logs values (1)",
            "create database d",
            "create schema s",
            "show all",
            "create function f() returns int return 1",
            "explain copy logs to '/tmp/x'",
            "grant select on logs to a",
            "use d",
            "call f()",
            "merge into logs using logs on true when matched then delete",
            "alter table logs add column a int",
            "analyze logs",
            "vacuum",
            "deallocate p",
            "kill 1",
        ];
        for query in writing {
            assert!(matches!(parse(query), Err(QueryError::ReadOnly | QueryError::Syntax { .. })), "{query}");
        }
        assert!(matches!(parse("select 1; select 2"), Err(QueryError::Statements { count: 2 })));
        assert!(matches!(parse(" -- nothing\n"), Err(QueryError::Empty)));
    }
}
