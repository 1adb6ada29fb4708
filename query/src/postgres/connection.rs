//! One client, from its first byte to its last.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use datafusion::arrow::datatypes::SchemaRef;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::local::{self, Local};
use super::message::{self, Answer, Bind, Field, Formats, Malformed, Message, Opening, Standing, Target};
use super::rows::{self, Encoded, RowWriter};
use super::scram::{MECHANISM, Refused};
use super::settings::{REPORTED, Settings};
use super::sqlstate::SqlError;
use super::{Door, PostgresKey, PostgresVisit, Registered, parameters, random, until_stopped};
use crate::engine::{Ask, Pieces};
use crate::limits::{
    POSTGRES_LOGIN_TIME, POSTGRES_MESSAGE_BYTES_MAX, POSTGRES_PORTALS_MAX, POSTGRES_STATEMENTS_MAX,
    POSTGRES_WRITE_BYTES, POSTGRES_WRITE_TIME,
};
use crate::sql_type;

/// Why a connection ends.
enum End {
    /// The client has left, or cannot be reached.
    Left,
    /// There is an error to be told first.
    Told(SqlError),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Left
    }
}

impl From<Malformed> for End {
    fn from(error: Malformed) -> Self {
        End::Told(error.into())
    }
}

/// Why a statement has no full answer.
enum Fault {
    /// The session goes on.
    Statement(SqlError),
    Connection(End),
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Fault::Statement(error)
    }
}

impl From<End> for Fault {
    fn from(end: End) -> Self {
        Fault::Connection(end)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Connection(error.into())
    }
}

/// Serves a client. One too many is told so.
pub(super) async fn serve(
    door: &Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    has_place: bool,
    stop: watch::Receiver<bool>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let opened = timeout(POSTGRES_LOGIN_TIME, open(door, stream, peer, has_place)).await;
    match opened {
        Ok(Ok(Some(Opened::Plain(wire, parameters)))) => {
            session(door, wire, parameters, false, peer, stop).await
        }
        Ok(Ok(Some(Opened::Tls(wire, parameters)))) => {
            session(door, wire, parameters, true, peer, stop).await
        }
        Ok(Ok(None)) => {}
        Ok(Err(_)) | Err(_) => tracing::debug!(%peer, "a PostgreSQL connection was not opened"),
    }
}

/// A connection whose client has said who it is.
enum Opened {
    Plain(Wire<TcpStream>, Vec<(String, String)>),
    Tls(Wire<Box<tokio_rustls::server::TlsStream<TcpStream>>>, Vec<(String, String)>),
}

/// Everything before the login: TLS, or a request to cancel, or the client's own parameters.
async fn open(
    door: &Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    has_place: bool,
) -> Result<Option<Opened>, End> {
    let mut wire = Wire::new(stream);
    loop {
        match wire.opening().await {
            Ok(Opening::Gss) => wire.stream.write_all(b"N").await?,
            Ok(Opening::Tls) => match &door.tls {
                None => wire.stream.write_all(b"N").await?,
                Some(tls) => {
                    // What came along with the request was not sent within TLS, whoever sent it.
                    if !wire.input.is_empty() {
                        return Err(End::Left);
                    }
                    wire.stream.write_all(b"S").await?;
                    let mut wire = Wire::new(Box::new(tls.accept(wire.stream).await?));
                    return match wire.opening().await {
                        Ok(Opening::Startup { minor, parameters }) => {
                            wire.greet(minor, &parameters, has_place, None).await?;
                            Ok(Some(Opened::Tls(wire, parameters)))
                        }
                        Ok(Opening::Cancel { process, secret }) => {
                            door.cancel(process, secret);
                            Ok(None)
                        }
                        Ok(_) => Err(End::Left),
                        Err(end) => Err(wire.tell(end).await),
                    };
                }
            },
            Ok(Opening::Cancel { process, secret }) => {
                door.cancel(process, secret);
                return Ok(None);
            }
            Ok(Opening::Startup { minor, parameters }) => {
                let is_local = peer.ip().to_canonical().is_loopback();
                let refused = (!is_local).then_some("connections from other hosts need TLS here");
                wire.greet(minor, &parameters, has_place, refused).await?;
                return Ok(Some(Opened::Plain(wire, parameters)));
            }
            Err(end) => return Err(wire.tell(end).await),
        }
    }
}

/// The login and everything after it.
async fn session<S>(
    door: &Arc<Door>,
    mut wire: Wire<S>,
    parameters: Vec<(String, String)>,
    is_tls: bool,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let logged_in = timeout(POSTGRES_LOGIN_TIME, login(door, &mut wire, &parameters, is_tls)).await;
    let (settings, registered) = match logged_in {
        Ok(Ok(logged_in)) => logged_in,
        Ok(Err(end)) => {
            tracing::info!(%peer, "a PostgreSQL login was refused");
            wire.tell(end).await;
            return;
        }
        Err(_) => return,
    };
    let mut session = Session {
        door: door.clone(),
        wire,
        settings,
        standing: Standing::Idle,
        statements: HashMap::new(),
        portals: HashMap::new(),
        cancelled: registered.cancelled.clone(),
        ends: registered.ends.clone(),
        stop,
        registered,
    };
    let end = session.run().await;
    session.wire.tell(end).await;
}

async fn login<S>(
    door: &Arc<Door>,
    wire: &mut Wire<S>,
    parameters: &[(String, String)],
    is_tls: bool,
) -> Result<(Settings, Registered), End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let given =
        |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let user = given("user").filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| End::Told(SqlError::fatal("28000", "a user name is needed")))?;
    let opens = door.opens();
    let login = opens.logins.get(user);
    let key = match (login, &opens.verifier) {
        (Some(_), _) => PostgresKey::Login(user.to_owned()),
        (None, Some(_)) => PostgresKey::Token,
        (None, None) => PostgresKey::Nothing,
    };
    if let Some(verifier) = login.or(opens.verifier.as_ref()) {
        let refuse = |refused| {
            End::Told(match refused {
                Refused::Malformed => SqlError::fatal("08P01", "malformed SCRAM message"),
                Refused::Wrong => {
                    SqlError::fatal("28P01", "password authentication failed; the password is the token")
                }
            })
        };
        wire.answer.sasl(MECHANISM);
        wire.flush().await?;
        let first = wire.password().await?;
        let first = first
            .strip_prefix(MECHANISM.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"\0"))
            .and_then(|rest| rest.get(4..))
            .and_then(|data| std::str::from_utf8(data).ok())
            .ok_or_else(|| refuse(Refused::Malformed))?;
        let (answer, exchange) = verifier.begin(first, random()?).map_err(refuse)?;
        wire.answer.sasl_continue(&answer);
        wire.flush().await?;
        let last = wire.password().await?;
        let last = std::str::from_utf8(&last).map_err(|_| refuse(Refused::Malformed))?;
        let proof = verifier.finish(&exchange, last).map_err(refuse)?;
        wire.answer.sasl_final(&proof);
    }
    let user = user.chars().filter(|c| !c.is_control()).take(63).collect();
    let mut settings = Settings { user, is_tls, ..Settings::default() };
    let startup = parameters
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "user" | "database" | "options" | "replication"));
    for (name, value) in startup {
        // Zones of the client's own are common here; times have their zone with them, so it is told ours instead of being refused.
        if name.eq_ignore_ascii_case("timezone") || name.starts_with("_pq_.") {
            continue;
        }
        settings
            .set(name, Some(value))
            .map_err(|error| End::Told(SqlError { is_fatal: true, ..error.into() }))?;
    }
    if given("replication").is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0")) {
        return Err(End::Told(SqlError::fatal("0A000", "there is no replication here")));
    }
    for (name, value) in given("options").map(option_settings).unwrap_or_default() {
        settings
            .set(&name, Some(&value))
            .map_err(|error| End::Told(SqlError { is_fatal: true, ..error.into() }))?;
    }
    let registered = door.register(key, &opens)?;
    let changed = || End::Told(SqlError::fatal("57P01", "the passwords have changed; log in again"));
    let registered = registered.ok_or_else(changed)?;
    if let Some(on_login) = &door.on_login {
        let application_name = settings.application_name.clone();
        on_login(PostgresVisit { user: settings.user.clone(), application_name });
    }
    wire.answer.authenticated();
    for name in REPORTED {
        wire.answer.parameter(name, &settings.get(name).unwrap_or_default());
    }
    wire.answer.key(registered.process, registered.secret);
    wire.answer.ready(Standing::Idle);
    wire.flush().await?;
    Ok((settings, registered))
}

/// Settings in the `options` of a startup: `-c name=value`, `-cname=value` or `--name=value`.
fn option_settings(options: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("-c") {
            Some("") => words.next().unwrap_or_default(),
            Some(joined) => joined,
            None => word.strip_prefix("--").unwrap_or_default(),
        };
        if let Some((name, value)) = assignment.split_once('=') {
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

/// The socket with what was read ahead and what is still to be written.
struct Wire<S> {
    stream: S,
    input: BytesMut,
    answer: Answer,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    fn new(stream: S) -> Self {
        Wire { stream, input: BytesMut::new(), answer: Answer::default() }
    }

    async fn opening(&mut self) -> Result<Opening, End> {
        loop {
            if let Some(opening) = message::opening(&mut self.input)? {
                return Ok(opening);
            }
            self.read().await?;
        }
    }

    async fn message(&mut self) -> Result<Message, End> {
        loop {
            if let Some(message) = message::message(&mut self.input)? {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    async fn password(&mut self) -> Result<bytes::Bytes, End> {
        match self.message().await? {
            Message::Password(data) => Ok(data),
            Message::Terminate => Err(End::Left),
            _ => Err(End::Told(SqlError::fatal("08P01", "the login is not done yet"))),
        }
    }

    /// Reads what there is. An end is an error. Nothing is lost when it is given up while waiting.
    async fn read(&mut self) -> Result<(), End> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(End::Left),
            _ => Ok(()),
        }
    }

    /// Waits while a statement runs: for the end of the client, or for ever once it has sent as much ahead as may wait.
    async fn watch(&mut self) -> End {
        loop {
            if self.input.len() > POSTGRES_MESSAGE_BYTES_MAX {
                return std::future::pending().await;
            }
            if let Err(end) = self.read().await {
                return end;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let out = std::mem::take(&mut self.answer.0);
        self.write(&out).await
    }

    async fn write(&mut self, out: &[u8]) -> Result<(), End> {
        let written = timeout(POSTGRES_WRITE_TIME, async {
            self.stream.write_all(out).await?;
            self.stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Left),
        }
    }

    /// Answers a startup as far as it can be before the login.
    async fn greet(
        &mut self,
        minor: u16,
        parameters: &[(String, String)],
        has_place: bool,
        refused: Option<&str>,
    ) -> Result<(), End> {
        if !has_place {
            return Err(self.tell(End::Told(SqlError::fatal("53300", "too many connections"))).await);
        }
        if let Some(refused) = refused {
            return Err(self.tell(End::Told(SqlError::fatal("28000", refused))).await);
        }
        let unknown: Vec<&str> = parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with("_pq_."))
            .collect();
        if minor > 0 || !unknown.is_empty() {
            self.answer.negotiate(&unknown);
        }
        Ok(())
    }

    /// Tells why the connection ends, if there is somebody to tell.
    async fn tell(&mut self, end: End) -> End {
        if let End::Told(error) = &end {
            error.write(&mut self.answer);
            // Nobody may be there any more; then nothing is lost.
            if self.flush().await.is_ok() {
                drop(timeout(POSTGRES_WRITE_TIME, self.stream.shutdown()).await);
            }
        }
        end
    }
}

/// A parsed statement.
#[derive(Clone)]
struct Prepared {
    text: Arc<str>,
    kind: Kind,
    types: Arc<[u32]>,
}

#[derive(Clone)]
enum Kind {
    Empty,
    Local(Local),
    Query { schema: SchemaRef, names: Option<Arc<[String]>> },
}

impl Prepared {
    /// The fields of its rows; none where it gives no rows.
    fn fields(&self, formats: &Formats) -> Vec<Field> {
        match &self.kind {
            Kind::Empty => Vec::new(),
            Kind::Local(local) => local_fields(local),
            Kind::Query { schema, names } => rows::fields(schema, names.as_deref(), formats),
        }
    }
}

fn local_fields(local: &Local) -> Vec<Field> {
    let field = |name| Field { name, oid: sql_type::TEXT.oid, bytes: -1, is_binary: false };
    local.columns().into_iter().map(field).collect()
}

/// A statement with its values, and how far its rows were taken.
struct Portal {
    prepared: Prepared,
    formats: Formats,
    values: Vec<datafusion::scalar::ScalarValue>,
    running: Option<Running>,
    is_done: bool,
}

/// Rows on their way.
struct Running {
    pieces: Pieces<Encoded>,
    /// What was not taken yet of the last piece, and the first row of it that was not.
    left: Option<(Encoded, usize)>,
    rows: u64,
}

struct Session<S> {
    door: Arc<Door>,
    wire: Wire<S>,
    settings: Settings,
    standing: Standing,
    statements: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
    cancelled: watch::Receiver<u64>,
    ends: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
    registered: Registered,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Answers messages until the connection ends.
    async fn run(&mut self) -> End {
        // After an error in a sequence of messages the rest of it is skipped, up to its end.
        let mut is_skipping = false;
        loop {
            let message = tokio::select! {
                message = self.wire.message() => message,
                () = until_stopped(&mut self.stop) => {
                    return End::Told(SqlError::fatal("57P01", "the server is shutting down"));
                }
                () = until_stopped(&mut self.ends) => {
                    return End::Told(SqlError::fatal("57P01", "the password of this session opens nothing any more"));
                }
            };
            let message = match message {
                Ok(Message::Terminate) => return End::Left,
                Ok(message) => message,
                Err(end) => return end,
            };
            if is_skipping && !matches!(message, Message::Sync) {
                continue;
            }
            let answered = match message {
                Message::Query(text) => self.simple(&text).await,
                Message::Sync => {
                    is_skipping = false;
                    self.sync().await
                }
                other => match self.extended(other).await {
                    Err(Fault::Statement(error)) => {
                        is_skipping = true;
                        self.failed(&error);
                        Ok(())
                    }
                    answered => answered,
                },
            };
            if let Err(Fault::Connection(end)) = answered {
                return end;
            }
        }
    }

    fn failed(&mut self, error: &SqlError) {
        error.write(&mut self.wire.answer);
        if self.standing == Standing::InTransaction {
            self.standing = Standing::Failed;
        }
    }

    async fn sync(&mut self) -> Result<(), Fault> {
        if self.standing == Standing::Idle {
            self.portals.clear();
        }
        self.wire.answer.ready(self.standing);
        Ok(self.wire.flush().await?)
    }

    /// A text with any number of statements, answered one after the other up to the first error.
    async fn simple(&mut self, text: &str) -> Result<(), Fault> {
        self.portals.remove("");
        self.statements.remove("");
        let statements = local::statements(text);
        if statements.is_empty() {
            self.wire.answer.empty_query();
        }
        for statement in &statements {
            match self.simple_statement(&statement.text).await {
                Ok(()) => {}
                Err(Fault::Statement(mut error)) => {
                    error.position = error.position.map(|position| position + statement.before);
                    self.failed(&error);
                    break;
                }
                Err(end) => return Err(end),
            }
        }
        self.wire.answer.ready(self.standing);
        Ok(self.wire.flush().await?)
    }

    async fn simple_statement(&mut self, text: &str) -> Result<(), Fault> {
        if let Some(local) = local::read(text) {
            let local = local?;
            self.allowed(Some(&local))?;
            let fields = local_fields(&local);
            if !fields.is_empty() {
                self.wire.answer.fields(&fields);
            }
            return Ok(self.local(&local)?);
        }
        self.allowed(None)?;
        let mut running = self.start(text, Formats::default(), Vec::new()).await?;
        let fields = rows::fields(running.pieces.schema(), running.pieces.names(), &Formats::default());
        self.wire.answer.fields(&fields);
        self.take(&mut running, text, None).await?;
        Ok(())
    }

    /// In a failed transaction only its end is answered.
    fn allowed(&self, local: Option<&Local>) -> Result<(), SqlError> {
        let ends = matches!(local, Some(Local::Commit | Local::Rollback));
        if self.standing == Standing::Failed && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(SqlError::new("25P02", message));
        }
        Ok(())
    }

    /// Does what a statement of the session says, and answers it.
    fn local(&mut self, local: &Local) -> Result<(), SqlError> {
        let mut tag = local.tag().to_owned();
        match local {
            Local::Begin => self.standing = Standing::InTransaction,
            Local::Commit | Local::Rollback => {
                if self.standing == Standing::Failed {
                    "ROLLBACK".clone_into(&mut tag);
                }
                self.standing = Standing::Idle;
                self.portals.clear();
            }
            Local::Set { name, value } => {
                self.settings.set(name, value.as_deref())?;
                self.report(name);
            }
            Local::Reset(Some(name)) => {
                self.settings.set(name, None)?;
                self.report(name);
            }
            Local::Reset(None) => self.reset(),
            Local::Deallocate(Some(name)) => {
                if self.statements.remove(name).is_none() {
                    return Err(SqlError::new("26000", "there is no such prepared statement"));
                }
            }
            Local::Deallocate(None) => self.statements.clear(),
            Local::DiscardAll => {
                self.statements.clear();
                self.portals.clear();
                self.reset();
            }
            Local::Show(_) => {
                let rows = local.rows(&self.settings)?;
                for row in &rows {
                    self.wire.answer.row(&row.iter().map(String::as_str).collect::<Vec<_>>());
                }
            }
            Local::SetNothing | Local::Nothing(_) => {}
        }
        self.wire.answer.complete(&tag);
        Ok(())
    }

    fn reset(&mut self) {
        let (user, is_tls) = (self.settings.user.clone(), self.settings.is_tls);
        self.settings = Settings { user, is_tls, ..Settings::default() };
    }

    /// Tells the new value of a setting of which clients keep a copy.
    fn report(&mut self, name: &str) {
        if let Some(name) = REPORTED.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            let value = self.settings.get(name).unwrap_or_default();
            self.wire.answer.parameter(name, &value);
        }
    }

    async fn extended(&mut self, message: Message) -> Result<(), Fault> {
        match message {
            Message::Parse { statement, text, types } => {
                let prepared = self.prepare(&text, &types).await?;
                if !self.statements.contains_key(&statement)
                    && self.statements.len() >= POSTGRES_STATEMENTS_MAX
                {
                    let message =
                        format!("a session has {POSTGRES_STATEMENTS_MAX} prepared statements at most");
                    return Err(SqlError::new("54000", message).into());
                }
                if !statement.is_empty() && self.statements.contains_key(&statement) {
                    return Err(SqlError::new("42P05", "a prepared statement of this name exists").into());
                }
                self.statements.insert(statement, prepared);
                self.wire.answer.parsed();
            }
            Message::Bind(bind) => self.bind(&bind)?,
            Message::Describe(Target::Statement(name)) => {
                let prepared = self.statement(&name)?;
                let fields = prepared.fields(&Formats::default());
                self.wire.answer.parameters(&prepared.types);
                self.describe(&fields);
            }
            Message::Describe(Target::Portal(name)) => {
                let portal = self.portals.get(&name).ok_or_else(no_portal)?;
                let fields = portal.prepared.fields(&portal.formats);
                self.describe(&fields);
            }
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await?,
            Message::Close(Target::Statement(name)) => {
                self.statements.remove(&name);
                self.wire.answer.closed();
            }
            Message::Close(Target::Portal(name)) => {
                self.portals.remove(&name);
                self.wire.answer.closed();
            }
            Message::Flush => self.wire.flush().await?,
            Message::Unsupported => {
                return Err(SqlError::new("0A000", "COPY and function calls are not spoken here").into());
            }
            Message::Password(_) => {
                return Err(SqlError::new("08P01", "nobody asked for a password").into());
            }
            Message::Query(_) | Message::Sync | Message::Terminate => {}
        }
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Prepared, SqlError> {
        self.statements
            .get(name)
            .cloned()
            .ok_or_else(|| SqlError::new("26000", "there is no such prepared statement"))
    }

    fn describe(&mut self, fields: &[Field]) {
        if fields.is_empty() {
            self.wire.answer.no_data();
        } else {
            self.wire.answer.fields(fields);
        }
    }

    async fn prepare(&mut self, text: &str, given: &[u32]) -> Result<Prepared, Fault> {
        let mut statements = local::statements(text);
        let (kind, types) = match (statements.pop(), statements.len()) {
            (None, _) => (Kind::Empty, given.to_vec()),
            (Some(_), 1..) => {
                return Err(SqlError::new(
                    "42601",
                    "cannot insert multiple commands into a prepared statement",
                )
                .into());
            }
            (Some(local::Part { text: statement, .. }), 0) => match local::read(&statement) {
                Some(local) => (Kind::Local(local?), given.to_vec()),
                None => {
                    self.allowed(None)?;
                    let ask = self.ask(&statement, Vec::new());
                    let query = self.door.query.clone();
                    let described = self.attended(query.describe(ask), text).await?;
                    let types = described.parameters.iter().enumerate().map(|(index, inferred)| {
                        let inferred = inferred.as_ref().map_or(sql_type::TEXT.oid, |arrow| {
                            let (sql, is_array) = sql_type::of_arrow(arrow);
                            if is_array { sql.array_oid } else { sql.oid }
                        });
                        given
                            .get(index)
                            .copied()
                            .filter(|oid| *oid > 0 && *oid != sql_type::UNKNOWN.oid)
                            .unwrap_or(inferred)
                    });
                    let types = types.collect();
                    let names = described.names.map(Into::into);
                    (Kind::Query { schema: described.schema, names }, types)
                }
            },
        };
        let text = text.trim_end().trim_end_matches(';');
        Ok(Prepared { text: text.into(), kind, types: types.into() })
    }

    fn bind(&mut self, bind: &Bind) -> Result<(), SqlError> {
        let prepared = self.statement(&bind.statement)?;
        if let Kind::Local(local) = &prepared.kind {
            self.allowed(Some(local))?;
        }
        if bind.parameters.len() != prepared.types.len() {
            let message = format!(
                "bind message supplies {} parameters, but the prepared statement requires {}",
                bind.parameters.len(),
                prepared.types.len()
            );
            return Err(SqlError::new("08P01", message));
        }
        let columns = prepared.fields(&Formats::default()).len();
        if !bind.parameter_formats.fits(prepared.types.len()) || !bind.result_formats.fits(columns) {
            return Err(SqlError::new("08P01", "bind message has formats for another number of values"));
        }
        if !self.portals.contains_key(&bind.portal) && self.portals.len() >= POSTGRES_PORTALS_MAX {
            return Err(SqlError::new(
                "54000",
                format!("a session has {POSTGRES_PORTALS_MAX} portals at most"),
            ));
        }
        let values = parameters::values(bind, &prepared.types)?;
        let formats = bind.result_formats.clone();
        let portal = Portal { prepared, formats, values, running: None, is_done: false };
        self.portals.insert(bind.portal.clone(), portal);
        self.wire.answer.bound();
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: u32) -> Result<(), Fault> {
        let mut portal = self.portals.remove(name).ok_or_else(no_portal)?;
        let rows_max = (rows_max > 0).then_some(u64::from(rows_max));
        match portal.prepared.kind.clone() {
            Kind::Empty => self.wire.answer.empty_query(),
            Kind::Local(local) => {
                self.allowed(Some(&local))?;
                self.local(&local)?;
            }
            Kind::Query { .. } => {
                self.allowed(None)?;
                if portal.is_done {
                    self.wire.answer.complete("SELECT 0");
                } else {
                    let text = portal.prepared.text.clone();
                    let mut running = match portal.running.take() {
                        Some(running) => running,
                        None => self.start(&text, portal.formats.clone(), portal.values.clone()).await?,
                    };
                    portal.is_done = self.take(&mut running, &text, rows_max).await?;
                    portal.running = (!portal.is_done).then_some(running);
                }
            }
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    fn ask(&self, text: &str, values: Vec<datafusion::scalar::ScalarValue>) -> Ask {
        let mut ask = Ask::new(&self.door.tenant, text);
        ask.settings = self.settings.clone();
        ask.time_max = self.settings.statement_timeout;
        ask.parameters = (!values.is_empty()).then(|| values.into());
        ask
    }

    async fn start(
        &mut self,
        text: &str,
        formats: Formats,
        values: Vec<datafusion::scalar::ScalarValue>,
    ) -> Result<Running, Fault> {
        let ask = self.ask(text, values);
        let query = self.door.query.clone();
        let bytes_max = query.options().answer_bytes_max;
        let pieces =
            self.attended(query.start(ask, move |_| Ok(RowWriter::new(formats, bytes_max))), text).await?;
        Ok(Running { pieces, left: None, rows: 0 })
    }

    /// Waits for the room, unless the client leaves or cancels.
    async fn attended<T>(
        &mut self,
        work: impl Future<Output = Result<T, crate::error::QueryError>>,
        text: &str,
    ) -> Result<T, Fault> {
        self.cancelled.mark_unchanged();
        tokio::select! {
            done = work => done.map_err(|error| SqlError::of_query(&error, text).into()),
            end = self.wire.watch() => Err(end.into()),
            Ok(()) = self.cancelled.changed() => Err(SqlError::cancelled().into()),
        }
    }

    /// Sends rows, all or so many, and says whether those were all.
    async fn take(
        &mut self,
        running: &mut Running,
        text: &str,
        rows_max: Option<u64>,
    ) -> Result<bool, Fault> {
        let mut taken = 0_u64;
        loop {
            let (piece, from) = match running.left.take() {
                Some(left) => left,
                None => match self.next(running, text).await? {
                    Some(piece) => (piece, 0),
                    None => {
                        self.wire.answer.complete(&format!("SELECT {}", running.rows));
                        return Ok(true);
                    }
                },
            };
            let count = piece.ends.len();
            let room = rows_max.map_or(u64::MAX, |max| max.saturating_sub(taken));
            let to = count.min(from.saturating_add(usize::try_from(room).unwrap_or(usize::MAX)));
            let byte =
                |row: usize| row.checked_sub(1).and_then(|last| piece.ends.get(last)).copied().unwrap_or(0);
            let bytes = piece.bytes.slice(byte(from)..byte(to));
            self.wire.answer.0.extend_from_slice(&bytes);
            let sent = u64::try_from(to - from).unwrap_or(0);
            taken += sent;
            running.rows += sent;
            if self.wire.answer.0.len() >= POSTGRES_WRITE_BYTES {
                self.wire.flush().await?;
            }
            if to < count {
                running.left = Some((piece, to));
            }
            if rows_max.is_some_and(|max| taken >= max) {
                self.wire.answer.suspended();
                return Ok(false);
            }
        }
    }

    async fn next(&mut self, running: &mut Running, text: &str) -> Result<Option<Encoded>, Fault> {
        // What is ready goes on as it is; while there is nothing, what was written so far is sent.
        if let Some(ready) = futures_util::FutureExt::now_or_never(running.pieces.next()) {
            let is_cancelled = self.cancelled.has_changed().unwrap_or(false);
            if is_cancelled {
                return Err(SqlError::cancelled().into());
            }
            return ready.transpose().map_err(|error| SqlError::of_query(&error, text).into());
        }
        self.wire.flush().await?;
        tokio::select! {
            piece = running.pieces.next() => {
                piece.transpose().map_err(|error| SqlError::of_query(&error, text).into())
            }
            end = self.wire.watch() => Err(end.into()),
            Ok(()) = self.cancelled.changed() => Err(SqlError::cancelled().into()),
        }
    }
}

impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        tracing::debug!(process = self.registered.process, "a PostgreSQL session ended");
    }
}

fn no_portal() -> SqlError {
    SqlError::new("34000", "there is no such portal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_startup_are_settings() {
        let settings =
            option_settings("-c statement_timeout=5s --search-path=public -csearch_path=x junk -c");
        let expected = [("statement_timeout", "5s"), ("search_path", "public"), ("search_path", "x")];
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(settings, expected);
    }
}
