//! The Arrow IPC stream.

use arrow_ipc::writer::StreamWriter;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;

/// Writes the schema first, then a message per piece, then the end mark.
pub(super) struct Stream(StreamWriter<Vec<u8>>);

impl Stream {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        Ok(Stream(StreamWriter::try_new(Vec::new(), schema)?))
    }
}

impl super::Writer for Stream {
    fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.write(rows)?;
        out.append(self.0.get_mut());
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.finish()?;
        out.append(self.0.get_mut());
        Ok(())
    }
}
