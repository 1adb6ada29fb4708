//! Reading a file: its footer, kept between queries, has to name the tenant who asks.
//!
//! The catalog lists a tenant's files and the object store shows no others; this is the third look, at the file itself, so
//! that a mix-up in either is an error and not somebody else's rows.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Moment;
use crate::error::QueryError;

/// The key under which a file's footer names its tenant.
const TENANT_KEY: &str = "beeacon.tenant";

#[derive(Debug)]
pub(crate) struct Readers {
    inner: CachedParquetFileReaderFactory,
    tenant: Arc<str>,
}

impl Readers {
    pub(crate) fn new(moment: &Moment) -> Self {
        let inner = CachedParquetFileReaderFactory::new(moment.files.clone(), moment.footers.clone());
        Readers { inner, tenant: Arc::from(moment.tenant.as_str()) }
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let inner = self.inner.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader { inner, tenant: self.tenant.clone() }))
    }
}

struct Reader {
    inner: Box<dyn AsyncFileReader + Send>,
    tenant: Arc<str>,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let Reader { inner, tenant } = self;
        let metadata = inner.get_metadata(options);
        metadata.map(move |metadata| metadata.and_then(|metadata| checked(metadata, tenant))).boxed()
    }
}

fn checked(metadata: Arc<ParquetMetaData>, tenant: &str) -> ParquetResult<Arc<ParquetMetaData>> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let found = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == TENANT_KEY));
    if found.and_then(|pair| pair.value.as_deref()) == Some(tenant) {
        return Ok(metadata);
    }
    Err(ParquetError::External(Box::new(QueryError::ForeignFile)))
}
