//! The room's limits, with unit and reason.

use std::time::Duration;

/// The largest rule file, in bytes. Hand-written files are a hundredth of it.
pub const RULE_FILE_BYTES_MAX: usize = 1 << 20;

/// The deepest nesting of a rule file. Prometheus' shape needs seven levels.
pub const RULE_FILE_DEPTH_MAX: usize = 32;

/// The values of a rule file, those that an alias copies included. A file of the most rules has half of it.
pub const RULE_FILE_NODES_MAX: usize = 100_000;

/// The rules of one file.
pub const RULES_PER_FILE_MAX: usize = 2_000;

/// The longest SQL text of a rule, in bytes: the SQL door's own limit is the same.
pub const SQL_BYTES_MAX: usize = 64 << 10;

/// The shortest evaluation interval. Below it streaming rules are the right thing.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The evaluation interval of a group that names none, as in Prometheus.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(60);

/// The longest duration anywhere in a rule: a year.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The alerts one rule may have at a time when its group names no limit. More than that is a rule without aggregation, and
/// each alert costs memory, a row and a place in a message.
pub const ALERTS_PER_RULE_MAX: usize = 1_000;

/// The labels of one alert.
pub const LABELS_MAX: usize = 64;

/// The longest label value, in bytes; longer ones are cut. Loki's limit for a label value.
pub const LABEL_VALUE_BYTES_MAX: usize = 2_048;

/// The longest annotation, in bytes; longer ones are cut. Receivers cut at 3 to 25 thousand characters themselves.
pub const ANNOTATION_BYTES_MAX: usize = 4 << 10;

/// The longest template of a label or an annotation, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 16 << 10;

/// The places of one template.
pub const TEMPLATE_PLACES_MAX: usize = 200;

/// The longest text of an evaluation error that is kept, in bytes.
pub const ERROR_BYTES_MAX: usize = 1 << 10;

/// How long a resolved alert is kept in its rule's state, so that it is seen and its message can be repeated: Prometheus' 15
/// minutes.
pub const RESOLVED_KEPT_FOR: Duration = Duration::from_secs(15 * 60);

/// The evaluations caught up per group after a pause. Sixty at one minute cover an hour's outage; what is older is recorded
/// as missed.
pub const CATCH_UP_MAX: usize = 60;

/// How much longer than two intervals a server's turn at a group lasts: an evaluation may be slow, and prolongs it.
pub const TURN_MARGIN: Duration = Duration::from_secs(10);

/// The parts into which a streaming window is cut. A count is exact to one sixtieth of its window.
pub const STREAM_PARTS: usize = 60;

/// The longest streaming window. Longer ones belong to SQL.
pub const STREAM_WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// The series (rule and service) one streaming rule counts. Each is about 600 bytes.
pub const STREAM_SERIES_MAX: usize = 10_000;

/// The longest text a streaming rule looks for, in bytes.
pub const STREAM_TEXT_BYTES_MAX: usize = 256;

/// The longest service name a streaming series is kept under, in bytes.
pub const STREAM_SERVICE_BYTES_MAX: usize = 256;

/// The longest text of a matcher, in bytes.
pub const MATCHER_BYTES_MAX: usize = 4 << 10;

/// The memory of a matcher's compiled expression, in bytes.
pub const MATCHER_REGEX_BYTES_MAX: usize = 1 << 20;

/// The alerts the notifier knows at a time. Ten rules at their limit.
pub const NOTIFIER_ALERTS_MAX: usize = 10_000;

/// How long the notifier remembers an alert that ended and that no group waits for.
pub const NOTIFIER_RESOLVED_KEPT_FOR: Duration = Duration::from_secs(15 * 60);

/// The silences at a time.
pub const SILENCES_MAX: usize = 1_000;

/// How long a silence is shown after its end: Alertmanager's five days.
pub const SILENCE_KEPT_FOR: Duration = Duration::from_secs(5 * 24 * 3600);

/// Alertmanager's `group_wait`.
pub const GROUP_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// Alertmanager's `group_interval`.
pub const GROUP_INTERVAL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Alertmanager's `repeat_interval`.
pub const REPEAT_INTERVAL_DEFAULT: Duration = Duration::from_secs(4 * 3600);

/// The deepest tree of routes.
pub const ROUTE_DEPTH_MAX: usize = 16;

/// Where PagerDuty takes events.
pub const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// The longest body of a message, in bytes. PagerDuty takes 512,000 and the others more.
pub const BODY_BYTES_MAX: usize = 512_000;

/// The steps a body's template may take.
pub const TEMPLATE_FUEL: u64 = 1_000_000;

/// How far the clocks of sender and receiver of a signed request may be apart: five minutes, as both schemes say.
pub const SIGNATURE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// How long a writer of the ledger waits for another one.
pub const LEDGER_BUSY_WAIT: Duration = Duration::from_secs(10);

/// The messages that wait at a time. Each has at most a few hundred kilobytes, usually two.
pub const OUTBOX_WAITING_MAX: usize = 10_000;

/// How long a message is tried. Whoever was not reached in a day reads it elsewhere.
pub const DELIVERY_TRIED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The pause after the first attempt that failed; it doubles from there.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest pause between two attempts: Alertmanager's `group_interval`.
pub const RETRY_MOST: Duration = Duration::from_secs(5 * 60);

/// The longest `Retry-After` that is obeyed.
pub const RETRY_AFTER_MOST: Duration = Duration::from_secs(3600);

/// The requests that are under way at a time. A receiver that hangs holds one for [`SEND_TIME_MAX`].
pub const SENDS_AT_A_TIME: usize = 16;

/// How long a request may take, from the name to the last byte of the answer.
pub const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// How much of an answer is read, in bytes. Slack's says `ok`.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The largest file of certificates, in bytes. The system's has a quarter of it.
pub const CA_BYTES_MAX: u64 = 1 << 20;

/// How often alerts that fire are sent again to an Alertmanager that says nothing else: Prometheus' minute.
pub const ALERTMANAGER_RESEND_DEFAULT: Duration = Duration::from_secs(60);

/// How often what goes to an Alertmanager is looked at for changes.
pub const ALERTMANAGER_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// After how many missed resends an alert ends in an Alertmanager: Prometheus' four.
pub const ALERTMANAGER_RESENDS_MISSED_MAX: u32 = 4;

/// The alerts of one request to an Alertmanager: Prometheus' batch.
pub const ALERTMANAGER_BATCH_ALERTS: usize = 64;

/// The addresses a mail goes to. Beyond that a mailing list is the right thing.
pub const MAIL_RECIPIENTS_MAX: usize = 50;

/// The longest subject of a mail, in bytes. Programs show a fraction of it; a line of a mail has at most 998.
pub const MAIL_SUBJECT_BYTES_MAX: usize = 250;

/// How long the exchange of a mail may take. Servers that look into a mail take longer than those that take a request.
pub const MAIL_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a mail server that took a mail may take to say good-bye.
pub const GOOD_BYE_TIME_MAX: Duration = Duration::from_secs(1);

/// The ports of mail servers, allowed besides those of the allow list: relay, TLS, submission, and its usual stand-in.
pub const MAIL_PORTS: [u16; 4] = [25, 465, 587, 2525];

/// The values of one series of a unit test.
pub const UNIT_TEST_VALUES_MAX: usize = 10_000;

/// The lines of one unit test, repeats counted.
pub const UNIT_TEST_LINES_MAX: usize = 10_000;

/// The evaluations up to the last case of a unit test: a week of minutes.
pub const UNIT_TEST_EVALUATIONS_MAX: u128 = 10_080;
/// The alerts, open and ended, that are kept. Each is about a kilobyte.
pub const CASES_MAX: usize = 100_000;

/// The longest title of an alert or an incident, in bytes: the 500 characters of the seeds' table.
pub const TITLE_BYTES_MAX: usize = 500;

/// The longest name of somebody who acts, in bytes.
pub const ACTOR_BYTES_MAX: usize = 256;

/// The longest note of a person, in bytes.
pub const NOTE_BYTES_MAX: usize = 4 << 10;

/// How long after its end an incident takes a new alert about its subject: a service that flaps makes one incident.
pub const INCIDENT_JOINED_FOR: Duration = Duration::from_secs(15 * 60);

/// How long alerts that ended, their changes and their messages are kept: ninety days.
pub const HISTORY_KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// How often the ledger drops what is old.
pub const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// How long counts and states that changed nothing may be in memory only. After a kill so much of the journal is counted anew.
pub const STEP_AGE_MAX: Duration = Duration::from_secs(5);

/// How often streaming rules with alerts are looked at when no line comes: it bounds how late an end is told.
pub const STREAM_LOOK_EVERY: Duration = Duration::from_secs(1);

/// The groups of rules whose queries run at a time. People's queries have the other permits.
pub const EVALUATIONS_AT_A_TIME: usize = 2;

/// How often a query is tried that found no permit.
pub const EVALUATION_TRIES: u32 = 3;

/// The pause before a query that found no permit is tried again, and before a step is written again that failed.
pub const EVALUATION_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The batches that wait to be counted. The journal holds what comes after.
pub const OBSERVED_WAITING_MAX: usize = 16;

/// The commands of people that wait.
pub const COMMANDS_WAITING_MAX: usize = 64;

/// The rules in use, of all files together.
pub const RULES_MAX: usize = 10_000;
