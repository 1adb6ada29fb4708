//! `beeacon alerts`: files of alerts checked with every fault at once, and receivers tried.

use std::io::{self, Write};

use anyhow::Context;
use beeacon_alerts::Labels;
use beeacon_alerts::deliver::send::{Outcome, Sender};
use beeacon_alerts::notify::config::{Config, Receiver, ReceiverKind};
use beeacon_alerts::notify::{ActiveAlert, Notification, Reason};
use beeacon_alerts::rules::{RuleFile, RuleFileError};
use beeacon_alerts::unit_test::TestFile;
use beeacon_settings::Process;
use jiff::Timestamp;

use crate::alert_files::Faults;
use crate::command_line::{AlertsAction, AlertsArguments, ListenArguments, TestReceiverArguments};
use crate::config;
use crate::exit::Exit;
use crate::rule_tests::Planner;

pub(crate) async fn run(arguments: AlertsArguments) -> anyhow::Result<Exit> {
    match arguments.action {
        AlertsAction::Check { files } => check(&files).await,
        AlertsAction::Test(arguments) => test(arguments).await,
    }
}

/// What a file of alerts is, by what stands first in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rules,
    Receivers,
    Tests,
}

impl Kind {
    /// What the keys of the file's first level say; a file that says nothing is one of rules.
    fn of(text: &str) -> Kind {
        let has = |key: &str| {
            text.lines().any(|line| line.strip_prefix(key).is_some_and(|behind| behind.starts_with(':')))
        };
        if has("rule_files") || has("tests") {
            Kind::Tests
        } else if has("receivers") || has("route") {
            Kind::Receivers
        } else {
            Kind::Rules
        }
    }
}

/// Every fault of every file, and what is right.
async fn check(files: &[std::path::PathBuf]) -> anyhow::Result<Exit> {
    let planner = Planner::open().await?;
    let mut out = io::stdout().lock();
    let mut faults = 0;
    for path in files {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        let checked = match Kind::of(&text) {
            Kind::Rules => check_rules(&planner, &text).await,
            Kind::Receivers => check_receivers(&text),
            Kind::Tests => in_lines(TestFile::read(&text)).map(|file| format!("{} tests", file.tests.len())),
        };
        match checked {
            Ok(found) => writeln!(out, "{name}: {found}")?,
            Err(found) => {
                faults += found.len();
                for fault in found {
                    writeln!(out, "{name}:{fault}")?;
                }
            }
        }
    }
    planner.close().await;
    Ok(if faults == 0 { Exit::Done } else { Exit::Configuration })
}

fn in_lines<T>(read: Result<T, RuleFileError>) -> Result<T, Vec<String>> {
    read.map_err(|error| error.faults.iter().map(ToString::to_string).collect())
}

/// The rules, and whether their queries can be planned over the tables that there are.
async fn check_rules(planner: &Planner, text: &str) -> Result<String, Vec<String>> {
    let file = in_lines(RuleFile::read(text))?;
    let mut faults = Vec::new();
    for (_, rule) in file.rules() {
        let Some(query) = rule.query() else { continue };
        if let Err(text) = planner.plan(&query.at(Timestamp::now())).await {
            let place = file.places.get(rule.id()).copied().unwrap_or_default();
            faults.push(format!("{place}: the query of {}: {text}", rule.id()));
        }
    }
    if faults.is_empty() { Ok(format!("{} rules", file.rules().count())) } else { Err(faults) }
}

/// Receivers and routes, with what `${NAME}` stands for here.
fn check_receivers(text: &str) -> Result<String, Vec<String>> {
    let text = beeacon_settings::fill_in(text, &Process).map_err(|fault| vec![format!(" {fault}")])?;
    let config = in_lines(Config::read(&text))?;
    Ok(format!("{} receivers", config.receivers.len()))
}

/// Sends a message that says that it is a test, with what is configured, and says what became of it.
async fn test(arguments: TestReceiverArguments) -> anyhow::Result<Exit> {
    let alerts = config::load(&arguments.common, &ListenArguments::default())?.server.alerts;
    let receivers = match alerts.files.read_receivers() {
        Ok(receivers) => receivers,
        Err(faults) => return Err(Faults::all("the receivers have faults:", vec![faults]).into()),
    };
    let name = &arguments.receiver;
    let Some(receiver) = receivers.receiver(name) else {
        let known: Vec<&str> = receivers.receivers.iter().map(|known| known.name.as_str()).collect();
        anyhow::bail!("there is no receiver \"{name}\"; there are: {}", known.join(", "));
    };
    if receiver.kind == ReceiverKind::Nobody {
        anyhow::bail!("the receiver \"{name}\" tells nobody: it says only its name");
    }
    let url = alerts.external_url.as_deref().unwrap_or("http://127.0.0.1:4880");
    let sender = Sender::new(alerts.outbound, alerts.certificates.as_deref(), url)
        .context("make the delivery of alerts ready")?;
    let now = Timestamp::now();
    let mut exit = tell(&sender, receiver, &message(name, now, None), now).await?;
    if exit == Exit::Done && arguments.resolved {
        let end = Timestamp::now();
        exit = tell(&sender, receiver, &message(name, now, Some(end)), end).await?;
    }
    Ok(exit)
}

async fn tell(
    sender: &Sender,
    receiver: &Receiver,
    message: &Notification,
    now: Timestamp,
) -> anyhow::Result<Exit> {
    let what = if message.alerts.iter().any(ActiveAlert::is_firing) { "the test" } else { "its end" };
    let name = &receiver.name;
    let outcome = sender.send(receiver, message, now).await;
    let mut out = io::stdout().lock();
    match outcome {
        Outcome::Delivered => writeln!(out, "{name}: {what} was taken, with the id {}", message.id)?,
        Outcome::Again { why, .. } => {
            writeln!(out, "{name}: {what} was not taken, an alert would be sent again: {why}")?;
            return Ok(Exit::Failed);
        }
        Outcome::Never(why) => {
            writeln!(out, "{name}: {what} was not taken, an alert would be given up: {why}")?;
            return Ok(Exit::Failed);
        }
    }
    Ok(Exit::Done)
}

fn message(receiver: &str, began: Timestamp, ended: Option<Timestamp>) -> Notification {
    let at = ended.unwrap_or(began);
    let id = format!("test_{:x}_{}", began.as_nanosecond(), if ended.is_some() { "end" } else { "begin" });
    Notification {
        receiver: receiver.to_owned(),
        group_key: format!("{{}}:{{alertname=\"BeeaconTest\", test=\"{:x}\"}}", began.as_nanosecond()),
        group_labels: Labels::from_iter([("alertname", "BeeaconTest")]),
        reason: if ended.is_some() { Reason::AllResolved } else { Reason::First },
        alerts: vec![ActiveAlert {
            labels: Labels::from_iter([
                ("alertname", "BeeaconTest"),
                ("receiver", receiver),
                ("severity", "low"),
            ]),
            annotations: Labels::from_iter([
                ("summary", "This is a test: nothing is wrong"),
                ("description", "Somebody ran `beeacon alerts test` to see whether alerts arrive here."),
            ]),
            starts_at: began,
            ends_at: ended,
            value: "0".to_owned(),
            generator_url: String::new(),
            event_id: format!("evt_{id}"),
        }],
        id,
        at,
    }
}
