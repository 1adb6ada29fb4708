// What Go programs do with the PostgreSQL door, through both drivers of that language: lib/pq and pgx. Grafana's data source is such a program.
// Prints "done", or fails at what does not hold.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	_ "github.com/jackc/pgx/v4/stdlib"
	"github.com/lib/pq"
)

var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

const endless = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b"

func main() {
	port := os.Args[1]
	for _, driver := range []string{"postgres", "pgx"} {
		// lib/pq knows no "prefer": it is told that there is no TLS on this host.
		database, err := sql.Open(driver, "host=127.0.0.1 port="+port+" user=ada dbname=beeacon sslmode=disable application_name=go")
		must(err)
		values(database)
		frames(database)
		faults(database)
		cancelled(database)
		must(database.Close())
	}
	natively(port)
	fmt.Println("done")
}

func values(database *sql.DB) {
	statement, err := database.Prepare("select count(*), min(timestamp) from logs where service = $1 and timestamp >= $2")
	must(err)
	for round := 0; round < 6; round++ {
		var count int64
		var first time.Time
		must(statement.QueryRow("web", noon).Scan(&count, &first))
		same(int64(3), count)
		same(true, first.Equal(noon))
	}
	must(statement.Close())
	var small int16
	var whole int64
	var real float64
	var flag bool
	var text string
	var none sql.NullString
	var when time.Time
	row := database.QueryRow("select $1::smallint, $2::bigint, $3::double precision, $4::boolean, $5::text, $6::text, $7::timestamptz",
		-7, int64(1)<<62, 2.25, true, "ü' \\", nil, noon)
	must(row.Scan(&small, &whole, &real, &flag, &text, &none, &when))
	same([]interface{}{int16(-7), int64(1) << 62, 2.25, true, "ü' \\", false}, []interface{}{small, whole, real, flag, text, none.Valid})
	same(true, when.Equal(noon))
	var redactions, services string
	must(database.QueryRow("select redactions::text, array_to_string(array_agg(service), ',') from logs where message = 'one' group by 1").Scan(&redactions, &services))
	same(`[{"rule":"email","count":2}]`, redactions)
	same("web", services)
}

// Grafana turns rows into frames by the names that the driver gives to the columns' types.
func frames(database *sql.DB) {
	rows, err := database.Query("select time_bucket('60.000s', timestamp) as \"time\", service as metric, count(*) as value, avg(length(message)) as mean, " +
		"bool_or(level = 'error') as bad, position_major from logs where timestamp between '2026-01-05T12:00:00Z' and '2026-01-05T13:00:00Z' group by 1, 2, 6 order by 1, 2")
	must(err)
	types, err := rows.ColumnTypes()
	must(err)
	names := []string{}
	for _, column := range types {
		names = append(names, column.Name()+" "+column.DatabaseTypeName())
	}
	same([]string{"time TIMESTAMPTZ", "metric TEXT", "value INT8", "mean FLOAT8", "bad BOOL", "position_major NUMERIC"}, names)
	count := 0
	for rows.Next() {
		var at time.Time
		var metric, position string
		var value int64
		var mean float64
		var bad bool
		must(rows.Scan(&at, &metric, &value, &mean, &bad, &position))
		count++
	}
	must(rows.Err())
	same(4, count)
}

func faults(database *sql.DB) {
	for query, state := range map[string]string{
		"select 1 from nowhere": "42P01", "delete from logs": "25006", "selec 1": "42601", "select 1/0": "22012", "set work_mem = '1GB'": "42704",
	} {
		_, err := database.Exec(query)
		same(state, stateOf(err))
	}
	transaction, err := database.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true})
	must(err)
	var count int64
	must(transaction.QueryRow("select count(*) from logs").Scan(&count))
	same(int64(4), count)
	must(transaction.Commit())
}

// A dashboard that is left cancels what it asked.
func cancelled(database *sql.DB) {
	limited, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer stop()
	_, err := database.QueryContext(limited, endless)
	if err == nil {
		panic("answered")
	}
	var count int64
	must(database.QueryRow("select count(*) from logs").Scan(&count))
	same(int64(4), count)
}

// pgx without database/sql asks for binary values of every type it knows, and has a simple mode.
func natively(port string) {
	for _, simple := range []bool{false, true} {
		config, err := pgx.ParseConfig("host=127.0.0.1 port=" + port + " user=ada dbname=beeacon sslmode=prefer")
		must(err)
		config.PreferSimpleProtocol = simple
		connection, err := pgx.ConnectConfig(context.Background(), config)
		must(err)
		var at time.Time
		var services []string
		var attributes map[string]string
		var number float64
		row := connection.QueryRow(context.Background(), "select timestamp, array[service, host], attributes, position_minor::double precision from logs where service = $1", "db")
		must(row.Scan(&at, &services, &attributes, &number))
		same(true, at.Equal(noon.Add(400*time.Second+123456*time.Microsecond)))
		same([]string{"db", "h1"}, services)
		same(map[string]string{"trace_id": "t2"}, attributes)
		batch := &pgx.Batch{}
		batch.Queue("select count(*) from logs")
		batch.Queue("select count(*) from logs where service = $1", "web")
		results := connection.SendBatch(context.Background(), batch)
		for _, expected := range []int64{4, 3} {
			var count int64
			must(results.QueryRow().Scan(&count))
			same(expected, count)
		}
		must(results.Close())
		must(connection.Close(context.Background()))
	}
}

func stateOf(err error) string {
	var of_pq *pq.Error
	var of_pgx *pgconn.PgError
	switch {
	case errors.As(err, &of_pq):
		return string(of_pq.Code)
	case errors.As(err, &of_pgx):
		return of_pgx.Code
	}
	return fmt.Sprint(err)
}

func same(expected, found interface{}) {
	if !reflect.DeepEqual(expected, found) {
		panic(fmt.Sprintf("expected %v, found %v", expected, found))
	}
}

func must(err error) {
	if err != nil {
		panic(strings.TrimSpace(err.Error()))
	}
}
