//! Why a query has no answer.
//!
//! What a person asked and what their data holds may stand in DataFusion's messages ("cannot cast string '…'"). That text
//! is for whoever asked and for nobody else: it travels as [`Shown`], which neither `Debug` nor `Display` gives out, so an
//! error can be logged as it is.

use std::fmt;
use std::time::Duration;

use beeacon_store::StoreError;
use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

use crate::limits::ERROR_TEXT_BYTES_MAX;
use crate::position::{self, Place};

/// Text that only the person who asked may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Takes a text, cut to [`ERROR_TEXT_BYTES_MAX`].
    pub fn new(text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.len() > ERROR_TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
            text.push('…');
        }
        Shown(text)
    }

    /// The text, for an answer to whoever asked; never for a log.
    pub fn for_the_asker(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// Why a query has no answer. `Display` and `Debug` hold no text of the query or of the data;
/// [`QueryError::for_the_asker`] may.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query text is too long.
    #[error("query has {bytes} bytes, allowed are {max}")]
    TextBytes {
        /// Its length, in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too many words and operators.
    #[error("query has more than {max} tokens")]
    Tokens {
        /// The limit.
        max: usize,
        /// Where the first one too many stands.
        place: Option<Place>,
    },
    /// Nested too deep.
    #[error("query is nested deeper than {max} levels")]
    Depth {
        /// The limit.
        max: usize,
        /// Where the limit is crossed.
        place: Option<Place>,
    },
    /// Functions that multiply text or lists.
    #[error("functions of the query may make values grow {max}-fold at most")]
    Growth {
        /// The limit.
        max: u64,
    },
    /// There is no statement.
    #[error("query is empty")]
    Empty,
    /// More than one statement.
    #[error("query has {count} statements, allowed is one")]
    Statements {
        /// How many.
        count: usize,
    },
    /// Not a statement that reads.
    #[error(
        "statement is not allowed: only SELECT, WITH, VALUES, EXPLAIN, DESCRIBE and SHOW TABLES or COLUMNS are"
    )]
    ReadOnly,
    /// Not SQL.
    #[error("query is not well formed")]
    Syntax {
        /// What the parser says.
        shown: Shown,
        /// Where.
        place: Option<Place>,
    },
    /// SQL that does not fit the tables.
    #[error("query does not fit the tables")]
    Plan {
        /// What the planner says.
        shown: Shown,
        /// Where.
        place: Option<Place>,
    },
    /// It failed on the data, such as a division by zero.
    #[error("query failed on the data")]
    Execution {
        /// What the operator says.
        shown: Shown,
    },
    /// Its parameters do not fit it.
    #[error("parameters do not fit the query: {fault}")]
    Parameters {
        /// What does not fit.
        fault: &'static str,
    },
    /// It took too long.
    #[error("query took longer than {}", span(*limit))]
    Time {
        /// The limit.
        limit: Duration,
    },
    /// It needed too much memory, or spilled too much.
    #[error("query needed more memory than {bytes} bytes")]
    Memory {
        /// The limit.
        bytes: usize,
    },
    /// Too many rows.
    #[error("answer has more than {rows} rows")]
    Rows {
        /// The limit.
        rows: u64,
    },
    /// Too many bytes.
    #[error("answer has more than {bytes} bytes")]
    Bytes {
        /// The limit.
        bytes: u64,
    },
    /// Too many files.
    #[error("query would read {files} files, allowed are {max}")]
    Files {
        /// How many.
        files: usize,
        /// The limit.
        max: usize,
    },
    /// Too many queries.
    #[error("{running} queries are running, and no turn came within the wait allowed")]
    Busy {
        /// How many may run.
        running: usize,
    },
    /// The format cannot carry a column's type.
    #[error("answer cannot be written in this format")]
    Format {
        /// What the writer says.
        shown: Shown,
    },
    /// The store failed.
    #[error("stored rows could not be read")]
    Store(#[source] Option<StoreError>),
    /// A table that the program brings has no rows to give now.
    #[error("a table of the program could not be read")]
    Relation {
        /// What it says.
        shown: Shown,
    },
    /// A row of the store is not where it belongs.
    #[error("file of another tenant was offered to a query")]
    ForeignFile,
    /// The query's directory or threads could not be made.
    #[error("query threads or spill directory could not be made")]
    Setup(#[source] std::io::Error),
    /// Beeacon or DataFusion is at fault.
    #[error("query stopped by a fault of the program")]
    Internal {
        /// What DataFusion says.
        shown: Shown,
    },
}

/// When an error of DataFusion came: it tells whose fault a plain message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Plan,
    Run,
}

impl QueryError {
    /// A short name for programs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            QueryError::TextBytes { .. } => "query_too_long",
            QueryError::Tokens { .. } => "query_too_many_tokens",
            QueryError::Depth { .. } => "query_too_deep",
            QueryError::Growth { .. } => "query_growth",
            QueryError::Empty => "query_empty",
            QueryError::Statements { .. } => "query_statements",
            QueryError::ReadOnly => "read_only",
            QueryError::Syntax { .. } => "syntax",
            QueryError::Plan { .. } => "plan",
            QueryError::Execution { .. } => "execution",
            QueryError::Parameters { .. } => "parameters",
            QueryError::Time { .. } => "limit_time",
            QueryError::Memory { .. } => "limit_memory",
            QueryError::Rows { .. } => "limit_rows",
            QueryError::Bytes { .. } => "limit_bytes",
            QueryError::Files { .. } => "limit_files",
            QueryError::Busy { .. } => "busy",
            QueryError::Format { .. } => "format",
            QueryError::Store(_) => "store",
            QueryError::Relation { .. } => "relation",
            QueryError::ForeignFile | QueryError::Setup(_) | QueryError::Internal { .. } => "internal",
        }
    }

    /// The message with the parser's, planner's or operator's own words, for whoever asked; never for a log.
    pub fn for_the_asker(&self) -> String {
        match self {
            QueryError::Syntax { shown, .. }
            | QueryError::Plan { shown, .. }
            | QueryError::Execution { shown }
            | QueryError::Format { shown }
            | QueryError::Relation { shown }
            | QueryError::Internal { shown } => format!("{self}: {}", shown.for_the_asker()),
            other => other.to_string(),
        }
    }

    /// Where in the query text the fault is, if that is known.
    pub fn place(&self) -> Option<Place> {
        match self {
            QueryError::Tokens { place, .. }
            | QueryError::Depth { place, .. }
            | QueryError::Syntax { place, .. }
            | QueryError::Plan { place, .. } => *place,
            _ => None,
        }
    }

    pub(crate) fn internal(text: &str) -> Self {
        QueryError::Internal { shown: Shown::new(text) }
    }

    /// Sorts DataFusion's error; `query` is the text asked, `memory_bytes` the limit to name.
    pub(crate) fn from_datafusion(
        error: DataFusionError,
        phase: Phase,
        query: &str,
        memory_bytes: usize,
    ) -> Self {
        let place = position::of_error(&error, query);
        let error = match unwrapped(error) {
            Ok(own) => return own,
            Err(error) => error,
        };
        let shown = Shown::new(error.strip_backtrace());
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => QueryError::Memory { bytes: memory_bytes },
            DataFusionError::SQL(..) => QueryError::Syntax { shown, place },
            DataFusionError::ParquetError(error) if is_foreign(error) => QueryError::ForeignFile,
            DataFusionError::ObjectStore(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::IoError(_) => QueryError::Store(None),
            // A pattern that is too large is the asker's, whatever DataFusion makes of it.
            DataFusionError::Internal(text) => match text.find(PATTERN_REFUSED).and_then(|at| text.get(at..))
            {
                Some(said) => QueryError::Execution { shown: Shown::new(said.to_owned()) },
                None => QueryError::Internal { shown },
            },
            DataFusionError::ExecutionJoin(_) => QueryError::Internal { shown },
            DataFusionError::ArrowError(error, _) => match error.as_ref() {
                ArrowError::ParquetError(_)
                | ArrowError::IoError(..)
                | ArrowError::IpcError(_)
                | ArrowError::ExternalError(_) => QueryError::Store(None),
                ArrowError::MemoryError(_) => QueryError::Memory { bytes: memory_bytes },
                _ => QueryError::Execution { shown },
            },
            DataFusionError::SchemaError(root, _)
                if matches!(root.as_ref(), SchemaError::FieldNotFound { .. }) || phase == Phase::Plan =>
            {
                QueryError::Plan { shown, place }
            }
            _ if phase == Phase::Plan => QueryError::Plan { shown, place },
            _ => QueryError::Execution { shown },
        }
    }
}

/// How Arrow says that a regular expression does not compile.
const PATTERN_REFUSED: &str = "Regular expression did not compile";

/// A time as people write it.
fn span(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{} ms", time.as_millis())
    }
}

fn is_foreign(error: &ParquetError) -> bool {
    match error {
        ParquetError::External(inner) => matches!(inner.downcast_ref(), Some(QueryError::ForeignFile)),
        _ => false,
    }
}

/// Our own error, if that is what DataFusion carried.
fn unwrapped(error: DataFusionError) -> Result<QueryError, DataFusionError> {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<QueryError>() {
            Ok(own) => Ok(*own),
            Err(inner) => match inner.downcast::<StoreError>() {
                Ok(store) => Ok(QueryError::Store(Some(*store))),
                Err(inner) => Err(DataFusionError::External(inner)),
            },
        },
        DataFusionError::Context(text, inner) => {
            unwrapped(*inner).map_err(|inner| DataFusionError::Context(text, Box::new(inner)))
        }
        other => Err(other),
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}
