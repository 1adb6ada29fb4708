//! Parquet, in row groups as they fill.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;

use crate::limits::PARQUET_GROUP_BYTES;

/// Rows of a group are held until it is full; the footer comes last, so a file that was cut off is no Parquet file.
pub(super) struct Groups(ArrowWriter<Vec<u8>>);

impl Groups {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let level = ZstdLevel::try_new(1).map_err(unfit)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        Ok(Groups(ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(unfit)?))
    }

    fn taken(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.sync()?;
        out.append(self.0.inner_mut());
        Ok(())
    }
}

fn unfit(error: ParquetError) -> ArrowError {
    ArrowError::ParquetError(error.to_string())
}

impl super::Writer for Groups {
    fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.write(rows).map_err(unfit)?;
        if self.0.in_progress_size() >= PARQUET_GROUP_BYTES {
            self.0.flush().map_err(unfit)?;
        }
        self.taken(out)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.finish().map_err(unfit)?;
        self.taken(out)
    }
}
