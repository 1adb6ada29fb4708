//! Names that come with lines from whoever writes them (hosts, services, containers), scrubbed as if they were lines.

use std::collections::HashMap;
use std::sync::Arc;

use beeacon_record::{
    BatchBuilder, BatchError, IdentityError, Interval, Level, Line, Origin, Position, Source, Stream,
};

use crate::filter::{self, Filter, ScrubError};
use crate::limits::PUSH_NAMES_MAX;

/// Why names could not be scrubbed: nothing may be shipped under them.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The filter failed.
    #[error("scrub names")]
    Scrub(#[from] ScrubError),
    /// They make no batch.
    #[error("gather names into a batch")]
    Batch(#[from] BatchError),
    /// Their source has no name.
    #[error("name the source of names")]
    Source(#[from] IdentityError),
}

impl NamesError {
    /// Whether an error of reading is the filter's: then no other try can help.
    pub fn is_of_the_filter(error: &std::io::Error) -> bool {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        matches!(inner, Some(NamesError::Scrub(_)))
    }
}

/// Names as they came, and as the filter left them; at most [`PUSH_NAMES_MAX`].
#[derive(Default)]
pub struct Names {
    known: HashMap<Arc<Origin>, Arc<Origin>>,
}

impl Names {
    /// The origin as the filter leaves it. `host` stands where it names none; where a rule drops a name as if it were a line, only the
    /// host and the labels stay.
    ///
    /// # Errors
    /// When the filter fails.
    pub fn scrubbed(
        &mut self,
        origin: &Arc<Origin>,
        host: &str,
        filter: &dyn Filter,
    ) -> Result<Arc<Origin>, NamesError> {
        if let Some(known) = self.known.get(origin) {
            return Ok(known.clone());
        }
        let source = Source::new("names")?;
        let mut builder = BatchBuilder::new("names");
        let id = builder.origin(&Origin::default(), &source);
        let given = if origin.host.is_empty() { host } else { &origin.host };
        let names = [given, &origin.service, &origin.container, &origin.container_id, &origin.image];
        for (minor, name) in (0u64..).zip(names) {
            let line = Line {
                origin: id,
                timestamp_ns: 0,
                observed_timestamp_ns: 0,
                stream: Stream::Stdout,
                level: Level::Unknown,
                position: Position::new(u64::MAX, minor),
            };
            builder.push(line, name.as_bytes());
        }
        let interval = Interval::new(source, Position::START, Position::new(u64::MAX, u64::MAX));
        let (scrubbed, _) = filter::scrub(filter, builder.finish(vec![interval])?)?;
        let texts: Vec<&str> = scrubbed.get().messages().iter().flatten().collect();
        let scrubbed = match texts.as_slice() {
            [host, service, container, container_id, image] => Origin {
                host: (*host).to_owned(),
                service: (*service).to_owned(),
                container: (*container).to_owned(),
                container_id: (*container_id).to_owned(),
                image: (*image).to_owned(),
                labels: origin.labels.clone(),
            },
            _ => Origin { host: host.to_owned(), labels: origin.labels.clone(), ..Origin::default() },
        };
        if self.known.len() >= PUSH_NAMES_MAX {
            self.known.clear();
        }
        let scrubbed = Arc::new(scrubbed);
        self.known.insert(origin.clone(), scrubbed.clone());
        Ok(scrubbed)
    }

    /// Forgets all: another filter counts from now on.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}
