//! `beeacon sql` with a query: one to a running Beeacon, its rows to standard output as they come.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use beeacon_query::display;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::client::{Client, ClientError};
use crate::command_line::{Format, SqlArguments};
use crate::exit::Exit;
use crate::shell;

/// The most bytes of rows that are held for a table, whose columns cannot be laid out before all rows are known. JSON and CSV
/// are printed as they come.
const TABLE_BYTES_MAX: usize = 256 << 20;

pub(crate) async fn run(mut arguments: SqlArguments) -> anyhow::Result<Exit> {
    let Some(query) = arguments.query.take() else {
        if arguments.format == Format::Parquet {
            anyhow::bail!(
                "Parquet is for one query: beeacon sql --format parquet \"select …\" > rows.parquet"
            );
        }
        return shell::run(arguments).await;
    };
    let token = token(arguments.server.token_file.as_deref())?;
    let client = Client::new(&arguments.server.url, token, arguments.server.ca.as_deref())?;
    if arguments.format == Format::Parquet && io::stdout().is_terminal() {
        anyhow::bail!("a terminal cannot show Parquet: write it into a file with > rows.parquet");
    }
    let body = body(&query, &arguments.parameters);
    let answer = client.post(beeacon_query::SQL_PATH, media_type(arguments.format), body).await?;
    let printed = match arguments.format {
        Format::Table => table(answer).await,
        Format::Parquet => pass_on(answer, End::AsItIs, print).await,
        Format::Json | Format::Jsonl | Format::Csv => pass_on(answer, End::OfLine, print).await,
    };
    match printed {
        // Somebody like `head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(Exit::Done),
        Err(error) => Err(error),
        Ok(()) => Ok(Exit::Done),
    }
}

/// The body of a question.
pub(crate) fn body(query: &str, parameters: &[String]) -> Vec<u8> {
    let parameters = (!parameters.is_empty()).then_some(parameters);
    serde_json::json!({ "query": query, "parameters": parameters }).to_string().into_bytes()
}

/// The form in which the server sends what is printed in this format.
pub(crate) fn media_type(format: Format) -> &'static str {
    match format {
        Format::Table => "application/vnd.apache.arrow.stream",
        Format::Json => "application/json",
        Format::Jsonl => "application/x-ndjson",
        Format::Csv => "text/csv",
        Format::Parquet => "application/vnd.apache.parquet",
    }
}

async fn table(answer: Incoming) -> anyhow::Result<()> {
    let batches = rows(answer, |_| ()).await?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", display::table(&batches)?)?;
    Ok(())
}

/// All rows of an answer in Arrow's stream; `came` is told the bytes as they come.
pub(crate) async fn rows(answer: Incoming, came: impl Fn(usize)) -> anyhow::Result<Vec<RecordBatch>> {
    if answer.size_hint().lower() > TABLE_BYTES_MAX as u64 {
        anyhow::bail!(
            "the answer is too large for a table, more than {TABLE_BYTES_MAX} bytes: use --format csv"
        );
    }
    let body = http_body_util::Limited::new(answer, TABLE_BYTES_MAX).map_frame(|frame| {
        came(frame.data_ref().map_or(0, |data| data.len()));
        frame
    });
    let body = body.collect().await.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => anyhow::Error::new(ClientError::BrokeOff(*error)),
        Err(_) => anyhow::anyhow!(
            "the answer is too large for a table, more than {TABLE_BYTES_MAX} bytes: use --format csv"
        ),
    })?;
    let reader = StreamReader::try_new(io::Cursor::new(body.to_bytes()), None).context("read the answer")?;
    reader.collect::<Result<Vec<_>, _>>().context("read the answer's rows")
}

/// The token in a file, if there is one.
pub(crate) fn token(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = file else { return Ok(None) };
    let text = std::fs::read_to_string(path);
    Ok(Some(text.with_context(|| format!("read the token from {}", path.display()))?.trim().to_owned()))
}

/// What stands after the last byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing of ours.
    AsItIs,
    /// The end of a line, where the answer has none.
    OfLine,
}

/// Writes to standard output, at once.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Passes bytes on as they come.
pub(crate) async fn pass_on(
    mut answer: Incoming,
    end: End,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut ends_line = true;
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(ClientError::BrokeOff)?;
        if let Some(data) = frame.data_ref() {
            write(data)?;
            ends_line = data.last().map_or(ends_line, |byte| *byte == b'\n');
        }
    }
    if !ends_line && end == End::OfLine {
        write(b"\n")?;
    }
    Ok(())
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
