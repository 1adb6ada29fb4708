"""What a Python program does with the PostgreSQL door. It prints "done", or fails at what does not hold."""
import datetime
import decimal
import sys

import psycopg

utc = datetime.timezone.utc
noon = datetime.datetime(2026, 1, 5, 12, tzinfo=utc)
with psycopg.connect(f"host=127.0.0.1 port={sys.argv[1]} user=ada dbname=beeacon sslmode=prefer") as connection:
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)

        def one(query, *values):
            return cursor.execute(query, values).fetchone()

        assert one("select count(*) from logs where service = %s", "web") == (3,)
        assert one("select count(*) from logs where timestamp >= %s and timestamp < %s",
                   noon, noon + datetime.timedelta(minutes=5)) == (2,)
        assert one("select min(timestamp), max(service) from logs where service = %s", "web") == (noon, "web")
        row = one("select 1::smallint, 2::int, 3::bigint, 1.5::real, 2.25::double precision, true, 'text', null")
        assert row == (1, 2, 3, 1.5, 2.25, True, "text", None), row
        row = one("select 1.50::decimal(10,2), date '2026-01-05', timestamp '2026-01-05 12:00:00.25', interval '2 days 3 hours'")
        assert row == (decimal.Decimal("1.50"), datetime.date(2026, 1, 5),
                       datetime.datetime(2026, 1, 5, 12, 0, 0, 250000), datetime.timedelta(days=2, hours=3)), row
        assert one("select array_agg(distinct service order by service) from logs") == (["db", "web"],)
        assert one("select attributes, redactions from logs where message = %s", "one") == (
            {"trace_id": "t0"}, [{"rule": "email", "count": 2}])
        assert one("select position_minor from logs where service = %s", "db")[0] > 0
        assert one("select count(*) from logs where position_minor > %s", decimal.Decimal(0)) == (4,)
        assert one("select %s::text || 'x', %s::bigint + 1, %s::boolean", "ü'", 41, False) == ("ü'x", 42, False)
        cursor.execute("select service as s, count(*) from logs group by 1 order by 1")
        assert [column.name for column in cursor.description] == ["s", "count"], cursor.description
        assert cursor.fetchall() == [("db", 1), ("web", 3)]
        # Prepared once, run with different values.
        for service, expected in [("web", 3), ("db", 1), ("none", 0)] * 3:
            assert cursor.execute("select count(*) from logs where service = %s", (service,), prepare=True).fetchone() == (expected,)
        # An error within a transaction leaves the connection usable.
        connection.commit()
        try:
            one("select 1 from nowhere")
            raise AssertionError("answered")
        except psycopg.errors.UndefinedTable:
            connection.rollback()
        try:
            one("delete from logs")
            raise AssertionError("answered")
        except psycopg.errors.ReadOnlySqlTransaction:
            connection.rollback()
        assert one("select count(*) from logs") == (4,)
        rows = 0
        for _ in cursor.stream("select value from generate_series(1, 100000)"):
            rows += 1
        assert rows == 100_000
        connection.commit()
    with connection.pipeline():
        first = connection.execute("select 1")
        second = connection.execute("select count(*) from logs")
    assert (first.fetchone(), second.fetchone()) == ((1,), (4,))
print("done")
