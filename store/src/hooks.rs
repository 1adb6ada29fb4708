//! Places where a test can stop the commit protocol, as a crash would. Nothing of this is in a built program.

/// A moment in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Files are encoded, nothing is written.
    BeforeStage,
    /// T0 is committed.
    AfterStage,
    /// The first of the flush's objects is written.
    AfterFirstPut,
    /// Every object is written, nothing read back.
    AfterPut,
    /// Objects are read back, T1 not begun.
    BeforeCommit,
    /// T1 is committed, memory not changed yet: to the caller the result is unknown.
    AfterCommit,
}

impl Step {
    #[cfg(test)]
    pub(crate) const ALL: [Step; 6] = [
        Step::BeforeStage,
        Step::AfterStage,
        Step::AfterFirstPut,
        Step::AfterPut,
        Step::BeforeCommit,
        Step::AfterCommit,
    ];
}
