//! Limits of events in the server, with their units and reasons.

use std::time::Duration;

/// How long findings are counted before they are told. A sync of the disk each time that there are any.
pub(super) const COUNTED_FOR: Duration = Duration::from_secs(5);

/// How soon a step that could not be written is tried again.
pub(super) const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often old events are dropped.
pub(super) const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How often the ledger of alerts and the audit trail are looked at when nothing tells that they changed.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Changes of alerts that are read at a time.
pub(super) const CHANGES_MAX: usize = 500;

/// How often the state of health is looked at.
pub(super) const HEALTH_EVERY: Duration = Duration::from_secs(2);

/// Looks in a row that have to agree before a change of health is told: a start or a moment of load is no failure.
pub(super) const HEALTH_LOOKS: u32 = 2;

/// After how long without a word an agent is lost: what the ready rule `AgentLost` says, too.
pub(super) const AGENT_SILENT_FOR: Duration = Duration::from_secs(5 * 60);

/// After how long a silent agent is not worth telling of: a host that is gone for good, known from former times.
pub(super) const AGENT_FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often looks at dashboards are told, per user and dashboard: a dashboard asks many things, again and again.
pub(super) const DASHBOARD_EVERY: Duration = Duration::from_secs(60);

/// Pairs of user and dashboard that are told apart within that time.
pub(super) const DASHBOARDS_MAX: usize = 1_000;

/// Letters of a dashboard's uid: Grafana's own limit.
pub(super) const DASHBOARD_UID_BYTES_MAX: usize = 40;

/// Streams of server-sent events at a time, of all clients.
pub(super) const STREAMS_MAX: usize = 64;

/// Events that are sent at a time: what one stream holds in memory, some 30 kB and at most a megabyte.
pub(super) const STREAM_PAGE: usize = 64;

/// How often a stream without events says that it lives. Proxies close what is silent for a minute.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// How long a client may read nothing while there is something for it. Then it is told, and the stream ends.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(10);

/// How long the client that was told may take to read that, before its connection is closed on it.
pub(super) const FAREWELL_TIME: Duration = Duration::from_secs(5);

/// Events of other servers that wait to be written; what comes on top is left out and counted.
pub(super) const HEARD_WAITING_MAX: usize = 1_000;

/// Events that are published at a time.
pub(super) const PUBLISH_PAGE: usize = 100;

/// How old an event may be to be published still. What Redis missed longer ago is history.
pub(super) const PUBLISHED_WITHIN: Duration = Duration::from_secs(3600);

/// How often the place of what is published is written down, and how soon publishing is tried again.
pub(super) const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Rows of the table `events`, the newest ones. More are in the log, and the door pages through them.
pub(super) const ROWS_MAX: usize = 100_000;
