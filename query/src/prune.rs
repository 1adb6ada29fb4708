//! What a filter says about time and service, so that files can be left out before they are opened; the same for the time and one text of
//! tables that the program brings.
//!
//! The answer is always a superset: whatever is not understood narrows nothing. Filters come simplified by DataFusion, with
//! `now()` already a literal; casts around the column or the literal are looked through where they keep the order.

use std::collections::BTreeSet;

use beeacon_record::schema::Column;
use beeacon_store::Prune;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;

/// The columns that are looked for in filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Narrowing<'a> {
    /// The time.
    pub(crate) time: &'a str,
    /// The text, of which sets are made.
    pub(crate) text: &'a str,
}

/// Those of `logs`.
const LOGS: Narrowing<'_> = Narrowing { time: Column::Timestamp.name(), text: Column::Service.name() };

/// Rows that may match: a time range, both ends included, and a set of services. `None` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    time_ns: Option<(i64, i64)>,
    services: Option<BTreeSet<String>>,
}

impl Bounds {
    /// What all these filters together leave of `logs`.
    pub(crate) fn of_filters<'a>(filters: impl IntoIterator<Item = &'a Expr>) -> Bounds {
        LOGS.bounds(filters)
    }

    /// The same for rows whose time is truncated: each value stands for the rows of so many nanoseconds from it on.
    pub(crate) fn widened(self, width_ns: i64) -> Bounds {
        let time_ns = self.time_ns.map(|(from, to)| (from, to.saturating_add(width_ns - 1)));
        Bounds { time_ns, ..self }
    }

    /// The time range, both ends included.
    pub(crate) fn time_ns(&self) -> Option<(i64, i64)> {
        self.time_ns
    }

    /// The texts that are left.
    pub(crate) fn into_texts(self) -> Option<BTreeSet<String>> {
        self.services
    }

    /// Rows that may match either.
    pub(crate) fn or(self, other: Bounds) -> Bounds {
        let time_ns = match (self.time_ns, other.time_ns) {
            (Some(a), Some(b)) if is_empty(a) => Some(b).filter(|_| !is_empty(b)).or(Some(a)),
            (Some(a), Some(b)) if is_empty(b) => Some(a),
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            _ => None,
        };
        let services = match (self.services, other.services) {
            (Some(a), Some(b)) => Some(a.into_iter().chain(b).collect()),
            _ => None,
        };
        Bounds { time_ns, services }
    }

    fn and(self, other: Bounds) -> Bounds {
        let time_ns = match (self.time_ns, other.time_ns) {
            (Some(a), Some(b)) => Some((a.0.max(b.0), a.1.min(b.1))),
            (a, b) => a.or(b),
        };
        let services = match (self.services, other.services) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (a, b) => a.or(b),
        };
        Bounds { time_ns, services }
    }

    /// Whether everything in `inner` is in here, too.
    pub(crate) fn covers(&self, inner: &Bounds) -> bool {
        let time = match (self.time_ns, inner.time_ns) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(outer), Some(inner)) => is_empty(inner) || (outer.0 <= inner.0 && inner.1 <= outer.1),
        };
        let services = match (&self.services, &inner.services) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(outer), Some(inner)) => inner.is_subset(outer),
        };
        time && services
    }

    /// Whether all rows of a file match, if `services_within` says whether its services are all among those of `asked`, the bounds
    /// that the file was found by.
    pub(crate) fn hold_all(&self, min: i64, max: i64, services_within: bool, asked: &Bounds) -> bool {
        let time = self.time_ns.is_none_or(|(from, to)| from <= min && max <= to);
        let services = match (&self.services, &asked.services) {
            (None, _) => true,
            (Some(own), Some(asked)) => services_within && asked.is_subset(own),
            (Some(_), None) => false,
        };
        time && services
    }

    /// Whether a file with rows from `min` to `max` may hold a match.
    pub(crate) fn meets(&self, min: i64, max: i64) -> bool {
        self.time_ns.is_none_or(|(from, to)| from <= to && from <= max && min <= to)
    }

    pub(crate) fn to_prune(&self) -> Prune {
        Prune {
            time_ns: self.time_ns,
            services: self.services.as_ref().map(|set| set.iter().cloned().collect()),
        }
    }

    /// Whether rows match this filter of `logs` exactly if they lie within its bounds.
    pub(crate) fn are_exact(filter: &Expr) -> bool {
        LOGS.is_exact(filter)
    }

    fn time(from: Option<i64>, to: Option<i64>) -> Bounds {
        let time_ns =
            (from.is_some() || to.is_some()).then(|| (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)));
        Bounds { time_ns, services: None }
    }

    fn service(names: impl IntoIterator<Item = String>) -> Bounds {
        Bounds { time_ns: None, services: Some(names.into_iter().collect()) }
    }
}

fn is_empty((from, to): (i64, i64)) -> bool {
    from > to
}

impl Narrowing<'_> {
    /// What all these filters together leave.
    pub(crate) fn bounds<'a>(self, filters: impl IntoIterator<Item = &'a Expr>) -> Bounds {
        filters.into_iter().fold(Bounds::default(), |bounds, filter| bounds.and(self.of(filter)))
    }

    fn of(self, filter: &Expr) -> Bounds {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => self.of(left).and(self.of(right)),
                Operator::Or => self.of(left).or(self.of(right)),
                _ => self
                    .compared(left, *op, right)
                    .or_else(|| op.swap().and_then(|op| self.compared(right, op, left)))
                    .unwrap_or_default(),
            },
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let from = self.compared(expr, Operator::GtEq, low).unwrap_or_default();
                from.and(self.compared(expr, Operator::LtEq, high).unwrap_or_default())
            }
            Expr::InList(list) if !list.negated => {
                let each = list.list.iter().map(|value| self.compared(&list.expr, Operator::Eq, value));
                each.collect::<Option<Vec<_>>>()
                    .and_then(|all| all.into_iter().reduce(Bounds::or))
                    .unwrap_or_default()
            }
            Expr::Alias(alias) => self.of(&alias.expr),
            _ => Bounds::default(),
        }
    }

    /// Whether the bounds of a filter say all that it says: comparisons of the plain columns with literals.
    fn is_exact(self, filter: &Expr) -> bool {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => self.is_exact(left) && self.is_exact(right),
                // The services of either are those of both; times of both would be more.
                Operator::Or => {
                    let of_services = |side: &Expr| self.is_exact(side) && self.of(side).time_ns.is_none();
                    of_services(left) && of_services(right)
                }
                _ => {
                    self.is_exactly_compared(left, *op, right)
                        || op.swap().is_some_and(|op| self.is_exactly_compared(right, op, left))
                }
            },
            Expr::Between(Between { expr, negated: false, low, high }) => {
                self.is_exactly_compared(expr, Operator::GtEq, low)
                    && self.is_exactly_compared(expr, Operator::LtEq, high)
            }
            Expr::InList(list) if !list.negated => {
                is_column(&list.expr, self.text)
                    && list.list.iter().all(|value| self.is_exactly_compared(&list.expr, Operator::Eq, value))
            }
            _ => false,
        }
    }

    fn is_exactly_compared(self, left: &Expr, op: Operator, right: &Expr) -> bool {
        if self.compared(left, op, right).is_none() {
            return false;
        }
        // At the ends of what a time can be there is no next one.
        let has_next = |right: &Expr| {
            literal(right).and_then(nanoseconds).is_some_and(|at| at > i64::MIN && at < i64::MAX)
        };
        is_column(left, self.text) || is_column(left, self.time) && has_next(right)
    }

    /// What `column op literal` says, if the left side is about the time or the text and the right side is a literal.
    fn compared(self, left: &Expr, op: Operator, right: &Expr) -> Option<Bounds> {
        let literal = literal(right)?;
        if is_column(left, self.text) {
            let name = literal.try_as_str()??.to_owned();
            return (op == Operator::Eq).then(|| Bounds::service([name]));
        }
        let width_ns = self.time_width_ns(left)?;
        let at = nanoseconds(literal)?;
        // A truncated time t stands for rows in [t, t + width); a plain column has width 1.
        // Casts round towards zero, so before 1970 the row can lie below its rounded time.
        let first = (at > 0 || width_ns == 1).then_some(at);
        let last = at.checked_add(width_ns - 1);
        match op {
            Operator::Eq => Some(Bounds::time(first, last)),
            Operator::Gt => Some(Bounds::time(first.map(|at| at.saturating_add(1)), None)),
            Operator::GtEq => Some(Bounds::time(first, None)),
            Operator::Lt if width_ns == 1 => Some(Bounds::time(None, at.checked_sub(1))),
            Operator::Lt | Operator::LtEq => Some(Bounds::time(None, last)),
            _ => None,
        }
    }

    /// How many nanoseconds of rows one value of this expression stands for, if it is the time column, perhaps truncated.
    fn time_width_ns(self, expression: &Expr) -> Option<i64> {
        if is_column(expression, self.time) {
            return Some(1);
        }
        match expression {
            Expr::Cast(cast) => widened(self.time_width_ns(&cast.expr)?, cast.field.data_type()),
            Expr::TryCast(cast) => widened(self.time_width_ns(&cast.expr)?, cast.field.data_type()),
            Expr::ScalarFunction(function) if function.name() == "date_trunc" => {
                let unit = literal(function.args.first()?)?.try_as_str()??.to_ascii_lowercase();
                let inner = self.time_width_ns(function.args.get(1)?)?;
                inner.checked_add(unit_ns(&unit)? - 1)
            }
            Expr::ScalarFunction(function) if function.name() == "date_bin" => {
                let inner = self.time_width_ns(function.args.get(1)?)?;
                inner.checked_add(interval_ns(literal(function.args.first()?)?)? - 1)
            }
            _ => None,
        }
    }
}

/// A cast to a coarser time makes one value stand for more rows; a cast to anything else is not looked through.
fn widened(width: i64, to: &DataType) -> Option<i64> {
    let unit_ns = match to {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) if is_utc(zone.as_deref()) => 1,
        DataType::Timestamp(TimeUnit::Microsecond, zone) if is_utc(zone.as_deref()) => 1_000,
        DataType::Timestamp(TimeUnit::Millisecond, zone) if is_utc(zone.as_deref()) => 1_000_000,
        DataType::Timestamp(TimeUnit::Second, zone) if is_utc(zone.as_deref()) => SECOND_NS,
        DataType::Date32 => DAY_NS,
        _ => return None,
    };
    width.checked_add(unit_ns - 1)
}

const SECOND_NS: i64 = 1_000_000_000;
const DAY_NS: i64 = 86_400 * SECOND_NS;

fn unit_ns(unit: &str) -> Option<i64> {
    Some(match unit {
        "microsecond" => 1_000,
        "millisecond" => 1_000_000,
        "second" => SECOND_NS,
        "minute" => 60 * SECOND_NS,
        "hour" => 3_600 * SECOND_NS,
        "day" => DAY_NS,
        "week" => 7 * DAY_NS,
        "month" => 31 * DAY_NS,
        "quarter" => 92 * DAY_NS,
        "year" => 366 * DAY_NS,
        _ => return None,
    })
}

fn interval_ns(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            let days = i64::from(interval.months).checked_mul(31)?.checked_add(i64::from(interval.days))?;
            days.checked_mul(DAY_NS)?.checked_add(interval.nanoseconds).filter(|width| *width > 0)
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            let days = i64::from(interval.days).checked_mul(DAY_NS)?;
            days.checked_add(i64::from(interval.milliseconds).checked_mul(1_000_000)?)
                .filter(|width| *width > 0)
        }
        _ => None,
    }
}

fn is_utc(zone: Option<&str>) -> bool {
    matches!(zone, None | Some("UTC" | "+00:00"))
}

fn is_column(expression: &Expr, column: &str) -> bool {
    match expression {
        Expr::Column(found) => found.name == column,
        // The planner casts the dictionary to plain text to compare it.
        Expr::Cast(cast) if is_text(cast.field.data_type()) => is_column(&cast.expr, column),
        Expr::TryCast(cast) if is_text(cast.field.data_type()) => is_column(&cast.expr, column),
        _ => false,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn literal(expression: &Expr) -> Option<&ScalarValue> {
    match expression {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

fn nanoseconds(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampNanosecond(Some(at), zone) if is_utc(zone.as_deref()) => Some(*at),
        ScalarValue::TimestampMicrosecond(Some(at), zone) if is_utc(zone.as_deref()) => at.checked_mul(1_000),
        ScalarValue::TimestampMillisecond(Some(at), zone) if is_utc(zone.as_deref()) => {
            at.checked_mul(1_000_000)
        }
        ScalarValue::TimestampSecond(Some(at), zone) if is_utc(zone.as_deref()) => at.checked_mul(SECOND_NS),
        ScalarValue::Date32(Some(days)) => i64::from(*days).checked_mul(DAY_NS),
        ScalarValue::Dictionary(_, inner) => nanoseconds(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{cast, col, lit};

    use super::*;

    fn at(ns: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())))
    }

    fn bounds(filter: &Expr) -> Bounds {
        Bounds::of_filters([filter])
    }

    #[test]
    fn comparisons_on_either_side_and_between_give_a_range() {
        let expected = Bounds { time_ns: Some((10, 20)), services: None };
        assert_eq!(bounds(&col("timestamp").gt_eq(at(10)).and(at(20).gt_eq(col("timestamp")))), expected);
        assert_eq!(bounds(&col("timestamp").between(at(10), at(20))), expected);
        assert_eq!(bounds(&col("observed_timestamp").between(at(10), at(20))), Bounds::default());
        assert_eq!(bounds(&col("timestamp").not_between(at(10), at(20))), Bounds::default());
        assert_eq!(bounds(&col("timestamp").not_eq(at(10))), Bounds::default());
    }

    #[test]
    fn either_side_of_an_or_keeps_what_it_may_match() {
        let early = col("timestamp").between(at(1), at(2));
        let late = col("timestamp").between(at(8), at(9));
        assert_eq!(bounds(&early.clone().or(late)).time_ns, Some((1, 9)));
        let web = col("service").eq(lit("web"));
        assert_eq!(bounds(&early.or(web.clone())), Bounds::default());
        let db = lit("db").eq(col("service"));
        assert_eq!(bounds(&web.or(db)), Bounds::service(["db".into(), "web".into()]));
    }

    #[test]
    fn contradictions_leave_nothing_and_do_not_widen_an_or() {
        let never = col("timestamp").gt_eq(at(9)).and(col("timestamp").lt_eq(at(1)));
        assert!(!bounds(&never).meets(0, 100));
        let either = never.or(col("timestamp").eq(at(5)));
        assert_eq!(bounds(&either).time_ns, Some((5, 5)));
    }

    #[test]
    fn what_is_not_a_literal_of_text_narrows_nothing() {
        assert_eq!(bounds(&col("service").eq(col("host"))), Bounds::default());
        assert_eq!(bounds(&col("service").in_list(vec![lit("a"), col("host")], false)), Bounds::default());
        assert_eq!(bounds(&col("service").in_list(vec![lit("a"), lit("b")], true)), Bounds::default());
    }

    #[test]
    fn only_filters_that_their_bounds_say_whole_are_exact() {
        let coarse = ScalarValue::TimestampSecond(Some(1), Some("UTC".into()));
        let seconds = cast(col("timestamp"), coarse.data_type());
        let services = || col("service").in_list(vec![lit("a"), lit("b")], false);
        let exact = [
            col("timestamp").gt_eq(at(10)),
            at(10).lt(col("timestamp")),
            col("timestamp").between(at(10), at(20)).and(col("service").eq(lit("web"))),
            services(),
            services().or(col("service").eq(lit("c"))),
        ];
        for filter in &exact {
            assert!(Bounds::are_exact(filter), "{filter}");
        }
        let not_exact = [
            seconds.gt_eq(lit(coarse)),
            col("timestamp").gt(at(i64::MAX)),
            col("timestamp").not_eq(at(10)),
            col("timestamp").eq(at(1)).or(col("timestamp").eq(at(9))),
            col("timestamp").gt(at(1)).or(col("service").eq(lit("web"))),
            col("timestamp").in_list(vec![at(1), at(9)], false),
            col("service").in_list(vec![lit("a")], true),
            col("service").in_list(vec![lit("a"), col("host")], false),
            col("service").gt(lit("a")),
            col("host").eq(lit("a")),
        ];
        for filter in &not_exact {
            assert!(!Bounds::are_exact(filter), "{filter}");
        }
    }

    #[test]
    fn a_file_is_held_whole_only_by_bounds_around_it() {
        let times = |from, to| Bounds { time_ns: Some((from, to)), services: None };
        assert!(times(0, 10).hold_all(0, 10, false, &Bounds::default()));
        assert!(!times(1, 10).hold_all(0, 10, true, &Bounds::default()));
        assert!(!times(0, 9).hold_all(0, 10, true, &Bounds::default()));
        let (one, two) = (Bounds::service(["a".into()]), Bounds::service(["a".into(), "b".into()]));
        assert!(one.hold_all(0, 1, true, &one) && two.hold_all(0, 1, true, &one));
        assert!(!one.hold_all(0, 1, true, &two), "the file may have lines of b");
        assert!(!one.hold_all(0, 1, false, &one) && !one.hold_all(0, 1, true, &Bounds::default()));
    }

    #[test]
    fn a_bound_covers_only_what_lies_within_it() {
        let wide = Bounds { time_ns: Some((0, 10)), services: None };
        let narrow = Bounds { time_ns: Some((2, 5)), services: Some(["a".to_owned()].into()) };
        assert!(wide.covers(&narrow) && Bounds::default().covers(&wide));
        assert!(!narrow.covers(&wide) && !wide.covers(&Bounds::default()));
    }
}
