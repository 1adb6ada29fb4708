// What JDBC programs do with the PostgreSQL door: they describe the tables through the driver, bind values, read in portions, cancel. DBeaver
// is such a program; how it reads the catalog is at the end. Prints "done", or fails at what does not hold.

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

public class Jdbc {
    static final OffsetDateTime NOON = OffsetDateTime.of(2026, 1, 5, 12, 0, 0, 0, ZoneOffset.UTC);

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/beeacon?user=ada&sslmode=prefer&ApplicationName=jdbc";
        for (String more : new String[] {"", "&binaryTransfer=false", "&preferQueryMode=simple"}) {
            try (Connection connection = DriverManager.getConnection(url + more)) {
                values(connection);
                transactions(connection);
                if (!more.contains("simple")) {
                    portions(connection);
                }
                if (more.isEmpty()) {
                    cancelled(connection);
                    described(connection.getMetaData());
                    browsed(connection);
                }
                same(true, connection.isValid(5));
            }
        }
        System.out.println("done");
    }

    static void values(Connection connection) throws SQLException {
        // More often than the driver waits before it keeps a statement prepared and asks for binary values.
        try (PreparedStatement counted = connection.prepareStatement("select count(*) from logs where service = ? and timestamp >= ?")) {
            for (int round = 0; round < 8; round++) {
                counted.setString(1, round % 2 == 0 ? "web" : "db");
                counted.setObject(2, NOON);
                same(List.of(round % 2 == 0 ? "3" : "1"), column(counted.executeQuery()));
            }
            counted.setTimestamp(2, Timestamp.from(NOON.plusMinutes(7).toInstant()));
            counted.setString(1, "web");
            same(List.of("1"), column(counted.executeQuery()));
        }
        String all = "select ?::smallint, ?::int, ?::bigint, ?::real, ?::double precision, ?::numeric, ?::boolean, ?::text, ?::timestamptz, ?::date, ?::text";
        try (PreparedStatement statement = connection.prepareStatement(all)) {
            for (int round = 0; round < 8; round++) {
                statement.setShort(1, (short) -7);
                statement.setInt(2, 1 << 30);
                statement.setLong(3, Long.MIN_VALUE + 1);
                statement.setFloat(4, 1.5f);
                statement.setDouble(5, -2.25);
                statement.setBigDecimal(6, new BigDecimal("12.50"));
                statement.setBoolean(7, true);
                statement.setString(8, "ü' \\ \"");
                statement.setObject(9, NOON);
                statement.setObject(10, NOON.toLocalDate());
                statement.setNull(11, Types.VARCHAR);
                ResultSet rows = statement.executeQuery();
                same(true, rows.next());
                same((short) -7, rows.getShort(1));
                same(1 << 30, rows.getInt(2));
                same(Long.MIN_VALUE + 1, rows.getLong(3));
                same(1.5f, rows.getFloat(4));
                same(-2.25, rows.getDouble(5));
                same(0, new BigDecimal("12.5").compareTo(rows.getBigDecimal(6)));
                same(true, rows.getBoolean(7));
                same("ü' \\ \"", rows.getString(8));
                same(NOON, rows.getObject(9, OffsetDateTime.class));
                same(NOON.toLocalDate(), rows.getObject(10, java.time.LocalDate.class));
                same(null, rows.getString(11));
                same(false, rows.next());
            }
        }
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery(
                        "select timestamp, service, position_major, redactions, array_agg(service) over () as services from logs where message = 'one'")) {
            ResultSetMetaData described = rows.getMetaData();
            List<String> types = new ArrayList<>();
            for (int column = 1; column <= described.getColumnCount(); column++) {
                types.add(described.getColumnName(column) + " " + described.getColumnTypeName(column));
            }
            same(List.of("timestamp timestamptz", "service text", "position_major numeric", "redactions json", "services _text"), types);
            same(true, rows.next());
            same(NOON, rows.getObject(1, OffsetDateTime.class));
            same("[{\"rule\":\"email\",\"count\":2}]", rows.getString(4));
            same(List.of("web"), Arrays.asList((Object[]) rows.getArray(5).getArray()));
        }
    }

    static void transactions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        same("42P01", stateOf(connection, "select 1 from nowhere"));
        same("25P02", stateOf(connection, "select 1"));
        connection.rollback();
        same("25006", stateOf(connection, "delete from logs"));
        connection.rollback();
        same(List.of("4"), column(connection, "select count(*) from logs"));
        connection.commit();
        connection.setAutoCommit(true);
        connection.setReadOnly(true);
        same(List.of("4"), column(connection, "select count(*) from logs"));
        connection.setReadOnly(false);
        same("42601", stateOf(connection, "selec 1"));
    }

    // The driver asks for so many rows at a time, within a transaction.
    static void portions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(1_000);
            ResultSet rows = statement.executeQuery("select value from generate_series(1, 20500)");
            long sum = 0;
            while (rows.next()) {
                sum += rows.getLong(1);
            }
            same(20_500L * 20_501 / 2, sum);
            statement.setMaxRows(10);
            same(10, column(statement.executeQuery("select value from generate_series(1, 20500)")).size());
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void cancelled(Connection connection) throws SQLException {
        String endless = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b";
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery(endless);
            throw new AssertionError("answered");
        } catch (SQLException error) {
            same("57014", error.getSQLState());
        }
        same(List.of("4"), column(connection, "select count(*) from logs"));
    }

    static void described(DatabaseMetaData data) throws SQLException {
        same("PostgreSQL", data.getDatabaseProductName());
        same(15, data.getDatabaseMajorVersion());
        List<String> tables = new ArrayList<>();
        ResultSet rows = data.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"});
        while (rows.next()) {
            tables.add(rows.getString("TABLE_NAME") + " " + rows.getString("TABLE_TYPE"));
        }
        same(List.of("gaps TABLE", "logs TABLE", "redactions VIEW"), tables);
        List<String> columns = new ArrayList<>();
        rows = data.getColumns(null, "public", "logs", "%");
        while (rows.next()) {
            columns.add(rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME") + " " + rows.getString("IS_NULLABLE"));
        }
        same(18, columns.size());
        same("timestamp timestamptz NO", columns.get(0));
        same(true, columns.contains("message text NO"));
        same(true, columns.contains("attributes json NO"));
        same(true, columns.contains("position_minor numeric NO"));
        same(List.of("beeacon"), named(data.getCatalogs(), "TABLE_CAT"));
        same(true, named(data.getSchemas(), "TABLE_SCHEM").contains("public"));
        same(true, named(data.getTableTypes(), "TABLE_TYPE").contains("TABLE"));
        same(true, named(data.getTypeInfo(), "TYPE_NAME").containsAll(List.of("text", "int8", "timestamptz", "json")));
        same(true, named(data.getFunctions(null, null, "time_bucket"), "FUNCTION_NAME").contains("time_bucket"));
        // There are none of these.
        same(List.of(), named(data.getPrimaryKeys(null, "public", "logs"), "COLUMN_NAME"));
        same(List.of(), named(data.getIndexInfo(null, "public", "logs", false, true), "INDEX_NAME"));
        same(List.of(), named(data.getImportedKeys(null, "public", "logs"), "FK_NAME"));
        same(List.of(), named(data.getExportedKeys(null, "public", "logs"), "FK_NAME"));
        same(List.of(), named(data.getUDTs(null, "public", "%", null), "TYPE_NAME"));
        same(List.of(), named(data.getBestRowIdentifier(null, "public", "logs", DatabaseMetaData.bestRowSession, true), "COLUMN_NAME"));
        data.getTablePrivileges(null, "public", "logs").close();
        data.getColumnPrivileges(null, "public", "logs", "%").close();
        data.getProcedures(null, "public", "%").close();
        same(true, data.getSQLKeywords().length() > 0);
        same(63, data.getMaxColumnNameLength());
        same(true, data.getUserName().equals("ada"));
    }

    // A tool that browses reads the catalog itself: all of a row, with what is said of it elsewhere, by the number of its schema or table.
    static void browsed(Connection connection) throws SQLException {
        same(List.of("public"), column(connection, "select current_schema(), session_user"));
        same(true, column(connection, "show search_path").get(0).contains("public"));
        same(List.of("beeacon"), column(connection,
                "select db.datname, db.oid, db.* from pg_catalog.pg_database db where db.datallowconn and not db.datistemplate order by db.datname"));
        same(1, column(connection, "select db.oid, db.* from pg_catalog.pg_database db where db.datname = ?", "beeacon").size());
        same(List.of("on"), column(connection, "select setting, s.* from pg_catalog.pg_settings s where name = ?", "standard_conforming_strings"));
        same(List.of(), column(connection, "select typcategory from pg_catalog.pg_type where 1 <> 1 limit 1"));
        same(true, column(connection, "select a.rolname, a.oid, a.* from pg_catalog.pg_roles a order by a.rolname").contains("beeacon"));
        same(1, column(connection, "select string_agg(word, ',') from pg_catalog.pg_get_keywords() where word <> all ('{select,from}'::text[])").size());
        List<String> schemas = column(connection, "select n.nspname, n.oid, n.*, d.description from pg_catalog.pg_namespace n "
                + "left outer join pg_catalog.pg_description d on d.objoid = n.oid and d.objsubid = 0 and d.classoid = 'pg_namespace'::regclass order by n.nspname");
        same(true, schemas.containsAll(List.of("public", "pg_catalog", "information_schema")));
        long space = Long.parseLong(column(connection, "select oid from pg_catalog.pg_namespace where nspname = 'public'").get(0));
        same(List.of("gaps", "logs", "redactions"), column(connection, "select c.relname, c.oid, c.*, d.description, "
                + "pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key "
                + "from pg_catalog.pg_class c left outer join pg_catalog.pg_description d on d.objoid = c.oid and d.objsubid = 0 "
                + "and d.classoid = 'pg_class'::regclass where c.relnamespace = ? and c.relkind not in ('i', 'I', 'c') order by c.relname", space));
        long logs = Long.parseLong(column(connection, "select c.oid from pg_catalog.pg_class c where c.relnamespace = ? and c.relname = 'logs'", space).get(0));
        List<String> columns = column(connection, "select a.attname, c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value, "
                + "dsc.description, dep.objid from pg_catalog.pg_attribute a inner join pg_catalog.pg_class c on a.attrelid = c.oid "
                + "left outer join pg_catalog.pg_attrdef ad on a.attrelid = ad.adrelid and a.attnum = ad.adnum "
                + "left outer join pg_catalog.pg_description dsc on c.oid = dsc.objoid and a.attnum = dsc.objsubid "
                + "left outer join pg_catalog.pg_depend dep on dep.refobjid = a.attrelid and dep.deptype = 'i' and dep.refobjsubid = a.attnum "
                + "and dep.classid = dep.refclassid where not a.attisdropped and c.oid = ? order by a.attnum", logs);
        same(18, columns.size());
        same("timestamp", columns.get(0));
        same(List.of(), column(connection, "select c.conname, c.oid, c.*, t.relname as tabrelname, rt.relnamespace as refnamespace, d.description "
                + "from pg_catalog.pg_constraint c inner join pg_catalog.pg_class t on t.oid = c.conrelid left outer join pg_catalog.pg_class rt on rt.oid = c.confrelid "
                + "left outer join pg_catalog.pg_description d on d.objoid = c.oid and d.objsubid = 0 and d.classoid = 'pg_constraint'::regclass "
                + "where c.conrelid = ? order by c.oid", logs));
        same(List.of(), column(connection, "select c.relname, i.*, i.indkey as keys, c.relnamespace, c.relam, tc.relname as tabrelname, dsc.description, "
                + "pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr from pg_catalog.pg_index i "
                + "inner join pg_catalog.pg_class c on c.oid = i.indexrelid inner join pg_catalog.pg_class tc on tc.oid = i.indrelid "
                + "left outer join pg_catalog.pg_description dsc on i.indexrelid = dsc.objoid where i.indrelid = ? order by c.relname", logs));
        same(true, column(connection, "select t.typname, t.oid, t.*, c.relkind, format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description "
                + "from pg_catalog.pg_type t left outer join pg_catalog.pg_type et on et.oid = t.typelem left outer join pg_catalog.pg_class c on c.oid = t.typrelid "
                + "left outer join pg_catalog.pg_description d on t.oid = d.objoid where t.typname is not null and (c.relkind is null or c.relkind = 'c') "
                + "and (et.typcategory is null or et.typcategory <> 'C')").contains("timestamptz"));
        column(connection, "select p.proname, p.oid, p.*, d.description from pg_catalog.pg_proc p left outer join pg_catalog.pg_description d on d.objoid = p.oid "
                + "where p.pronamespace = ? order by p.proname", space);
        for (String none : List.of("pg_trigger", "pg_rewrite", "pg_enum", "pg_collation", "pg_tablespace", "pg_language", "pg_extension", "pg_am")) {
            column(connection, "select x.oid, x.* from pg_catalog." + none + " x");
        }
        same(4, column(connection, "select x.service, x.* from public.logs x").size());
    }

    static String stateOf(Connection connection, String query) {
        try (Statement statement = connection.createStatement()) {
            statement.execute(query);
            return "answered";
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    static List<String> column(Connection connection, String query, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int place = 0; place < values.length; place++) {
                statement.setObject(place + 1, values[place]);
            }
            return column(statement.executeQuery());
        } catch (SQLException error) {
            throw new SQLException(query, error.getSQLState(), error);
        }
    }

    // The first column as text.
    static List<String> column(ResultSet rows) throws SQLException {
        List<String> all = new ArrayList<>();
        while (rows.next()) {
            all.add(rows.getString(1));
        }
        return all;
    }

    static List<String> named(ResultSet rows, String column) throws SQLException {
        List<String> all = new ArrayList<>();
        while (rows.next()) {
            all.add(rows.getString(column));
        }
        return all;
    }

    static void same(Object expected, Object found) {
        if (!Objects.equals(expected, found)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }
}
