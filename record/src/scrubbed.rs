//! The type that carries the first promise: what is inside has been through the pollen filter.
//!
//! A value is made in two places only, and a test counts them: the filters, and decoding a frame. Encoder, shipper and
//! store take nothing else. It proves that *a* rule set ran, not that it was the right one, hence the id beside it.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::BooleanArray;

use crate::batch::{Batch, BatchError, attributes_array};
use crate::identity::RuleSetId;
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};
use crate::schema::Column;

/// Something that the pollen filter has been over.
#[derive(Clone)]
pub struct Scrubbed<T> {
    value: T,
    rule_set: RuleSetId,
}

impl<T> Scrubbed<T> {
    /// Declares that `value` went through the rules named `rule_set`. For the filters and the frame decoder only.
    pub fn seal(value: T, rule_set: RuleSetId) -> Self {
        Scrubbed { value, rule_set }
    }

    /// What was scrubbed.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Which rules did it.
    pub fn rule_set(&self) -> RuleSetId {
        self.rule_set
    }

    /// Gives the value out, for rooms behind the filters.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl Scrubbed<Batch> {
    /// The same batch with only the rows for which `keep` is true; what is scrubbed stays scrubbed.
    ///
    /// # Errors
    /// When `keep` has another length than the batch.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, BatchError> {
        Ok(Scrubbed { value: self.value.filter(keep)?, rule_set: self.rule_set })
    }

    /// The same batch with only the rows whose number is kept.
    ///
    /// # Errors
    /// When the rows left do not make a batch, which would be a fault of ours.
    pub fn retain(&self, keep: impl Fn(usize) -> bool) -> Result<Self, BatchError> {
        let rows = (0..self.value.rows()).map(keep).collect::<Vec<bool>>();
        self.filter(&BooleanArray::from(rows))
    }
}

/// A part of a row's message that is to be an attribute of the row, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// The row's number.
    pub row: usize,
    /// What the attribute is called: a name of the configuration, never of a message.
    pub key: &'a str,
    /// Where the value stands in the row's message.
    pub range: Range<usize>,
    /// Whether it stood in quotes, so that escapes as in JSON are resolved.
    pub is_quoted: bool,
}

impl Scrubbed<Batch> {
    /// The same batch with parts of its messages as attributes, in the order of rows. What is scrubbed stays scrubbed: a value is
    /// cut out of the scrubbed message, there is no other way to give one. A key that the row has already, and what is beyond
    /// [`ATTRIBUTES_MAX`], is left out; values longer than [`ATTRIBUTE_BYTES_MAX`] are cut.
    ///
    /// # Errors
    /// When a cut stands at no characters of its row's message, or rows go down.
    pub fn with_cuts(self, cuts: &[Cut<'_>]) -> Result<Self, BatchError> {
        if cuts.is_empty() {
            return Ok(self);
        }
        let misfit = || BatchError::Column { column: Column::Attributes.name() };
        let batch = self.value;
        let mut attributes: Vec<(usize, String, String)> = Vec::with_capacity(cuts.len());
        let mut rest = cuts;
        let messages = batch.messages();
        for row in 0..batch.rows() {
            let first = attributes.len();
            attributes.extend(batch.attributes_of(row).into_iter().map(|(key, value)| (row, key, value)));
            while let Some((cut, behind)) = rest.split_first().filter(|(cut, _)| cut.row == row) {
                rest = behind;
                let raw = messages.value(row).get(cut.range.clone()).ok_or_else(misfit)?;
                let of_row = attributes.get(first..).unwrap_or_default();
                if of_row.len() >= ATTRIBUTES_MAX || of_row.iter().any(|(_, key, _)| key == cut.key) {
                    continue;
                }
                let value = unescaped(raw, cut.is_quoted);
                let end = value.floor_char_boundary(ATTRIBUTE_BYTES_MAX);
                let value = value.get(..end).unwrap_or_default().to_owned();
                attributes.push((row, cut.key.to_owned(), value));
            }
        }
        if !rest.is_empty() {
            return Err(misfit());
        }
        let column = attributes_array(batch.rows(), &attributes)?;
        let value = batch.with_column(Column::Attributes, Arc::new(column))?;
        Ok(Scrubbed { value, rule_set: self.rule_set })
    }
}

/// What the escapes of a quoted value stand for; what is no JSON string stays as it is.
fn unescaped(raw: &str, is_quoted: bool) -> String {
    if !is_quoted || !raw.contains('\\') {
        return raw.to_owned();
    }
    serde_json::from_str(&format!("\"{raw}\"")).unwrap_or_else(|_| raw.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Line, Origin};
    use crate::identity::{Interval, Position, Source};
    use crate::level::{Level, Stream};

    fn batch(messages: &[&str]) -> Scrubbed<Batch> {
        let source = Source::new("docker-file:a").unwrap();
        let mut builder = BatchBuilder::new("agent");
        let origin = builder.origin(&Origin::default(), &source);
        for (minor, message) in (0..).zip(messages) {
            let line = Line {
                origin,
                timestamp_ns: 1,
                observed_timestamp_ns: 1,
                stream: Stream::Stdout,
                level: Level::Unknown,
                position: Position::new(1, minor),
            };
            builder.push(line, message.as_bytes());
        }
        builder.attribute("part", "1");
        let interval = Interval::new(source, Position::new(1, 0), Position::new(1, 9));
        Scrubbed::seal(builder.finish(vec![interval]).unwrap(), RuleSetId(1))
    }

    fn attributes(batch: &Scrubbed<Batch>, row: usize) -> Vec<(String, String)> {
        batch.get().attributes_of(row)
    }

    #[test]
    fn cuts_become_attributes_beside_those_there_are_with_their_escapes_resolved() {
        let long = format!("x={}\u{fc}", "y".repeat(ATTRIBUTE_BYTES_MAX - 1));
        let messages = ["a", r#"{"u":"q\"\u0041","n":7}"#, &long, "part=2 k=<EMAIL>"];
        let cut = |row, key, range, is_quoted| Cut { row, key, range, is_quoted };
        let cuts = [
            cut(1, "u", 6..15, true),
            cut(1, "n", 21..22, false),
            cut(1, "n", 0..1, false),
            cut(2, "x", 2..long.len(), false),
            cut(3, "part", 5..6, false),
            cut(3, "k", 9..16, false),
        ];
        let cut_batch = batch(&messages).with_cuts(&cuts).unwrap();
        assert!(attributes(&cut_batch, 0).is_empty());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(attributes(&cut_batch, 1), [pair("u", "q\"A"), pair("n", "7")]);
        assert_eq!(attributes(&cut_batch, 2), [pair("x", &"y".repeat(ATTRIBUTE_BYTES_MAX - 1))]);
        assert_eq!(attributes(&cut_batch, 3), [pair("part", "1"), pair("k", "<EMAIL>")]);
    }

    #[test]
    fn a_cut_that_stands_nowhere_is_refused() {
        for cut in [
            Cut { row: 0, key: "k", range: 0..9, is_quoted: false },
            Cut { row: 0, key: "k", range: 1..2, is_quoted: false },
            Cut { row: 5, key: "k", range: 0..1, is_quoted: false },
        ] {
            assert!(batch(&["\u{fc}ber"]).with_cuts(&[cut]).is_err());
        }
    }
}
