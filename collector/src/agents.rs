//! Who may speak and where their sources stand.
//!
//! Always holds: an agent's state is changed only while its lock is held, and only after the journal has made the change
//! durable; the numbers of agents and of sources have a limit; a source is forgotten only after its agent has ended it.
//! What it leaves to others: judging intervals ([`crate::commit`]) and making things durable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beeacon_record::wire::SourceState;
use beeacon_record::{AgentId, Epoch, Source};
use beeacon_store::SourceProgress;

use crate::commit::Progress;
use crate::limits::{
    AGENTS_MAX, CREDIT_SHARED_WITHIN, FINAL_GRACE, HEARD_COUNTED_EVERY, SOURCES_MAX, SOURCES_PER_AGENT_MAX,
};

/// What is remembered of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) progress: Progress,
    /// The agent's own bytes of the last committed interval.
    pub(crate) cursor: Vec<u8>,
    /// The agent said that nothing more comes.
    pub(crate) is_final: bool,
    /// When the last interval came, in nanoseconds since 1970.
    pub(crate) received_ns: i64,
}

/// The version of what stands before the agent's cursor in the store.
const STORED_CURSOR_VERSION: u8 = 1;

impl Memory {
    /// As the store keeps it. The store's cursor is opaque to it, so what only the collector needs stands before the
    /// agent's bytes: version, whether the source has ended, when it was last heard of.
    pub(crate) fn to_stored(&self, agent: AgentId, source: Source) -> SourceProgress {
        let mut cursor = Vec::with_capacity(10 + self.cursor.len());
        cursor.extend_from_slice(&[STORED_CURSOR_VERSION, u8::from(self.is_final)]);
        cursor.extend_from_slice(&self.received_ns.to_le_bytes());
        cursor.extend_from_slice(&self.cursor);
        let Progress { committed, open } = self.progress.clone();
        SourceProgress { agent, source, committed, open, cursor }
    }

    /// From what the store kept. Bytes of another version cost the cursor, never the position.
    pub(crate) fn from_stored(stored: &SourceProgress) -> Self {
        let progress = Progress { committed: stored.committed, open: stored.open.clone() };
        match stored.cursor.split_first_chunk::<10>() {
            Some(([STORED_CURSOR_VERSION, is_final, received @ ..], cursor)) => Memory {
                progress,
                cursor: cursor.to_vec(),
                is_final: *is_final == 1,
                received_ns: i64::from_le_bytes(*received),
            },
            _ => Memory { progress, ..Memory::default() },
        }
    }

    pub(crate) fn to_wire(&self, source: Source) -> SourceState {
        let Progress { committed, open } = self.progress.clone();
        SourceState { source, committed, open, cursor: self.cursor.clone() }
    }

    /// Ended, and long enough ago that no repeat is on its way any more.
    fn is_over(&self, now_ns: i64) -> bool {
        self.is_final && now_ns.saturating_sub(self.received_ns) > nanoseconds(FINAL_GRACE)
    }
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// What is remembered of one agent.
#[derive(Debug, Default)]
pub(crate) struct AgentState {
    pub(crate) epoch: Epoch,
    pub(crate) sources: HashMap<Source, Memory>,
}

/// One agent: its state behind a lock that is held across a commit, and what the status shows without that lock.
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) state: Arc<tokio::sync::Mutex<AgentState>>,
    epoch: AtomicU64,
    sources: AtomicUsize,
    received_ns: AtomicI64,
    who: Mutex<Who>,
}

/// What an agent says about itself, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who {
    pub(crate) host: String,
    pub(crate) version: String,
}

impl Agent {
    fn new(id: AgentId) -> Self {
        Agent {
            id,
            state: Arc::default(),
            epoch: AtomicU64::new(0),
            sources: AtomicUsize::new(0),
            received_ns: AtomicI64::new(0),
            who: Mutex::default(),
        }
    }

    /// The session that may speak now. Read without the lock: a first look, to be repeated under it.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(crate) fn sources(&self) -> usize {
        self.sources.load(Ordering::Relaxed)
    }

    pub(crate) fn received_ns(&self) -> i64 {
        self.received_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn who(&self) -> Who {
        self.who.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_who(&self, who: Who) {
        *self.who.lock().unwrap_or_else(PoisonError::into_inner) = who;
    }
}

/// Why there is no place for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CrowdedError {
    #[error("remember another agent: the limit is {AGENTS_MAX}")]
    Agents,
    #[error("remember {more} more sources of this agent: the limit is {SOURCES_PER_AGENT_MAX}")]
    AgentSources { more: usize },
    #[error("remember {more} more sources: the limit of all agents is {SOURCES_MAX}")]
    Sources { more: usize },
}

/// Every agent known.
#[derive(Default)]
pub(crate) struct Agents {
    known: Mutex<HashMap<AgentId, Arc<Agent>>>,
    sources: AtomicUsize,
    /// How many were heard lately, and when they were counted.
    heard: AtomicUsize,
    heard_at_ns: AtomicI64,
}

impl Agents {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<AgentId, Arc<Agent>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: AgentId) -> Option<Arc<Agent>> {
        self.known().get(&id).cloned()
    }

    pub(crate) fn get_or_add(&self, id: AgentId) -> Result<Arc<Agent>, CrowdedError> {
        let mut known = self.known();
        if let Some(agent) = known.get(&id) {
            return Ok(Arc::clone(agent));
        }
        if known.len() >= AGENTS_MAX {
            return Err(CrowdedError::Agents);
        }
        Ok(Arc::clone(known.entry(id).or_insert_with(|| Arc::new(Agent::new(id)))))
    }

    /// For what is durable already: it is remembered whatever the limits say.
    pub(crate) fn restore(&self, id: AgentId) -> Arc<Agent> {
        Arc::clone(self.known().entry(id).or_insert_with(|| Arc::new(Agent::new(id))))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        self.known().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.known().len()
    }

    /// How many have sent something lately. Asked with every answer, and there may be thousands: they are counted once a second, and
    /// when somebody is heard who was not.
    pub(crate) fn heard_lately(&self, now_ns: i64) -> usize {
        let age_ns = now_ns.saturating_sub(self.heard_at_ns.load(Ordering::Relaxed));
        // A clock that was set back counts anew, too.
        if (0..nanoseconds(HEARD_COUNTED_EVERY)).contains(&age_ns) {
            return self.heard.load(Ordering::Relaxed);
        }
        let since_ns = now_ns.saturating_sub(nanoseconds(CREDIT_SHARED_WITHIN));
        let heard = self.known().values().filter(|agent| agent.received_ns() >= since_ns).count();
        self.heard.store(heard, Ordering::Relaxed);
        self.heard_at_ns.store(now_ns, Ordering::Relaxed);
        heard
    }

    pub(crate) fn sources(&self) -> usize {
        self.sources.load(Ordering::Relaxed)
    }

    /// Whether these sources may be remembered; forgets what is over to make room.
    pub(crate) fn make_room<'a>(
        &self,
        agent: &Agent,
        state: &mut AgentState,
        wanted: impl Iterator<Item = &'a Source>,
        now_ns: i64,
    ) -> Result<(), CrowdedError> {
        let more = wanted.filter(|source| !state.sources.contains_key(*source)).count();
        if more == 0 {
            return Ok(());
        }
        let crowded = |state: &AgentState| state.sources.len() + more > SOURCES_PER_AGENT_MAX;
        let all_crowded = || self.sources() + more > SOURCES_MAX;
        if crowded(state) || all_crowded() {
            self.forget_over(agent, state, now_ns);
        }
        if crowded(state) {
            return Err(CrowdedError::AgentSources { more });
        }
        if all_crowded() {
            return Err(CrowdedError::Sources { more });
        }
        Ok(())
    }

    /// Forgets the sources that ended long ago.
    pub(crate) fn forget_over(&self, agent: &Agent, state: &mut AgentState, now_ns: i64) {
        let before = state.sources.len();
        state.sources.retain(|_, memory| !memory.is_over(now_ns));
        self.sources.fetch_sub(before - state.sources.len(), Ordering::Relaxed);
        agent.sources.store(state.sources.len(), Ordering::Relaxed);
    }

    /// Takes what is durable now.
    pub(crate) fn remember(
        &self,
        agent: &Agent,
        state: &mut AgentState,
        memories: impl IntoIterator<Item = (Source, Memory)>,
    ) {
        for (source, memory) in memories {
            let before_ns = agent.received_ns.fetch_max(memory.received_ns, Ordering::Relaxed);
            if memory.received_ns.saturating_sub(before_ns) >= nanoseconds(CREDIT_SHARED_WITHIN) {
                self.heard_at_ns.store(0, Ordering::Relaxed);
            }
            if state.sources.insert(source, memory).is_none() {
                self.sources.fetch_add(1, Ordering::Relaxed);
            }
        }
        agent.sources.store(state.sources.len(), Ordering::Relaxed);
    }

    /// Takes a session that is durable now.
    pub(crate) fn begin(&self, agent: &Agent, state: &mut AgentState, epoch: Epoch) {
        state.epoch = state.epoch.max(epoch);
        agent.epoch.store(state.epoch.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use beeacon_record::Position;

    use super::*;

    fn memory(is_final: bool, received_ns: i64) -> Memory {
        let progress = Progress { committed: Position::new(1, 9), open: vec![Position::new(1, 3)] };
        Memory { progress, cursor: vec![7, 8], is_final, received_ns }
    }

    fn source(name: &str) -> Source {
        Source::new(name).unwrap()
    }

    /// Credit is shared among those who were heard lately: too few counted would promise the same room twice.
    #[test]
    fn who_is_heard_counts_at_once_and_who_falls_silent_for_a_second_more() {
        let (agents, second) = (Agents::default(), 1_000_000_000);
        let hear = |number: u8, now_ns: i64| {
            let agent = agents.get_or_add(AgentId::from_bytes([number; 16])).unwrap();
            let mut state = AgentState::default();
            agents.remember(&agent, &mut state, vec![(source("s"), memory(false, now_ns))]);
        };
        let start = 1_000 * second;
        for number in 1..=3 {
            hear(number, start);
            assert_eq!(agents.heard_lately(start), usize::from(number));
        }
        for now in (0..15).map(|passed| start + passed * second) {
            hear(1, now);
            let expected = if now <= start + 10 * second { 3 } else { 1 };
            assert_eq!(agents.heard_lately(now), expected, "{} s later", (now - start) / second);
        }
        // As long as the second of the last count is not over.
        hear(2, start + 14 * second);
        assert_eq!(agents.heard_lately(start + 14 * second), 2);
        let later = start + 24 * second;
        hear(1, later + second / 2);
        assert_eq!((agents.heard_lately(later), agents.heard_lately(later + second / 2)), (2, 2));
        assert_eq!(agents.heard_lately(later - 100 * second), 3, "the clock was set back");
    }

    #[test]
    fn what_is_remembered_of_a_source_survives_the_store() {
        for memory in [memory(true, -5), memory(false, i64::MAX), Memory::default()] {
            let stored = memory.to_stored(AgentId::from_bytes([1; 16]), source("s"));
            assert_eq!(Memory::from_stored(&stored), memory);
        }
    }

    #[test]
    fn a_stored_cursor_of_another_version_costs_the_cursor_and_not_the_position() {
        let mut stored = memory(true, 5).to_stored(AgentId::from_bytes([1; 16]), source("s"));
        stored.cursor[0] = 2;
        let read = Memory::from_stored(&stored);
        assert_eq!(read.progress, memory(true, 5).progress);
        assert!(read.cursor.is_empty() && !read.is_final);
    }

    #[test]
    fn only_sources_that_ended_long_ago_make_room() {
        let agents = Agents::default();
        let agent = agents.get_or_add(AgentId::from_bytes([1; 16])).unwrap();
        let mut state = AgentState::default();
        let hour_ns = i64::try_from(FINAL_GRACE.as_nanos()).unwrap();
        let filler = (3..SOURCES_PER_AGENT_MAX).map(|index| (source(&format!("s{index}")), memory(false, 0)));
        let ended = [(source("late"), memory(true, 2)), (source("over"), memory(true, 0))];
        agents.remember(&agent, &mut state, filler.chain(ended));
        let one = [source("new-1")];
        let three = [source("new-1"), source("new-2"), source("new-3")];
        let now_ns = hour_ns + 1;

        assert_eq!(agents.make_room(&agent, &mut state, one.iter(), now_ns), Ok(()), "there was room");
        assert!(state.sources.contains_key(&source("over")), "nothing was forgotten without need");
        assert_eq!(
            agents.make_room(&agent, &mut state, three.iter(), now_ns),
            Err(CrowdedError::AgentSources { more: 3 })
        );
        assert!(!state.sources.contains_key(&source("over")));
        assert!(state.sources.contains_key(&source("late")), "its grace is not over");
        assert_eq!(agents.sources(), state.sources.len());
        assert_eq!(agents.make_room(&agent, &mut state, three.iter().take(2), now_ns), Ok(()));
    }
}
