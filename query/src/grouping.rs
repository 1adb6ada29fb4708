//! Groups of words and times: `group by time_bucket(…), service, level` over millions of rows.
//!
//! What people group log lines by has few values and comes in runs: files are ordered by service and time, and their words are
//! dictionaries. DataFusion writes such keys out row by row and hashes the bytes. Here a word is a number from its dictionary on, a time is
//! looked up only where it changes, and a row that equals the one before it is in the same group. Everything else, the aggregates
//! first, is DataFusion's.
//!
//! The rule replaces the first of the two steps of an aggregation, that within a partition. What always holds: the rows that leave it add up to
//! the same groups; a group may leave it several times, which the second step puts together as it does those of several partitions. So its
//! memory has a limit, [`GROUPS_MAX`], and nothing is ever spilled.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{ReplaceChildrenOptions, apply_expression_roots};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::limits::{GROUP_COLUMNS_MAX, GROUPS_MAX};

/// Takes [`Grouping`] where it fits.
#[derive(Debug)]
pub(crate) struct GroupByNumbers;

impl PhysicalOptimizerRule for GroupByNumbers {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_up(|node| {
            let grouping = node.downcast_ref::<AggregateExec>().and_then(Grouping::instead_of);
            Ok(match grouping {
                Some(grouping) => Transformed::yes(Arc::new(grouping) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(node),
            })
        });
        Ok(replaced?.data)
    }

    fn name(&self) -> &'static str {
        "group_by_numbers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What a column of keys is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    /// A time or a signed number, taken as 64 bits.
    Number,
    /// A time in nanoseconds, of which the start of its bucket is the key.
    Bucket(Bucket),
}

/// Buckets of time as `date_bin` makes them: so wide, one of them beginning at the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    width_ns: i64,
    origin_ns: i64,
}

impl Bucket {
    /// The buckets and the time, if the key is `date_bin(width, time, origin)` of constants. The function itself divides for every row.
    fn of(key: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<(Arc<dyn PhysicalExpr>, Bucket)> {
        let function =
            key.downcast_ref::<ScalarFunctionExpr>().filter(|function| function.name() == "date_bin")?;
        let [width, time, origin] = function.args() else { return None };
        let constant = |argument: &Arc<dyn PhysicalExpr>| {
            argument.downcast_ref::<Literal>().map(|literal| literal.value().clone())
        };
        let ScalarValue::IntervalMonthDayNano(Some(width)) = constant(width)? else { return None };
        let ScalarValue::TimestampNanosecond(Some(origin_ns), _) = constant(origin)? else { return None };
        let is_time = matches!(time.data_type(schema).ok()?, DataType::Timestamp(TimeUnit::Nanosecond, _));
        let width_ns = i64::from(width.days).checked_mul(DAY_NS)?.checked_add(width.nanoseconds)?;
        let fits = is_time && width.months == 0 && width_ns > 0;
        fits.then(|| (time.clone(), Bucket { width_ns, origin_ns }))
    }

    /// The start of a time's bucket.
    fn start(self, time_ns: i64) -> Result<i64> {
        let start = || {
            let within = time_ns.checked_sub(self.origin_ns)?.rem_euclid(self.width_ns);
            time_ns.checked_sub(within)
        };
        start().ok_or_else(|| DataFusionError::Execution("a time is too far away for its bucket".to_owned()))
    }
}

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

impl Kind {
    fn of(data_type: &DataType) -> Option<Kind> {
        match data_type {
            DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => {
                Some(Kind::Word)
            }
            // Unsigned ones are positions here: nearly every row has its own.
            DataType::Timestamp(..) | DataType::Int32 | DataType::Int64 => Some(Kind::Number),
            _ => None,
        }
    }
}

/// The first step of an aggregation.
#[derive(Clone, Debug)]
struct Grouping {
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<(Arc<dyn PhysicalExpr>, Kind)>,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl Grouping {
    fn instead_of(aggregation: &AggregateExec) -> Option<Grouping> {
        let groups = aggregation.group_expr();
        let fits = *aggregation.mode() == AggregateMode::Partial
            && aggregation.limit_options().is_none()
            && groups.is_single()
            && (1..=GROUP_COLUMNS_MAX).contains(&groups.expr().len())
            && aggregation.aggr_expr().iter().all(|aggregate| {
                aggregate.groups_accumulator_supported()
                    && !aggregate.is_distinct()
                    && aggregate.order_bys().is_empty()
            });
        if !fits {
            return None;
        }
        let input = aggregation.input();
        let schema = input.schema();
        let key = |key: &Arc<dyn PhysicalExpr>| match Bucket::of(key, &schema) {
            Some((time, bucket)) => Some((time, Kind::Bucket(bucket))),
            None => Some((key.clone(), Kind::of(&key.data_type(&schema).ok()?)?)),
        };
        let keys: Option<Vec<_>> = groups.expr().iter().map(|(expression, _)| key(expression)).collect();
        Some(Grouping {
            input: input.clone(),
            keys: keys?,
            aggregates: aggregation.aggr_expr().to_vec(),
            filters: aggregation.filter_expr().to_vec(),
            properties: Arc::new(aggregation.cache().clone()),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for Grouping {
    fn fmt_as(&self, _form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, kind): &(Arc<dyn PhysicalExpr>, Kind)| match kind {
            Kind::Bucket(bucket) => format!("{key} in buckets of {} s", bucket.width_ns as f64 / 1e9),
            _ => key.to_string(),
        };
        let keys: Vec<String> = self.keys.iter().map(shown).collect();
        let aggregates: Vec<&str> = self.aggregates.iter().map(|aggregate| aggregate.name()).collect();
        write!(f, "GroupByNumbers: by=[{}], aggregates=[{}]", keys.join(", "), aggregates.join(", "))
    }
}

impl ExecutionPlan for Grouping {
    fn name(&self) -> &'static str {
        "GroupByNumbers"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.keys.iter().map(|(key, _)| key), visit)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("groups are made of one input".into()))?;
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Arc::new(Grouping { input, metrics, ..Grouping::clone(&self) }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let reservation =
            MemoryConsumer::new(format!("GroupByNumbers[{partition}]")).register(context.memory_pool());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let groups = Groups::new(self, context.session_config().batch_size(), reservation)?;
        let rows = stream::try_unfold(Some((input, groups)), move |state| {
            let metrics = metrics.clone();
            async move {
                let Some((mut input, mut groups)) = state else { return Ok(None) };
                loop {
                    let Some(batch) = input.try_next().await? else {
                        let _timed = metrics.elapsed_compute().timer();
                        let rows = groups.take()?.record_output(&metrics);
                        return Ok(Some((rows, None)));
                    };
                    let _timed = metrics.elapsed_compute().timer();
                    if groups.add(&batch)? {
                        let rows = groups.take()?.record_output(&metrics);
                        return Ok(Some((rows, Some((input, groups)))));
                    }
                }
            }
        });
        let schema = self.schema();
        let batch_rows = context.session_config().batch_size().max(1);
        // Whoever reads them expects batches of the usual size.
        let cut = rows.flat_map(move |rows: Result<RecordBatch>| {
            let slices: Vec<Result<RecordBatch>> = match rows {
                Ok(rows) => (0..rows.num_rows())
                    .step_by(batch_rows)
                    .map(|from| Ok(rows.slice(from, batch_rows.min(rows.num_rows() - from))))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(slices)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, cut)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// How many groups are found without a hash table: more than come by turns within a minute, and few enough for the nearest caches.
const RECENT: usize = 1024;

/// Numbers of keys, each in the one place that its key has: what comes again soon is found without a hash table.
struct Recent<K> {
    keys: Box<[K; RECENT]>,
    /// Zero where there is none; all others are one more than the number.
    numbers: Box<[u32; RECENT]>,
}

impl<K: Copy + Default + PartialEq> Recent<K> {
    fn new() -> Self {
        Recent { keys: Box::new([K::default(); RECENT]), numbers: Box::new([0; RECENT]) }
    }

    /// The place of a key, by a number that tells keys apart.
    #[inline]
    fn place(number: u64) -> usize {
        let place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT.trailing_zeros());
        usize::try_from(place).unwrap_or(0)
    }

    #[inline]
    fn get(&self, key: K, place: usize) -> Option<u32> {
        let (Some(known), Some(number)) = (self.keys.get(place), self.numbers.get(place)) else {
            return None;
        };
        if *known == key { number.checked_sub(1) } else { None }
    }

    fn set(&mut self, key: K, place: usize, number: u32) {
        if let (Some(known), Some(slot)) = (self.keys.get_mut(place), self.numbers.get_mut(place)) {
            (*known, *slot) = (key, number.saturating_add(1));
        }
    }
}

/// The groups of a partition, as far as they have come.
struct Groups {
    schema: SchemaRef,
    keys: Vec<(Arc<dyn PhysicalExpr>, Kind)>,
    columns: Vec<Numbers>,
    /// Which group the numbers of all columns are.
    known: HashMap<u128, u32, Seeded>,
    recent: Recent<u128>,
    /// Each group's numbers.
    packed: Vec<u128>,
    aggregates: Vec<Aggregate>,
    groups_max: usize,
    reservation: MemoryReservation,
    // Of each batch; kept for their memory.
    numbers: Vec<u32>,
    rows: Vec<u128>,
    group_of_row: Vec<usize>,
}

struct Aggregate {
    expression: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    accumulator: Box<dyn GroupsAccumulator>,
}

impl Groups {
    fn new(plan: &Grouping, batch_rows: usize, reservation: MemoryReservation) -> Result<Groups> {
        let aggregate = |(expression, filter): (&Arc<AggregateFunctionExpr>, &Option<_>)| {
            Ok(Aggregate {
                arguments: expression.expressions(),
                filter: filter.clone(),
                accumulator: expression.create_groups_accumulator()?,
                expression: expression.clone(),
            })
        };
        Ok(Groups {
            schema: plan.schema(),
            columns: plan.keys.iter().map(|(_, kind)| Numbers::of(*kind)).collect(),
            keys: plan.keys.clone(),
            known: HashMap::with_hasher(Seeded::new()),
            recent: Recent::new(),
            packed: Vec::new(),
            aggregates: plan.aggregates.iter().zip(&plan.filters).map(aggregate).collect::<Result<_>>()?,
            groups_max: GROUPS_MAX.max(batch_rows),
            reservation,
            numbers: Vec::new(),
            rows: Vec::new(),
            group_of_row: Vec::new(),
        })
    }

    /// Adds rows; whether the groups have to be taken before more come.
    fn add(&mut self, batch: &RecordBatch) -> Result<bool> {
        let rows = batch.num_rows();
        self.rows.clear();
        self.rows.resize(rows, 0);
        for ((key, _), column) in self.keys.iter().zip(&mut self.columns) {
            let values = key.evaluate(batch)?.into_array(rows)?;
            self.numbers.clear();
            column.number(&values, &mut self.numbers)?;
            for (row, number) in self.rows.iter_mut().zip(&self.numbers) {
                *row = *row << 32 | u128::from(*number);
            }
        }
        self.group_of_row.clear();
        self.group_of_row.reserve(rows);
        let mut last = None;
        for row in &self.rows {
            let group = match last {
                Some((numbers, group)) if numbers == *row => group,
                _ => {
                    // The columns' numbers, one over the other.
                    let folded = u64::try_from((row ^ (row >> 61)) & u128::from(u64::MAX)).unwrap_or(0);
                    let place = Recent::<u128>::place(folded);
                    match self.recent.get(*row, place) {
                        Some(group) => group,
                        None => {
                            let group = group(*row, &mut self.known, &mut self.packed)?;
                            self.recent.set(*row, place, group);
                            group
                        }
                    }
                }
            };
            last = Some((*row, group));
            self.group_of_row.push(usize::try_from(group).unwrap_or(usize::MAX));
        }
        for aggregate in &mut self.aggregates {
            let arguments = aggregate.arguments.iter();
            let values = arguments
                .map(|argument| argument.evaluate(batch)?.into_array(rows))
                .collect::<Result<Vec<_>>>()?;
            let filter = match &aggregate.filter {
                Some(filter) => Some(filter.evaluate(batch)?.into_array(rows)?),
                None => None,
            };
            let filter = filter.as_ref().map(|filter| filter.as_boolean());
            aggregate.accumulator.update_batch(&values, &self.group_of_row, filter, self.packed.len())?;
        }
        let most = self.columns.iter().map(Numbers::count).max().unwrap_or(0).max(self.packed.len());
        let is_full = most >= self.groups_max;
        // What is taken makes room for the next.
        Ok(is_full || self.reservation.try_resize(self.bytes()).is_err())
    }

    fn bytes(&self) -> usize {
        let group_bytes = 3 * (size_of::<u128>() + size_of::<usize>());
        let columns: usize = self.columns.iter().map(Numbers::bytes).sum();
        let aggregates: usize = self.aggregates.iter().map(|aggregate| aggregate.accumulator.size()).sum();
        group_bytes * self.packed.len() + columns + aggregates
    }

    /// The groups as rows, with the state of each aggregate; none is left.
    fn take(&mut self) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        let kinds = self.keys.iter().map(|(_, kind)| *kind);
        for (place, ((column, kind), field)) in
            self.columns.iter_mut().zip(kinds).zip(self.schema.fields()).enumerate()
        {
            let shift = 32 * (self.keys.len() - 1 - place);
            let numbers = self.packed.iter().map(|packed| {
                let low = (packed >> shift) & u128::from(u32::MAX);
                u32::try_from(low).unwrap_or(0)
            });
            columns.push(column.values(numbers, field.data_type())?);
            *column = Numbers::of(kind);
        }
        for aggregate in &mut self.aggregates {
            columns.extend(aggregate.accumulator.state(EmitTo::All)?);
            aggregate.accumulator = aggregate.expression.create_groups_accumulator()?;
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        self.known.clear();
        self.recent = Recent::new();
        self.packed.clear();
        self.reservation.free();
        Ok(rows)
    }
}

/// The values of a column of keys, numbered as they come. Zero is null.
enum Numbers {
    Words {
        known: HashMap<Box<str>, u32>,
        texts: Vec<Box<str>>,
        bytes: usize,
        /// The dictionary of the last batch, and the number of each of its words.
        last: Option<(ArrayRef, Vec<u32>)>,
    },
    Numbers {
        known: HashMap<i64, u32, Seeded>,
        recent: Recent<i64>,
        values: Vec<i64>,
        bucket: Option<Bucket>,
    },
}

impl Numbers {
    fn of(kind: Kind) -> Numbers {
        match kind {
            Kind::Word => Numbers::Words { known: HashMap::new(), texts: Vec::new(), bytes: 0, last: None },
            Kind::Number | Kind::Bucket(_) => Numbers::Numbers {
                known: HashMap::with_hasher(Seeded::new()),
                recent: Recent::new(),
                values: Vec::new(),
                bucket: match kind {
                    Kind::Bucket(bucket) => Some(bucket),
                    _ => None,
                },
            },
        }
    }

    /// How many values there are.
    fn count(&self) -> usize {
        match self {
            Numbers::Words { texts, .. } => texts.len(),
            Numbers::Numbers { values, .. } => values.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Numbers::Words { texts, bytes, last, .. } => {
                let mapped = last.as_ref().map_or(0, |(_, numbers)| 4 * numbers.len());
                2 * bytes + 4 * size_of::<Box<str>>() * texts.len() + mapped
            }
            Numbers::Numbers { values, .. } => 4 * size_of::<(i64, u32)>() * values.len(),
        }
    }

    /// Appends the number of each value.
    fn number(&mut self, array: &ArrayRef, numbers: &mut Vec<u32>) -> Result<()> {
        match self {
            Numbers::Words { known, texts, bytes, last } => {
                let words = array.as_dictionary_opt::<Int32Type>().ok_or_else(|| unexpected(array))?;
                let is_last = |(dictionary, _): &&(ArrayRef, _)| Arc::ptr_eq(dictionary, words.values());
                let mapped = match last.take().filter(|last| is_last(&last)) {
                    Some(same) => same,
                    None => {
                        let values =
                            words.values().as_string_opt::<i32>().ok_or_else(|| unexpected(array))?;
                        let mut mapping = Vec::with_capacity(values.len());
                        for word in values {
                            let Some(word) = word else {
                                mapping.push(0);
                                continue;
                            };
                            mapping.push(match known.get(word) {
                                Some(number) => *number,
                                None => {
                                    texts.push(word.into());
                                    *bytes += word.len();
                                    let number = next_number(texts.len())?;
                                    known.insert(word.into(), number);
                                    number
                                }
                            });
                        }
                        (words.values().clone(), mapping)
                    }
                };
                let number_of = |key: i32| {
                    usize::try_from(key).ok().and_then(|key| mapped.1.get(key)).copied().unwrap_or(0)
                };
                match words.keys().nulls() {
                    None => numbers.extend(words.keys().values().iter().map(|key| number_of(*key))),
                    Some(_) => numbers.extend(words.keys().iter().map(|key| key.map_or(0, number_of))),
                }
                *last = Some(mapped);
            }
            Numbers::Numbers { known, recent, values, bucket } => {
                let array = cast(array, &DataType::Int64)?;
                let array = array.as_primitive::<Int64Type>();
                let mut number = |from: i64| {
                    let place = Recent::<i64>::place(from.cast_unsigned());
                    match recent.get(from, place) {
                        Some(number) => Ok(number),
                        None => {
                            let number = number_of_value(from, known, values)?;
                            recent.set(from, place, number);
                            Ok::<_, DataFusionError>(number)
                        }
                    }
                };
                let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
                let is_null = |row: usize| nulls.is_some_and(|nulls| nulls.is_null(row));
                match bucket {
                    None => {
                        for (row, value) in array.values().iter().enumerate() {
                            numbers.push(if is_null(row) { 0 } else { number(*value)? });
                        }
                    }
                    // Most times are in the bucket of the one before.
                    Some(bucket) => {
                        let (mut within, mut last) = (0..0, 0);
                        for (row, value) in array.values().iter().enumerate() {
                            if is_null(row) {
                                numbers.push(0);
                                continue;
                            }
                            if !within.contains(value) {
                                let from = bucket.start(*value)?;
                                within = from..from.saturating_add(bucket.width_ns);
                                last = number(from)?;
                            }
                            numbers.push(last);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The values that have these numbers.
    fn values(&mut self, numbers: impl Iterator<Item = u32>, data_type: &DataType) -> Result<ArrayRef> {
        let place = |number: u32| usize::try_from(number).ok()?.checked_sub(1);
        Ok(match self {
            Numbers::Words { texts, .. } => {
                let keys: Int32Array =
                    numbers.map(|number| place(number).and_then(|place| i32::try_from(place).ok())).collect();
                let words = StringArray::from_iter_values(texts.drain(..));
                Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(words))?)
            }
            Numbers::Numbers { values, .. } => {
                let array: Int64Array = numbers
                    .map(|number| place(number).and_then(|place| values.get(place)).copied())
                    .collect();
                cast(&array, data_type)?
            }
        })
    }
}

/// The group of a row's numbers.
#[cold]
fn group(row: u128, known: &mut HashMap<u128, u32, Seeded>, packed: &mut Vec<u128>) -> Result<u32> {
    if let Some(group) = known.get(&row) {
        return Ok(*group);
    }
    let group = next_number(packed.len())?;
    packed.push(row);
    known.insert(row, group);
    Ok(group)
}

/// The number of a value.
#[cold]
fn number_of_value(value: i64, known: &mut HashMap<i64, u32, Seeded>, values: &mut Vec<i64>) -> Result<u32> {
    if let Some(number) = known.get(&value) {
        return Ok(*number);
    }
    values.push(value);
    let number = next_number(values.len())?;
    known.insert(value, number);
    Ok(number)
}

/// The number of a value that is the last of so many.
fn next_number(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(|_| DataFusionError::Internal("more values than there are numbers".into()))
}

fn unexpected(array: &ArrayRef) -> DataFusionError {
    DataFusionError::Internal(format!("a key is of the type {}, which was not planned", array.data_type()))
}

/// A quick hash of numbers, different in each process, so that no log line can be made to have groups that collide.
#[derive(Clone)]
struct Seeded(u64);

impl Seeded {
    fn new() -> Seeded {
        Seeded(RandomState::new().hash_one(0) | 1)
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.0, seed: self.0 }
    }
}

struct Folded {
    state: u64,
    seed: u64,
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The product's two halves over each other: every bit of the number reaches every bit of the hash.
        let product = u128::from(self.state ^ number) * u128::from(self.seed ^ 0x9e37_79b9_7f4a_7c15);
        let (low, high) = (product & u128::from(u64::MAX), product >> 64);
        self.state = u64::try_from(low ^ high).unwrap_or(0);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write_u128(&mut self, number: u128) {
        self.write_u64(u64::try_from(number >> 64).unwrap_or(0));
        self.write_u64(u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Float64Array, TimestampNanosecondArray};
    use datafusion::arrow::datatypes::Field;
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::datasource::MemTable;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    const ROWS: i64 = 150_000;

    /// A third of the rows in each of three batches: runs of times on both sides of 1970, dictionaries that share words, repeat one,
    /// have one that is not used and one that is null.
    fn batches() -> Vec<RecordBatch> {
        let word = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("at", time, true),
            Field::new("service", word.clone(), true),
            Field::new("level", word, true),
            Field::new("number", DataType::Int32, false),
            Field::new("value", DataType::Float64, true),
        ]));
        let dictionaries = [
            vec![Some("web"), Some("db"), Some("web")],
            vec![Some("unused"), Some("web"), None],
            vec![Some("db"), Some("web"), Some("cache")],
        ];
        let dictionary = |keys: Int32Array, words: Vec<Option<&str>>| -> ArrayRef {
            Arc::new(DictionaryArray::new(keys, Arc::new(StringArray::from(words))))
        };
        let batch = |(part, words): (i64, Vec<Option<&str>>)| {
            let rows = || part * ROWS / 3..(part + 1) * ROWS / 3;
            let times = rows().map(|row| (row % 1009 != 0).then_some((row - ROWS / 2) * 7_000_000_001));
            let services = rows().map(|row| (row % 97 != 0).then_some(i32::try_from(row / 50 % 3).unwrap()));
            let levels = rows().map(|row| Some(i32::try_from(row * row % 7 % 2).unwrap()));
            let columns: Vec<ArrayRef> = vec![
                Arc::new(times.collect::<TimestampNanosecondArray>().with_timezone("UTC")),
                dictionary(services.collect(), words),
                dictionary(levels.collect(), vec![Some("info"), Some("error")]),
                Arc::new(Int32Array::from_iter_values(rows().map(|row| i32::try_from(row).unwrap() - 1000))),
                Arc::new(rows().map(|row| (row % 3 != 0).then_some(row as f64)).collect::<Float64Array>()),
            ];
            RecordBatch::try_new(schema.clone(), columns).unwrap()
        };
        (0..).zip(dictionaries).map(batch).collect()
    }

    fn context(rule: bool) -> SessionContext {
        let config = SessionConfig::new().with_target_partitions(2).with_batch_size(1000);
        let state = SessionStateBuilder::new().with_config(config).with_default_features();
        let state = match rule {
            true => state.with_physical_optimizer_rule(Arc::new(GroupByNumbers)),
            false => state,
        };
        let context = SessionContext::new_with_state(state.build());
        let batches = batches();
        let schema = batches[0].schema();
        let partitions = vec![batches[..2].to_vec(), batches[2..].to_vec()];
        context.register_table("rows", Arc::new(MemTable::try_new(schema, partitions).unwrap())).unwrap();
        context
    }

    async fn shown(context: &SessionContext, query: &str) -> Vec<String> {
        let batches = context.sql(query).await.unwrap().collect().await.unwrap();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    const GROUPED: [&str; 6] = [
        "select service, count(*), min(at), max(value) from rows group by 1",
        "select date_bin(interval '1 hour', at, timestamp '2000-01-03T00:00:00Z') as hour, count(*), sum(value) from rows group by 1",
        "select date_bin(interval '7 minutes', at, timestamp '1970-01-01T00:00:30Z') as bucket, service, level, count(value) from rows group by 1, 2, 3",
        "select level, count(*) filter (where value > 70000), avg(value) from rows group by 1",
        "select at, count(*) from rows group by 1",
        "select number, level, count(*) from rows group by 1, 2",
    ];

    #[tokio::test]
    async fn groups_are_those_that_datafusion_makes() {
        let (plain, ruled) = (context(false), context(true));
        for query in GROUPED {
            let plan = shown(&ruled, &format!("explain {query}")).await;
            assert!(plan.iter().any(|line| line.contains("GroupByNumbers")), "{query}: {plan:?}");
            let (expected, found) = (shown(&plain, query).await, shown(&ruled, query).await);
            assert_eq!(expected.len(), found.len(), "{query}");
            for (expected, found) in expected.iter().zip(&found) {
                assert_eq!(expected, found, "{query}");
            }
        }
    }

    /// What is neither a word nor a time, sets of groups, too many columns, and no groups at all.
    #[tokio::test]
    async fn what_does_not_fit_is_left_to_datafusion() {
        let ruled = context(true);
        for query in [
            "select value, count(*) from rows group by 1",
            "select service, level, count(*) from rows group by grouping sets ((service), (level))",
            "select service, level, at, number, cast(value as bigint), count(*) from rows group by 1, 2, 3, 4, 5",
            "select count(*) from rows",
        ] {
            let plan = shown(&ruled, &format!("explain {query}")).await;
            assert!(!plan.iter().any(|line| line.contains("GroupByNumbers")), "{query}: {plan:?}");
        }
    }

    #[test]
    fn a_bucket_begins_at_or_before_each_of_its_times() {
        let bucket = Bucket { width_ns: 10, origin_ns: 3 };
        let starts: Vec<i64> = [-8, -7, 2, 3, 12, 13].map(|time| bucket.start(time).unwrap()).to_vec();
        assert_eq!(starts, [-17, -7, -7, 3, 3, 13]);
        assert!(bucket.start(i64::MIN).is_err());
    }
}
