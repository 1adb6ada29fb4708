//! The bytes of one record, in parts, so that nobody has to copy them together.

use std::fmt;

/// One record's bytes. They are stored as the parts one after the other; where they were split is
/// not kept.
///
/// ```
/// use beeacon_journal::Payload;
/// let payload = Payload::new().with(b"header".as_slice()).with(vec![0; 1024]);
/// assert_eq!(payload.bytes(), 1030);
/// ```
#[derive(Default)]
pub struct Payload {
    parts: Vec<Box<dyn AsRef<[u8]> + Send>>,
    bytes: u64,
}

impl Payload {
    /// An empty payload.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part: a `Vec<u8>`, a `Bytes`, an `Arc<[u8]>`. It has to give the same bytes each time
    /// it is asked.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]> + Send + 'static) -> Self {
        self.bytes = self.bytes.saturating_add(part.as_ref().len() as u64);
        self.parts.push(Box::new(part));
        self
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| part.as_ref().as_ref())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are somebody's logs: they have no place in ours.
        formatter.debug_struct("Payload").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new().with(bytes)
    }
}

impl From<Vec<Vec<u8>>> for Payload {
    fn from(parts: Vec<Vec<u8>>) -> Self {
        parts.into_iter().collect()
    }
}

impl<P: AsRef<[u8]> + Send + 'static> FromIterator<P> for Payload {
    fn from_iter<I: IntoIterator<Item = P>>(parts: I) -> Self {
        parts.into_iter().fold(Self::new(), Self::with)
    }
}
