//! The loop that makes alerts: it counts what flows by, asks the queries that are due, writes down what changed, and has it
//! delivered.
//!
//! A [`Runner`] owns the loop; a [`Handle`] is how others see it and speak to it. SQL is asked through [`AskSql`], the time
//! through [`Clock`]; lines come as [`Observed`], each with its place in the journal.
//!
//! What always holds:
//! - Counts, states, messages and the place in the journal are written in one transaction. After a kill, what was counted and
//!   not written is counted anew from the place that was, as of when it came, and comes to the same.
//! - A query that is slow, fails or panics delays its own group only; streams are looked at meanwhile.
//! - When the ledger takes nothing, nothing more is evaluated until it does: no change is made that nobody is told of.
//! - Nothing here holds those up who take lines in: what does not fit the queue stays in the journal.

mod core;
mod rule_set;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::core::{Core, GroupTurn, Query};
pub use self::rule_set::{RuleSet, RuleSetError};
pub use self::view::{AlertView, GroupView, RuleView};
use crate::deliver::retry::Retry;
use crate::deliver::send::Sender;
use crate::deliver::{Courier, Delivered};
use crate::labels::Labels;
use crate::ledger::{Ledger, LedgerError, OutboxCounts};
use crate::limits::{
    COMMANDS_WAITING_MAX, EVALUATION_RETRY_PAUSE, EVALUATION_TRIES, EVALUATIONS_AT_A_TIME, FORGET_EVERY,
    HISTORY_KEPT_FOR, OBSERVED_WAITING_MAX, SEND_TIME_MAX, STEP_AGE_MAX,
};
use crate::notify::config::Config;
use crate::notify::silence::Silence;
use crate::state::{Evaluation, Sample, Transition};
use crate::stream::StreamLine;

/// What a query gives, some time later.
pub type Answer = Pin<Box<dyn Future<Output = Result<Vec<Sample>, AskError>> + Send>>;

/// Asks SQL.
pub trait AskSql: Send + Sync + 'static {
    /// The rows of a query: its column `value` as number, all others as labels. More than `rows_max` rows are an error.
    fn ask(&self, sql: &str, rows_max: usize) -> Answer;
}

/// Why a query gave no rows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct AskError {
    /// What users see of it. It holds no text of a line.
    pub text: String,
    /// Whether the query never ran, because others do: it is tried again soon.
    pub is_busy: bool,
}

/// Whose turn it is to evaluate a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This server's, for the time that it asked for.
    Mine,
    /// Another server's.
    Anothers,
    /// Nobody can say: every server evaluates for itself. Its changes have the same event ids.
    Everyones,
}

/// A turn, some time later.
pub type Asked = Pin<Box<dyn Future<Output = Turn> + Send>>;

/// Shares the evaluation of groups among servers that have the same rules and the same data.
pub trait TakeTurns: Send + Sync + 'static {
    /// Asks for a turn at a group, which lasts for `span` and is prolonged by asking again. After the end of a server the next one has
    /// it when `span` is over.
    fn take(&self, group: &str, span: Duration) -> Asked;
}

/// Says what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Lines of one record of the journal.
pub trait Lines: Send {
    /// Shows them, once.
    fn visit(&self, see: &mut dyn FnMut(&[StreamLine<'_>]));
}

/// What comes from the journal.
pub enum Observed {
    /// A record with its lines.
    Lines {
        /// Its number in the journal.
        place: u64,
        /// When it came in.
        at: Timestamp,
        /// Its lines.
        lines: Box<dyn Lines>,
    },
    /// Records that hold nothing to count, up to this number, or that are lost.
    Passed {
        /// The last one's number.
        place: u64,
        /// How many are lost.
        lost_records: u64,
    },
    /// What comes next is behind this record, whatever was counted before: told first of all.
    From(u64),
    /// All that was in the journal at the start has been shown.
    Current,
}

/// The runner has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("alerts are not evaluated any more: the server is stopping")]
pub struct Stopped;

/// What a runner is made with.
pub struct RunnerOptions {
    /// The rules.
    pub rules: RuleSet,
    /// Receivers and routes.
    pub config: Config,
    /// Labels that templates see as those of this server.
    pub external_labels: Labels,
    /// Where this server can be found, as messages say it; without a slash at its end.
    pub external_url: String,
    /// How messages that were not taken are tried again.
    pub retry: Retry,
    /// How groups of rules over SQL are shared with other servers, if they are. Streaming rules count what comes to each server.
    pub turns: Option<Arc<dyn TakeTurns>>,
}

/// How alerting does, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunnerStatus {
    /// Rules in use.
    pub rules: usize,
    /// Of those, rules whose last evaluation failed.
    pub rules_failing: usize,
    /// Evaluations that were never made.
    pub evaluations_missed: u64,
    /// Alerts that fire.
    pub firing: usize,
    /// Alerts that wait for their `for`.
    pub pending: usize,
    /// The last record of the journal whose lines are counted.
    pub place: Option<u64>,
    /// Records of the journal that were lost before they were counted.
    pub lost_records: u64,
    /// Why the rule files were refused when they were read last. Those before them are in use.
    pub reload_fault: Option<String>,
    /// Why nothing can be written down now. Nothing is evaluated meanwhile.
    pub ledger_fault: Option<String>,
    /// Messages.
    #[serde(skip)]
    pub outbox: OutboxCounts,
}

enum Command {
    Silence(Box<Silence>, oneshot::Sender<bool>),
    Expire(String, oneshot::Sender<bool>),
    Rules(Box<(RuleSet, Config)>, oneshot::Sender<()>),
}

/// What others hold of a runner. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    core: Arc<Mutex<Core>>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    courier: Courier,
    observed: mpsc::Sender<Observed>,
    commands: mpsc::Sender<Command>,
    place: watch::Receiver<Option<u64>>,
    changes: broadcast::Sender<Transition>,
}

/// See the module.
pub struct Runner {
    core: Arc<Mutex<Core>>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    sql: Arc<dyn AskSql>,
    courier: Courier,
    observed: mpsc::Receiver<Observed>,
    commands: mpsc::Receiver<Command>,
    place: watch::Sender<Option<u64>>,
    changes: broadcast::Sender<Transition>,
    permits: Arc<Semaphore>,
    turns: Option<Arc<dyn TakeTurns>>,
}

/// How the queries of a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All were asked.
    Asked,
    /// Another server asks them.
    LeftToAnother,
}

/// What an evaluation gave.
struct Evaluated {
    rule: String,
    moment: Timestamp,
    evaluation: Evaluation,
    took: Duration,
}

impl Runner {
    /// A runner that goes on from what its ledger holds, and its handle. Nothing happens before [`Runner::run`].
    ///
    /// # Errors
    /// What the ledger reports.
    pub async fn new(
        options: RunnerOptions,
        ledger: Ledger,
        sender: Sender,
        sql: Arc<dyn AskSql>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Runner, Handle), LedgerError> {
        let loaded = ledger.load().await?;
        let ledger = Arc::new(ledger);
        let courier =
            Courier::new(ledger.clone(), Arc::new(options.config.clone()), Arc::new(sender), options.retry);
        let core = Core::new(
            &options.rules,
            options.config,
            options.external_labels,
            options.external_url,
            loaded,
            clock.now(),
        );
        let place = watch::Sender::new(core.place());
        let core = Arc::new(Mutex::new(core));
        let (observed_sender, observed) = mpsc::channel(OBSERVED_WAITING_MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let changes = broadcast::Sender::new(COMMANDS_WAITING_MAX);
        let handle = Handle {
            core: core.clone(),
            ledger: ledger.clone(),
            clock: clock.clone(),
            courier: courier.clone(),
            observed: observed_sender,
            commands: command_sender,
            place: place.subscribe(),
            changes: changes.clone(),
        };
        let permits = Arc::new(Semaphore::new(EVALUATIONS_AT_A_TIME));
        let turns = options.turns;
        Ok((
            Runner { core, ledger, clock, sql, courier, observed, commands, place, changes, permits, turns },
            handle,
        ))
    }

    /// Evaluates and delivers until told to stop. What changed is written before it returns.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (changed, watched) = watch::channel(0_u64);
        let (end, ended) = watch::channel(false);
        let delivering = tokio::spawn({
            let courier = self.courier.clone();
            async move { courier.run(watched, ended).await }
        });
        self.evaluate_until(&mut stop, &changed).await;
        end.send_replace(true);
        // A request that is under way ends within its own time.
        if tokio::time::timeout(SEND_TIME_MAX, delivering).await.is_err() {
            tracing::warn!("the delivery of messages did not end in time; what was under way is sent again");
        }
        self.ledger.close().await;
    }

    async fn evaluate_until(&mut self, stop: &mut watch::Receiver<bool>, changed: &watch::Sender<u64>) {
        let mut running: JoinSet<Ended> = JoinSet::new();
        let mut asked: HashMap<tokio::task::Id, (usize, Vec<Query>)> = HashMap::new();
        let (answer_sender, mut answers) = mpsc::channel::<Evaluated>(OBSERVED_WAITING_MAX);
        let (mut written_at, mut forgotten_at) = (Instant::now(), None::<Instant>);
        loop {
            let now = self.clock.now();
            let (started, wake, is_pressing, has_news) = {
                let mut core = self.core();
                core.look_at_streams(now);
                let started = core.start_due(now);
                core.tell(now);
                (started, core.next_wake(now), core.is_pressing(), core.has_news())
            };
            for (group, turn, queries) in started {
                let task = self.evaluate(turn, queries.clone(), answer_sender.clone());
                asked.insert(running.spawn(task).id(), (group, queries));
            }
            if is_pressing || (has_news && written_at.elapsed() >= STEP_AGE_MAX) {
                if !self.write(stop, changed).await {
                    return;
                }
                written_at = Instant::now();
            }
            if forgotten_at.is_none_or(|last| last.elapsed() >= FORGET_EVERY) {
                forgotten_at = Some(Instant::now());
                if let Err(error) = self.ledger.forget(now, HISTORY_KEPT_FOR).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old alerts are not dropped");
                }
            }
            let left = Duration::try_from(wake.duration_since(self.clock.now())).unwrap_or(Duration::ZERO);
            tokio::select! {
                () = told_to_stop(stop) => {
                    running.abort_all();
                    self.write(stop, changed).await;
                    return;
                }
                Some(command) = self.commands.recv() => {
                    if !self.obey(command, stop, changed).await {
                        return;
                    }
                }
                Some(observed) = self.observed.recv() => self.observe(observed),
                Some(answer) = answers.recv() => {
                    self.core().evaluated(&answer.rule, answer.moment, answer.evaluation, answer.took);
                }
                Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                    // Its answers were sent before it ended.
                    while let Ok(answer) = answers.try_recv() {
                        self.core().evaluated(&answer.rule, answer.moment, answer.evaluation, answer.took);
                    }
                    let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
                    let Some((group, queries)) = asked.remove(&id) else { continue };
                    let now = self.clock.now();
                    let mut core = self.core();
                    match ended {
                        Err(_) => {
                            tracing::error!("the evaluation of a group of rules broke off");
                            for query in queries {
                                let failed = Evaluation::Failed("the evaluation broke off".to_owned());
                                core.evaluated(&query.rule, query.moment, failed, Duration::ZERO);
                            }
                        }
                        Ok((_, Ended::LeftToAnother)) => core.left_to_another(group, now),
                        Ok((_, Ended::Asked)) => {}
                    }
                    core.ended(group);
                }
                () = tokio::time::sleep(left.min(STEP_AGE_MAX)) => {}
            }
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        locked(&self.core)
    }

    fn observe(&self, observed: Observed) {
        let mut core = self.core();
        match observed {
            Observed::Lines { place, .. } if !core.counts_lines() => core.pass(place, 0),
            Observed::Lines { place, at, lines } => {
                lines.visit(&mut |lines| core.observe(place, at, lines));
            }
            Observed::Passed { place, lost_records } => core.pass(place, lost_records),
            Observed::From(place) => core.start_from(place),
            Observed::Current => core.is_current(),
        }
    }

    /// Asks the queries of a group, one after the other, as long as it is this server's turn.
    fn evaluate(
        &self,
        turn: GroupTurn,
        queries: Vec<Query>,
        answers: mpsc::Sender<Evaluated>,
    ) -> impl Future<Output = Ended> + Send + 'static {
        let (sql, permits, turns) = (self.sql.clone(), self.permits.clone(), self.turns.clone());
        async move {
            let _permit = permits.acquire().await;
            for query in queries {
                let started = Instant::now();
                let whose = match &turns {
                    None => Turn::Everyones,
                    Some(turns) => turns.take(&turn.name, turn.span).await,
                };
                if whose == Turn::Anothers {
                    return Ended::LeftToAnother;
                }
                let evaluation = match ask(&*sql, &query).await {
                    Ok(rows) => Evaluation::Rows(rows),
                    Err(error) => {
                        tracing::warn!(rule = query.rule, %error, "a rule cannot be evaluated");
                        Evaluation::Failed(error.text)
                    }
                };
                let took = started.elapsed();
                if whose == Turn::Mine && took >= turn.span {
                    // The turn was over before the answer came: another server may have it, and what is said here is its matter.
                    tracing::warn!(rule = query.rule, "an evaluation took longer than this server's turn");
                    return Ended::LeftToAnother;
                }
                let evaluated = Evaluated { rule: query.rule, moment: query.moment, evaluation, took };
                if answers.send(evaluated).await.is_err() {
                    break;
                }
            }
            Ended::Asked
        }
    }

    /// Writes down what is new, as often as it needs; false when it was told to stop before it could.
    async fn write(&self, stop: &mut watch::Receiver<bool>, changed: &watch::Sender<u64>) -> bool {
        let step = self.core().take_step();
        loop {
            match self.ledger.commit(&step).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "alerts cannot be written down"
                    );
                    self.core().ledger_fault = Some(error.to_string());
                }
            }
            tokio::select! {
                () = told_to_stop(stop) => return false,
                () = tokio::time::sleep(EVALUATION_RETRY_PAUSE) => {}
            }
        }
        self.core().ledger_fault = None;
        if let Some(place) = step.place {
            self.place.send_replace(Some(place));
        }
        for (rule, transition) in step.changes {
            if transition.change.is_told() {
                tracing::info!(rule, change = ?transition.change, event_id = transition.event_id, "an alert changed");
            }
            // Nobody may listen.
            drop(self.changes.send(transition));
        }
        if !step.messages.is_empty() {
            changed.send_modify(|count| *count += 1);
        }
        true
    }

    async fn obey(
        &self,
        command: Command,
        stop: &mut watch::Receiver<bool>,
        changed: &watch::Sender<u64>,
    ) -> bool {
        let now = self.clock.now();
        // Whoever asked may be gone; what was asked is done all the same.
        match command {
            Command::Silence(silence, reply) => {
                let is_set = self.core().silence(*silence, now);
                let is_written = self.write(stop, changed).await;
                if is_written {
                    reply.send(is_set).ok();
                }
                is_written
            }
            Command::Expire(id, reply) => {
                let was_there = self.core().expire_silence(&id, now);
                let is_written = self.write(stop, changed).await;
                if is_written {
                    reply.send(was_there).ok();
                }
                is_written
            }
            Command::Rules(change, reply) => {
                let (rules, config) = *change;
                self.courier.use_config(Arc::new(config.clone()));
                {
                    let mut core = self.core();
                    core.use_config(config, now);
                    core.use_rules(&rules, now);
                }
                let is_written = self.write(stop, changed).await;
                if is_written {
                    reply.send(()).ok();
                }
                is_written
            }
        }
    }
}

/// Ends when the runner is to stop, or nobody is left who could say so.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Asks a query, again if it found no permit.
async fn ask(sql: &dyn AskSql, query: &Query) -> Result<Vec<Sample>, AskError> {
    let mut tries = 1;
    loop {
        match sql.ask(&query.sql, query.rows_max).await {
            Err(error) if error.is_busy && tries < EVALUATION_TRIES => {
                tries += 1;
                tokio::time::sleep(EVALUATION_RETRY_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn locked(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// Rules and alerts, as they are now.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupView> {
        locked(&self.core).view(self.clock.now())
    }

    /// How alerting does.
    ///
    /// # Errors
    /// What the ledger reports when it counts the messages.
    pub async fn status(&self) -> Result<RunnerStatus, LedgerError> {
        let outbox = self.ledger.counts().await?;
        Ok(RunnerStatus { outbox, ..self.status_now() })
    }

    /// The same without the messages, which stand in the ledger.
    #[must_use]
    pub fn status_now(&self) -> RunnerStatus {
        let core = locked(&self.core);
        let groups = core.view(self.clock.now());
        let rules = || groups.iter().flat_map(|group| &group.rules);
        let alerts =
            |state: &str| rules().flat_map(|rule| &rule.alerts).filter(|alert| alert.state == state).count();
        RunnerStatus {
            rules: rules().count(),
            rules_failing: rules().filter(|rule| rule.health == "err").count(),
            evaluations_missed: rules().map(|rule| rule.missed).sum(),
            firing: alerts("firing"),
            pending: alerts("pending"),
            place: core.place(),
            lost_records: core.lost_records,
            reload_fault: core.reload_fault.clone(),
            ledger_fault: core.ledger_fault.clone(),
            outbox: OutboxCounts::default(),
        }
    }

    /// What became of messages since the start.
    #[must_use]
    pub fn delivered(&self) -> Delivered {
        self.courier.delivered()
    }

    /// Where alerts, incidents and messages stand.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The time by the runner's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The place in the journal that is written down: what is before it is never asked for again.
    #[must_use]
    pub fn place(&self) -> watch::Receiver<Option<u64>> {
        self.place.clone()
    }

    /// Whether some rule counts lines. When none does, they need not be read.
    #[must_use]
    pub fn counts_lines(&self) -> bool {
        locked(&self.core).counts_lines()
    }

    /// Changes of alerts from now on, once they are written down.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Transition> {
        self.changes.subscribe()
    }

    /// Hands over what comes from the journal; waits while the runner is behind.
    ///
    /// # Errors
    /// When the runner has ended.
    pub async fn observe(&self, observed: Observed) -> Result<(), Stopped> {
        self.observed.send(observed).await.map_err(|_| Stopped)
    }

    /// The silences, ended ones too until they are forgotten.
    #[must_use]
    pub fn silences(&self) -> Vec<Silence> {
        locked(&self.core).silences()
    }

    /// Sets a silence, or changes the one of that id; false when there are too many. It is on disk when this returns.
    ///
    /// # Errors
    /// When the runner has ended.
    pub async fn silence(&self, silence: Silence) -> Result<bool, Stopped> {
        self.command(|reply| Command::Silence(Box::new(silence), reply)).await
    }

    /// Ends a silence; false when there is none of this id.
    ///
    /// # Errors
    /// When the runner has ended.
    pub async fn expire_silence(&self, id: &str) -> Result<bool, Stopped> {
        self.command(|reply| Command::Expire(id.to_owned(), reply)).await
    }

    /// Other rules, receivers and routes from now on.
    ///
    /// # Errors
    /// When the runner has ended.
    pub async fn use_rules(&self, rules: RuleSet, config: Config) -> Result<(), Stopped> {
        self.command(|reply| Command::Rules(Box::new((rules, config)), reply)).await
    }

    /// The files could not be used: what was in use stays, and this is shown.
    pub fn note_reload_fault(&self, fault: String) {
        locked(&self.core).reload_fault = Some(fault);
    }

    async fn command<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
