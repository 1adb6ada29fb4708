//! The rows of `pg_catalog` and `information_schema`.
//!
//! Numbers of relations are made from their place in a list, so they are the same after every start: a client may keep them for as
//! long as the version does not change.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use datafusion::arrow::datatypes::DataType;

use super::{Cell, Columns, DATABASE, OWNER, PUBLIC, Relation, SystemTable, TIMESCALE_VERSION};
use crate::sql_type::{self, SqlType};

const PG_CATALOG_OID: i64 = 11;
const PUBLIC_OID: i64 = 2200;
const INFORMATION_SCHEMA_OID: i64 = 13_000;
const DATABASE_OID: i64 = 16_384;
const OWNER_OID: i64 = 10;
const HEAP_OID: i64 = 2;
/// Where the numbers of tables with data begin: PostgreSQL's first of users' objects, after the database.
const RELATION_OID_FIRST: i64 = 16_400;
/// Where those of the catalog's own tables begin.
const SYSTEM_OID_FIRST: i64 = 12_000;
const FUNCTION_OID_FIRST: i64 = 14_000;
const EXTENSION_OID: i64 = 15_900;

macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(Cell::from($cell)),*] };
}

impl From<Option<()>> for Cell {
    fn from(_: Option<()>) -> Self {
        Cell::Null
    }
}

impl From<f64> for Cell {
    fn from(real: f64) -> Self {
        Cell::Real(real)
    }
}

const NONE: Option<()> = None;

static RELATIONS: OnceLock<Vec<(&'static str, i64)>> = OnceLock::new();

/// The names of the relations that programs bring, in the order in which they came: their numbers follow from it.
static BROUGHT: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// Where the numbers of those begin.
const BROUGHT_OID_FIRST: i64 = 16_700;

fn brought() -> MutexGuard<'static, Vec<&'static str>> {
    BROUGHT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn brought_oid(index: usize) -> i64 {
    BROUGHT_OID_FIRST + i64::try_from(index).unwrap_or_default()
}

/// A table's number; what is named may be qualified.
pub(super) fn relation_oid(name: &str) -> Option<i64> {
    let bare = name.strip_prefix("public.").or_else(|| name.strip_prefix("pg_catalog.")).unwrap_or(name);
    let bare = bare.trim_matches('"');
    let known = RELATIONS.get()?.iter().find(|(known, _)| *known == bare).map(|(_, oid)| *oid);
    known.or_else(|| brought().iter().position(|known| *known == bare).map(brought_oid))
}

pub(super) fn relation_name(oid: i64) -> Option<&'static str> {
    let known = RELATIONS.get()?.iter().find(|(_, known)| *known == oid).map(|(name, _)| *name);
    let index = || usize::try_from(oid - BROUGHT_OID_FIRST).ok();
    known.or_else(|| brought().get(index()?).copied())
}

pub(super) fn pg_catalog(relations: &[Relation], functions: &[(String, &'static str)]) -> Vec<SystemTable> {
    let full: [(&'static str, Columns); 14] = [
        ("pg_namespace", NAMESPACE),
        ("pg_class", CLASS),
        ("pg_attribute", ATTRIBUTE),
        ("pg_type", TYPE),
        ("pg_database", DATABASES),
        ("pg_roles", ROLES),
        ("pg_user", USER),
        ("pg_settings", SETTINGS),
        ("pg_am", ACCESS_METHOD),
        ("pg_extension", EXTENSION),
        ("pg_proc", FUNCTION),
        ("pg_tables", TABLES),
        ("pg_views", VIEWS),
        ("pg_tablespace", TABLESPACE),
    ];
    let numbered = |index: usize, first: i64| first + i64::try_from(index).unwrap_or_default();
    let own = relations.iter().filter(|relation| !relation.is_brought);
    let users = own.enumerate().map(|(index, r)| (r.name, numbered(index, RELATION_OID_FIRST)));
    let systems = full.iter().map(|(name, _)| *name).chain(EMPTY.iter().map(|(name, _)| *name));
    let systems = systems.enumerate().map(|(index, name)| (name, numbered(index, SYSTEM_OID_FIRST)));
    let all = RELATIONS.get_or_init(|| users.chain(systems).collect());
    {
        let mut brought = brought();
        for relation in relations.iter().filter(|relation| relation.is_brought) {
            if !brought.contains(&relation.name) && !all.iter().any(|(known, _)| *known == relation.name) {
                brought.push(relation.name);
            }
        }
    }
    let oid = |name: &str| relation_oid(name).unwrap_or(0);

    let mut class = Vec::new();
    let mut attribute = Vec::new();
    for relation in relations {
        let kind = if relation.is_view { "v" } else { "r" };
        let fields = relation.schema.fields();
        class.push(class_row(relation.name, oid(relation.name), PUBLIC_OID, kind, fields.len()));
        for (index, field) in fields.iter().enumerate() {
            let (sql, is_array) = sql_type::of_arrow(field.data_type());
            let not_null = !field.is_nullable();
            attribute.push(attribute_row(oid(relation.name), field.name(), index, sql, is_array, not_null));
        }
    }
    for (name, columns) in full.iter().chain(EMPTY) {
        class.push(class_row(name, oid(name), PG_CATALOG_OID, "r", columns.len()));
        for (index, (column, kind)) in columns.iter().enumerate() {
            let (sql, is_array) = sql_type::of_arrow(&super::data_type(*kind));
            attribute.push(attribute_row(oid(name), column, index, sql, is_array, false));
        }
    }
    let rows_of = |name: &str| -> Vec<Vec<Cell>> {
        match name {
            "pg_namespace" => vec![
                row![PG_CATALOG_OID, "pg_catalog", OWNER_OID, NONE],
                row![PUBLIC_OID, PUBLIC, OWNER_OID, NONE],
                row![INFORMATION_SCHEMA_OID, "information_schema", OWNER_OID, NONE],
            ],
            "pg_class" => class.clone(),
            "pg_attribute" => attribute.clone(),
            "pg_type" => sql_type::ALL.iter().flat_map(type_rows).collect(),
            "pg_database" => vec![row![
                DATABASE_OID,
                DATABASE,
                OWNER_OID,
                6_i64,
                "C.UTF-8",
                "C.UTF-8",
                NONE,
                "c",
                false,
                true,
                -1_i64,
                1663_i64,
                NONE
            ]],
            "pg_roles" => vec![row![
                OWNER_OID, OWNER, false, true, false, false, true, false, -1_i64, NONE, NONE, false, NONE
            ]],
            "pg_user" => vec![row![OWNER, OWNER_OID, false, false, false, false, NONE, NONE, NONE]],
            "pg_settings" => crate::postgres::settings::shown()
                .into_iter()
                .map(|(name, value)| {
                    row![name, value.as_str(), NONE, "Beeacon", "", "user", "string", "default", false]
                })
                .collect(),
            "pg_am" => vec![row![HEAP_OID, "heap", "heap_tableam_handler", "t"]],
            "pg_extension" => vec![row![
                EXTENSION_OID,
                "timescaledb",
                OWNER_OID,
                PUBLIC_OID,
                false,
                TIMESCALE_VERSION,
                NONE,
                NONE
            ]],
            "pg_proc" => functions
                .iter()
                .enumerate()
                .map(|(index, (name, kind))| {
                    let oid = numbered(index, FUNCTION_OID_FIRST);
                    row![oid, name.as_str(), PG_CATALOG_OID, OWNER_OID, *kind, false, 0_i64, 0_i64, NONE]
                })
                .collect(),
            "pg_tables" => relations
                .iter()
                .filter(|relation| !relation.is_view)
                .map(|relation| row![PUBLIC, relation.name, OWNER, NONE, false, false, false, false])
                .collect(),
            "pg_views" => relations
                .iter()
                .filter(|relation| relation.is_view)
                .map(|relation| row![PUBLIC, relation.name, OWNER, NONE])
                .collect(),
            "pg_tablespace" => vec![row![1663_i64, "pg_default", OWNER_OID, NONE, NONE]],
            _ => Vec::new(),
        }
    };
    let full = full.iter().map(|(name, columns)| SystemTable { name, columns, rows: rows_of(name) });
    let empty = EMPTY.iter().map(|(name, columns)| SystemTable { name, columns, rows: Vec::new() });
    full.chain(empty).collect()
}

const NAMESPACE: Columns = &[("oid", 'n'), ("nspname", 't'), ("nspowner", 'n'), ("nspacl", 'l')];

const CLASS: Columns = &[
    ("oid", 'n'),
    ("relname", 't'),
    ("relnamespace", 'n'),
    ("reltype", 'n'),
    ("reloftype", 'n'),
    ("relowner", 'n'),
    ("relam", 'n'),
    ("relfilenode", 'n'),
    ("reltablespace", 'n'),
    ("relpages", 'n'),
    ("reltuples", 'r'),
    ("reltoastrelid", 'n'),
    ("relhasindex", 'f'),
    ("relisshared", 'f'),
    ("relpersistence", 't'),
    ("relkind", 't'),
    ("relnatts", 'n'),
    ("relchecks", 'n'),
    ("relhasrules", 'f'),
    ("relhastriggers", 'f'),
    ("relhassubclass", 'f'),
    ("relrowsecurity", 'f'),
    ("relforcerowsecurity", 'f'),
    ("relispopulated", 'f'),
    ("relreplident", 't'),
    ("relispartition", 'f'),
    ("relacl", 'l'),
    ("reloptions", 'l'),
    ("relpartbound", 't'),
];

fn class_row(name: &str, oid: i64, namespace: i64, kind: &str, columns: usize) -> Vec<Cell> {
    let columns = i64::try_from(columns).unwrap_or_default();
    let access_method = if kind == "r" { HEAP_OID } else { 0 };
    row![
        oid,
        name,
        namespace,
        0_i64,
        0_i64,
        OWNER_OID,
        access_method,
        0_i64,
        0_i64,
        0_i64,
        -1.0,
        0_i64,
        false,
        false,
        "p",
        kind,
        columns,
        0_i64,
        false,
        false,
        false,
        false,
        false,
        true,
        "n",
        false,
        NONE,
        NONE,
        NONE,
    ]
}

const ATTRIBUTE: Columns = &[
    ("attrelid", 'n'),
    ("attname", 't'),
    ("atttypid", 'n'),
    ("attstattarget", 'n'),
    ("attlen", 'n'),
    ("attnum", 'n'),
    ("attndims", 'n'),
    ("atttypmod", 'n'),
    ("attstorage", 't'),
    ("attcompression", 't'),
    ("attnotnull", 'f'),
    ("atthasdef", 'f'),
    ("attidentity", 't'),
    ("attgenerated", 't'),
    ("attisdropped", 'f'),
    ("attislocal", 'f'),
    ("attinhcount", 'n'),
    ("attcollation", 'n'),
    ("attacl", 'l'),
    ("attoptions", 'l'),
];

fn attribute_row(
    relation: i64,
    name: &str,
    index: usize,
    sql: SqlType,
    is_array: bool,
    not_null: bool,
) -> Vec<Cell> {
    let number = i64::try_from(index).unwrap_or_default() + 1;
    let oid = i64::from(if is_array { sql.array_oid } else { sql.oid });
    let bytes = if is_array { -1 } else { i64::from(sql.bytes) };
    let storage = if bytes < 0 { "x" } else { "p" };
    row![
        relation,
        name,
        oid,
        -1_i64,
        bytes,
        number,
        i64::from(is_array),
        -1_i64,
        storage,
        "",
        not_null,
        false,
        "",
        "",
        false,
        true,
        0_i64,
        0_i64,
        NONE,
        NONE,
    ]
}

const TYPE: Columns = &[
    ("oid", 'n'),
    ("typname", 't'),
    ("typnamespace", 'n'),
    ("typowner", 'n'),
    ("typlen", 'n'),
    ("typtype", 't'),
    ("typcategory", 't'),
    ("typispreferred", 'f'),
    ("typisdefined", 'f'),
    ("typdelim", 't'),
    ("typrelid", 'n'),
    ("typelem", 'n'),
    ("typarray", 'n'),
    ("typinput", 't'),
    ("typnotnull", 'f'),
    ("typbasetype", 'n'),
    ("typtypmod", 'n'),
    ("typndims", 'n'),
    ("typcollation", 'n'),
    ("typdefault", 't'),
    ("typacl", 'l'),
];

/// The type and the array of it.
fn type_rows(sql: &SqlType) -> Vec<Vec<Cell>> {
    let row = |oid: u32, name: &str, bytes: i64, category: &str, item: i64, array: i64, input: &str| {
        row![
            i64::from(oid),
            name,
            PG_CATALOG_OID,
            OWNER_OID,
            bytes,
            "b",
            category,
            false,
            true,
            ",",
            0_i64,
            item,
            array,
            input,
            false,
            0_i64,
            -1_i64,
            0_i64,
            0_i64,
            NONE,
            NONE,
        ]
    };
    let input = format!("{}in", sql.name);
    let bytes = i64::from(sql.bytes);
    let mut rows = vec![row(sql.oid, sql.name, bytes, sql.category, 0, i64::from(sql.array_oid), &input)];
    if sql.array_oid > 0 {
        rows.push(row(sql.array_oid, sql.array_name, -1, "A", i64::from(sql.oid), 0, "array_in"));
    }
    rows
}

const DATABASES: Columns = &[
    ("oid", 'n'),
    ("datname", 't'),
    ("datdba", 'n'),
    ("encoding", 'n'),
    ("datcollate", 't'),
    ("datctype", 't'),
    ("daticulocale", 't'),
    ("datlocprovider", 't'),
    ("datistemplate", 'f'),
    ("datallowconn", 'f'),
    ("datconnlimit", 'n'),
    ("dattablespace", 'n'),
    ("datacl", 'l'),
];

const ROLES: Columns = &[
    ("oid", 'n'),
    ("rolname", 't'),
    ("rolsuper", 'f'),
    ("rolinherit", 'f'),
    ("rolcreaterole", 'f'),
    ("rolcreatedb", 'f'),
    ("rolcanlogin", 'f'),
    ("rolreplication", 'f'),
    ("rolconnlimit", 'n'),
    ("rolpassword", 't'),
    ("rolvaliduntil", 't'),
    ("rolbypassrls", 'f'),
    ("rolconfig", 'l'),
];

const USER: Columns = &[
    ("usename", 't'),
    ("usesysid", 'n'),
    ("usecreatedb", 'f'),
    ("usesuper", 'f'),
    ("userepl", 'f'),
    ("usebypassrls", 'f'),
    ("passwd", 't'),
    ("valuntil", 't'),
    ("useconfig", 'l'),
];

const SETTINGS: Columns = &[
    ("name", 't'),
    ("setting", 't'),
    ("unit", 't'),
    ("category", 't'),
    ("short_desc", 't'),
    ("context", 't'),
    ("vartype", 't'),
    ("source", 't'),
    ("pending_restart", 'f'),
];

const ACCESS_METHOD: Columns = &[("oid", 'n'), ("amname", 't'), ("amhandler", 't'), ("amtype", 't')];

const EXTENSION: Columns = &[
    ("oid", 'n'),
    ("extname", 't'),
    ("extowner", 'n'),
    ("extnamespace", 'n'),
    ("extrelocatable", 'f'),
    ("extversion", 't'),
    ("extconfig", 'l'),
    ("extcondition", 'l'),
];

const FUNCTION: Columns = &[
    ("oid", 'n'),
    ("proname", 't'),
    ("pronamespace", 'n'),
    ("proowner", 'n'),
    ("prokind", 't'),
    ("proretset", 'f'),
    ("pronargs", 'n'),
    ("prorettype", 'n'),
    ("proacl", 'l'),
];

const TABLES: Columns = &[
    ("schemaname", 't'),
    ("tablename", 't'),
    ("tableowner", 't'),
    ("tablespace", 't'),
    ("hasindexes", 'f'),
    ("hasrules", 'f'),
    ("hastriggers", 'f'),
    ("rowsecurity", 'f'),
];

const VIEWS: Columns = &[("schemaname", 't'), ("viewname", 't'), ("viewowner", 't'), ("definition", 't')];

const TABLESPACE: Columns =
    &[("oid", 'n'), ("spcname", 't'), ("spcowner", 'n'), ("spcacl", 'l'), ("spcoptions", 'l')];

/// Tables without rows, with the columns that queries of clients name.
pub(super) const EMPTY: &[(&str, Columns)] = &[
    ("pg_attrdef", &[("oid", 'n'), ("adrelid", 'n'), ("adnum", 'n'), ("adbin", 't')]),
    ("pg_auth_members", &[("roleid", 'n'), ("member", 'n'), ("grantor", 'n'), ("admin_option", 'f')]),
    (
        "pg_cast",
        &[
            ("oid", 'n'),
            ("castsource", 'n'),
            ("casttarget", 'n'),
            ("castfunc", 'n'),
            ("castcontext", 't'),
            ("castmethod", 't'),
        ],
    ),
    ("pg_conversion", &[("oid", 'n'), ("conname", 't'), ("connamespace", 'n')]),
    (
        "pg_default_acl",
        &[
            ("oid", 'n'),
            ("defaclrole", 'n'),
            ("defaclnamespace", 'n'),
            ("defaclobjtype", 't'),
            ("defaclacl", 'l'),
        ],
    ),
    ("pg_db_role_setting", &[("setdatabase", 'n'), ("setrole", 'n'), ("setconfig", 'l')]),
    (
        "pg_operator",
        &[
            ("oid", 'n'),
            ("oprname", 't'),
            ("oprnamespace", 'n'),
            ("oprleft", 'n'),
            ("oprright", 'n'),
            ("oprresult", 'n'),
            ("oprcode", 't'),
        ],
    ),
    ("pg_opclass", &[("oid", 'n'), ("opcname", 't'), ("opcnamespace", 'n'), ("opcmethod", 'n')]),
    ("pg_aggregate", &[("aggfnoid", 'n'), ("aggkind", 't')]),
    (
        "pg_collation",
        &[
            ("oid", 'n'),
            ("collname", 't'),
            ("collnamespace", 'n'),
            ("collprovider", 't'),
            ("collcollate", 't'),
        ],
    ),
    (
        "pg_constraint",
        &[
            ("oid", 'n'),
            ("conname", 't'),
            ("connamespace", 'n'),
            ("contype", 't'),
            ("condeferrable", 'f'),
            ("condeferred", 'f'),
            ("conrelid", 'n'),
            ("conindid", 'n'),
            ("conparentid", 'n'),
            ("confrelid", 'n'),
            ("conkey", 'l'),
            ("confkey", 'l'),
        ],
    ),
    (
        "pg_depend",
        &[
            ("classid", 'n'),
            ("objid", 'n'),
            ("objsubid", 'n'),
            ("refclassid", 'n'),
            ("refobjid", 'n'),
            ("refobjsubid", 'n'),
            ("deptype", 't'),
        ],
    ),
    ("pg_description", &[("objoid", 'n'), ("classoid", 'n'), ("objsubid", 'n'), ("description", 't')]),
    ("pg_shdescription", &[("objoid", 'n'), ("classoid", 'n'), ("description", 't')]),
    ("pg_enum", &[("oid", 'n'), ("enumtypid", 'n'), ("enumsortorder", 'r'), ("enumlabel", 't')]),
    ("pg_event_trigger", &[("oid", 'n'), ("evtname", 't'), ("evtevent", 't'), ("evtowner", 'n')]),
    ("pg_foreign_data_wrapper", &[("oid", 'n'), ("fdwname", 't'), ("fdwowner", 'n'), ("fdwoptions", 'l')]),
    (
        "pg_foreign_server",
        &[("oid", 'n'), ("srvname", 't'), ("srvowner", 'n'), ("srvfdw", 'n'), ("srvoptions", 'l')],
    ),
    ("pg_foreign_table", &[("ftrelid", 'n'), ("ftserver", 'n'), ("ftoptions", 'l')]),
    (
        "pg_index",
        &[
            ("indexrelid", 'n'),
            ("indrelid", 'n'),
            ("indnatts", 'n'),
            ("indisunique", 'f'),
            ("indisprimary", 'f'),
            ("indisclustered", 'f'),
            ("indisvalid", 'f'),
            ("indisreplident", 'f'),
            ("indkey", 'l'),
            ("indpred", 't'),
            ("indexprs", 't'),
        ],
    ),
    ("pg_inherits", &[("inhrelid", 'n'), ("inhparent", 'n'), ("inhseqno", 'n'), ("inhdetachpending", 'f')]),
    ("pg_language", &[("oid", 'n'), ("lanname", 't'), ("lanowner", 'n')]),
    ("pg_largeobject_metadata", &[("oid", 'n'), ("lomowner", 'n')]),
    ("pg_matviews", &[("schemaname", 't'), ("matviewname", 't'), ("matviewowner", 't'), ("definition", 't')]),
    (
        "pg_indexes",
        &[
            ("schemaname", 't'),
            ("tablename", 't'),
            ("indexname", 't'),
            ("tablespace", 't'),
            ("indexdef", 't'),
        ],
    ),
    ("pg_partitioned_table", &[("partrelid", 'n'), ("partstrat", 't'), ("partnatts", 'n')]),
    (
        "pg_policy",
        &[("oid", 'n'), ("polname", 't'), ("polrelid", 'n'), ("polcmd", 't'), ("polpermissive", 'f')],
    ),
    ("pg_publication", &[("oid", 'n'), ("pubname", 't'), ("pubowner", 'n'), ("puballtables", 'f')]),
    ("pg_publication_namespace", &[("oid", 'n'), ("pnpubid", 'n'), ("pnnspid", 'n')]),
    (
        "pg_publication_rel",
        &[("oid", 'n'), ("prpubid", 'n'), ("prrelid", 'n'), ("prqual", 't'), ("prattrs", 'l')],
    ),
    ("pg_range", &[("rngtypid", 'n'), ("rngsubtype", 'n'), ("rngmultitypid", 'n')]),
    (
        "pg_rewrite",
        &[("oid", 'n'), ("rulename", 't'), ("ev_class", 'n'), ("ev_type", 't'), ("ev_enabled", 't')],
    ),
    ("pg_seclabels", &[("objoid", 'n'), ("classoid", 'n'), ("provider", 't'), ("label", 't')]),
    ("pg_sequence", &[("seqrelid", 'n'), ("seqtypid", 'n'), ("seqstart", 'n'), ("seqincrement", 'n')]),
    ("pg_sequences", &[("schemaname", 't'), ("sequencename", 't'), ("sequenceowner", 't')]),
    ("pg_statistic_ext", &[("oid", 'n'), ("stxrelid", 'n'), ("stxname", 't'), ("stxnamespace", 'n')]),
    ("pg_subscription", &[("oid", 'n'), ("subname", 't'), ("subowner", 'n')]),
    (
        "pg_trigger",
        &[
            ("oid", 'n'),
            ("tgrelid", 'n'),
            ("tgname", 't'),
            ("tgenabled", 't'),
            ("tgisinternal", 'f'),
            ("tgparentid", 'n'),
        ],
    ),
];

pub(super) fn information_schema(relations: &[Relation]) -> Vec<SystemTable> {
    let kind = |relation: &Relation| if relation.is_view { "VIEW" } else { "BASE TABLE" };
    let names = [PUBLIC, "pg_catalog", "information_schema"];
    let schemata = names.map(|name| row![DATABASE, name, OWNER, NONE, NONE, NONE, NONE]);
    let tables = relations.iter().map(|r| row![DATABASE, PUBLIC, r.name, kind(r), "NO", "NO"]);
    let views =
        relations.iter().filter(|r| r.is_view).map(|r| row![DATABASE, PUBLIC, r.name, NONE, "NONE", "NO"]);
    let columns = relations.iter().flat_map(|relation| {
        relation.schema.fields().iter().enumerate().map(|(index, field)| {
            column_row(relation.name, field.name(), index, field.data_type(), field.is_nullable())
        })
    });
    let table = |name, columns, rows| SystemTable { name, columns, rows };
    let mut all = vec![
        table("schemata", SCHEMATA, schemata.to_vec()),
        table("tables", INFORMATION_TABLES, tables.collect()),
        table("columns", INFORMATION_COLUMNS, columns.collect()),
        table("views", INFORMATION_VIEWS, views.collect()),
    ];
    all.extend(INFORMATION_EMPTY.iter().map(|(name, columns)| table(name, columns, Vec::new())));
    all
}

const SCHEMATA: Columns = &[
    ("catalog_name", 't'),
    ("schema_name", 't'),
    ("schema_owner", 't'),
    ("default_character_set_catalog", 't'),
    ("default_character_set_schema", 't'),
    ("default_character_set_name", 't'),
    ("sql_path", 't'),
];

const INFORMATION_TABLES: Columns = &[
    ("table_catalog", 't'),
    ("table_schema", 't'),
    ("table_name", 't'),
    ("table_type", 't'),
    ("is_insertable_into", 't'),
    ("is_typed", 't'),
];

const INFORMATION_COLUMNS: Columns = &[
    ("table_catalog", 't'),
    ("table_schema", 't'),
    ("table_name", 't'),
    ("column_name", 't'),
    ("ordinal_position", 'n'),
    ("column_default", 't'),
    ("is_nullable", 't'),
    ("data_type", 't'),
    ("character_maximum_length", 'n'),
    ("numeric_precision", 'n'),
    ("numeric_scale", 'n'),
    ("datetime_precision", 'n'),
    ("udt_catalog", 't'),
    ("udt_schema", 't'),
    ("udt_name", 't'),
    ("is_updatable", 't'),
];

fn column_row(table: &str, name: &str, index: usize, arrow: &DataType, nullable: bool) -> Vec<Cell> {
    let (sql, is_array) = sql_type::of_arrow(arrow);
    let position = i64::try_from(index).unwrap_or_default() + 1;
    let (data_type, udt) = if is_array { ("ARRAY", sql.array_name) } else { (sql.sql_name, sql.name) };
    row![
        DATABASE,
        PUBLIC,
        table,
        name,
        position,
        NONE,
        if nullable { "YES" } else { "NO" },
        data_type,
        NONE,
        NONE,
        NONE,
        NONE,
        DATABASE,
        "pg_catalog",
        udt,
        "NO",
    ]
}

const INFORMATION_VIEWS: Columns = &[
    ("table_catalog", 't'),
    ("table_schema", 't'),
    ("table_name", 't'),
    ("view_definition", 't'),
    ("check_option", 't'),
    ("is_updatable", 't'),
];

const INFORMATION_EMPTY: &[(&str, Columns)] = &[
    (
        "table_constraints",
        &[
            ("constraint_catalog", 't'),
            ("constraint_schema", 't'),
            ("constraint_name", 't'),
            ("table_catalog", 't'),
            ("table_schema", 't'),
            ("table_name", 't'),
            ("constraint_type", 't'),
        ],
    ),
    (
        "key_column_usage",
        &[
            ("constraint_catalog", 't'),
            ("constraint_schema", 't'),
            ("constraint_name", 't'),
            ("table_catalog", 't'),
            ("table_schema", 't'),
            ("table_name", 't'),
            ("column_name", 't'),
            ("ordinal_position", 'n'),
        ],
    ),
    (
        "routines",
        &[("routine_catalog", 't'), ("routine_schema", 't'), ("routine_name", 't'), ("routine_type", 't')],
    ),
];

#[cfg(test)]
mod tests {
    use beeacon_record::schema::log_schema;

    use super::super::SERVER_VERSION;
    use super::*;

    #[test]
    fn every_row_has_a_cell_for_each_of_its_tables_columns() {
        let relations = [Relation { name: "logs", is_view: false, is_brought: false, schema: log_schema() }];
        let tables = pg_catalog(&relations, &[("abs".to_owned(), "f")]);
        let all = tables.into_iter().chain(information_schema(&relations));
        for table in all {
            for row in &table.rows {
                assert_eq!(row.len(), table.columns.len(), "{}", table.name);
            }
            super::super::in_memory(&table).unwrap();
        }
        assert_eq!(relation_oid("public.logs"), Some(RELATION_OID_FIRST));
        assert_eq!(relation_name(RELATION_OID_FIRST), Some("logs"));
        assert_eq!(SERVER_VERSION.split('.').next(), Some("15"));
    }
}
