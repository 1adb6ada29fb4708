//! Arrow's types as PostgreSQL names them.
//!
//! What has no counterpart (maps, structs) is `json`, and a number that does not fit the next larger type is `numeric`. The
//! numbers are PostgreSQL's own and never change.

use datafusion::arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

/// A type of the PostgreSQL protocol and catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SqlType {
    /// Its number.
    pub(crate) oid: u32,
    /// Its name in `pg_type`.
    pub(crate) name: &'static str,
    /// Its name in SQL, as `information_schema` and `format_type` give it.
    pub(crate) sql_name: &'static str,
    /// The number of the array of it.
    pub(crate) array_oid: u32,
    /// The name of the array of it.
    pub(crate) array_name: &'static str,
    /// Its size in bytes, or -1 where it varies.
    pub(crate) bytes: i16,
    /// Its category, a letter of `pg_type`.
    pub(crate) category: &'static str,
}

macro_rules! sql_types {
    ($($constant:ident: $oid:literal $name:literal $sql:literal $array_oid:literal $bytes:literal $category:literal;)*) => {
        $(pub(crate) const $constant: SqlType = SqlType {
            oid: $oid,
            name: $name,
            sql_name: $sql,
            array_oid: $array_oid,
            array_name: concat!("_", $name),
            bytes: $bytes,
            category: $category,
        };)*
        /// Every type that a column or a parameter can have.
        pub(crate) const ALL: &[SqlType] = &[$($constant),*];
    };
}

sql_types! {
    BOOL: 16 "bool" "boolean" 1000 1 "B";
    BYTEA: 17 "bytea" "bytea" 1001 -1 "U";
    CHAR: 18 "char" "\"char\"" 1002 1 "Z";
    NAME: 19 "name" "name" 1003 64 "S";
    INT8: 20 "int8" "bigint" 1016 8 "N";
    INT2: 21 "int2" "smallint" 1005 2 "N";
    INT4: 23 "int4" "integer" 1007 4 "N";
    TEXT: 25 "text" "text" 1009 -1 "S";
    OID: 26 "oid" "oid" 1028 4 "N";
    JSON: 114 "json" "json" 199 -1 "U";
    FLOAT4: 700 "float4" "real" 1021 4 "N";
    FLOAT8: 701 "float8" "double precision" 1022 8 "N";
    UNKNOWN: 705 "unknown" "unknown" 0 -2 "X";
    BPCHAR: 1042 "bpchar" "character" 1014 -1 "S";
    VARCHAR: 1043 "varchar" "character varying" 1015 -1 "S";
    DATE: 1082 "date" "date" 1182 4 "D";
    TIME: 1083 "time" "time without time zone" 1183 8 "D";
    TIMESTAMP: 1114 "timestamp" "timestamp without time zone" 1115 8 "D";
    TIMESTAMPTZ: 1184 "timestamptz" "timestamp with time zone" 1185 8 "D";
    INTERVAL: 1186 "interval" "interval" 1187 16 "T";
    NUMERIC: 1700 "numeric" "numeric" 1231 -1 "N";
    UUID: 2950 "uuid" "uuid" 2951 16 "U";
    JSONB: 3802 "jsonb" "jsonb" 3807 -1 "U";
}

/// The type by its number.
pub(crate) fn by_oid(oid: u32) -> Option<SqlType> {
    ALL.iter().find(|known| known.oid == oid).copied()
}

/// What a column of this Arrow type is, and whether it is an array of that.
pub(crate) fn of_arrow(arrow: &DataType) -> (SqlType, bool) {
    match arrow {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            // Arrays of arrays have the type of the innermost; JSON is the honest form of what is deeper or not scalar.
            match of_arrow(item.data_type()) {
                (JSON, _) | (_, true) => (JSON, false),
                (scalar, false) => (scalar, true),
            }
        }
        other => (scalar(other), false),
    }
}

fn scalar(arrow: &DataType) -> SqlType {
    match arrow {
        DataType::Boolean => BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => INT2,
        DataType::Int32 | DataType::UInt16 => INT4,
        DataType::Int64 | DataType::UInt32 => INT8,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => NUMERIC,
        DataType::Float16 | DataType::Float32 => FLOAT4,
        DataType::Float64 => FLOAT8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            BYTEA
        }
        DataType::Date32 | DataType::Date64 => DATE,
        DataType::Time32(_) | DataType::Time64(_) => TIME,
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        DataType::Dictionary(_, values) => scalar(values),
        DataType::Map(..) | DataType::Struct(_) | DataType::Union(..) => JSON,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => JSON,
        _ => TEXT,
    }
}

/// What a parameter of this type is in Arrow.
pub(crate) fn to_arrow(oid: u32) -> DataType {
    match by_oid(oid) {
        Some(BOOL) => DataType::Boolean,
        Some(BYTEA) => DataType::Binary,
        Some(INT2) => DataType::Int16,
        Some(INT4) => DataType::Int32,
        Some(INT8 | OID) => DataType::Int64,
        Some(FLOAT4) => DataType::Float32,
        Some(FLOAT8) => DataType::Float64,
        Some(DATE) => DataType::Date32,
        Some(TIME) => DataType::Time64(TimeUnit::Microsecond),
        Some(TIMESTAMP) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Some(TIMESTAMPTZ) => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        Some(INTERVAL) => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use beeacon_record::schema::log_schema;
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn columns_of_logs_have_the_types_that_clients_of_postgresql_expect() {
        let schema = log_schema();
        let of = |name: &str| of_arrow(schema.field_with_name(name).unwrap().data_type());
        assert_eq!(of("timestamp"), (TIMESTAMPTZ, false));
        assert_eq!(of("service"), (TEXT, false));
        assert_eq!(of("position_minor"), (NUMERIC, false));
        assert_eq!(of("attributes"), (JSON, false));
        assert_eq!(of("redactions"), (JSON, false), "a list of structs is JSON");
    }

    #[test]
    fn lists_of_scalars_are_arrays_and_deeper_ones_are_json() {
        let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
        assert_eq!(of_arrow(&list(DataType::Int64)), (INT8, true));
        assert_eq!(of_arrow(&list(list(DataType::Int64))), (JSON, false));
    }

    #[test]
    fn every_type_is_found_by_its_number() {
        for known in ALL {
            assert_eq!(by_oid(known.oid), Some(*known));
        }
        assert_eq!(by_oid(1), None);
    }
}
