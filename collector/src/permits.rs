//! Memory that requests may take, as permits counted in bytes.
//!
//! Always holds: bytes are asked for before they are taken, and given back when whoever holds the permit drops it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::PERMIT_WAIT_MAX;

/// A number of bytes that many may share.
#[derive(Clone, Debug)]
pub(crate) struct ByteBudget {
    semaphore: Arc<Semaphore>,
    bytes: usize,
}

/// Bytes taken from a budget.
pub(crate) type ByteBudgetPermit = OwnedSemaphorePermit;

impl ByteBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        ByteBudget { semaphore: Arc::new(Semaphore::new(bytes)), bytes }
    }

    /// Takes bytes, waiting a moment for others to give back theirs; none when they did not, or when the budget never has
    /// as many.
    pub(crate) async fn take(&self, bytes: usize) -> Option<ByteBudgetPermit> {
        let wanted = u32::try_from(bytes).ok().filter(|_| bytes <= self.bytes)?;
        let permit = Arc::clone(&self.semaphore).acquire_many_owned(wanted);
        tokio::time::timeout(PERMIT_WAIT_MAX, permit).await.ok()?.ok()
    }

    /// Bytes left now.
    pub(crate) fn left(&self) -> usize {
        self.semaphore.available_permits()
    }

    /// Bytes taken now.
    pub(crate) fn taken(&self) -> usize {
        self.bytes.saturating_sub(self.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_gives_out_no_more_than_it_has_and_takes_back() {
        let budget = ByteBudget::new(100);
        let first = budget.take(70).await.unwrap();
        assert!(budget.take(31).await.is_none(), "it waited, and nobody gave back");
        assert!(budget.take(101).await.is_none());
        let second = budget.take(30).await.unwrap();
        assert_eq!(budget.taken(), 100);
        drop((first, second));
        assert_eq!(budget.taken(), 0);
        assert!(budget.take(100).await.is_some());
    }
}
