//! The PostgreSQL door with the drivers of other languages, which speak the extended protocol: prepared statements, values in text and
//! binary, portions of rows. Each program of `clients/` says what its driver does with the lines of [`with_lines`].

use std::path::PathBuf;
use std::process::{Command, Output};

use beeacon_query::PostgresOptions;

use crate::postgres::{Served, has, serve, with_lines};
use crate::world::World;

/// A world with lines and its door.
async fn served() -> (World, Served) {
    let world = with_lines().await;
    let door = serve(&world, PostgresOptions::default()).await;
    (world, door)
}

/// Runs a program that gets the door's port as its last argument, and ends well when it says so.
async fn says_done(mut program: Command) {
    let (world, door) = served().await;
    program.arg(door.address.port().to_string());
    let output = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "done", "{errors}");
    world.idle().await;
}

fn program(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/room/clients").join(name)
}

fn assert_built(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_prepares_binds_and_reads_values_of_every_type() {
    if !has("/usr/bin/python3", &["-c", "import psycopg"]) {
        return;
    }
    let mut python = Command::new("/usr/bin/python3");
    python.arg(program("with_psycopg.py"));
    says_done(python).await;
}

/// Debian's place for the driver.
const JDBC_DRIVER: &str = "/usr/share/java/postgresql.jar";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jdbc_programs_describe_browse_read_in_portions_and_cancel() {
    if !has("javac", &["--version"]) || !has("test", &["-e", JDBC_DRIVER]) {
        return;
    }
    let made = tempfile::tempdir().unwrap();
    assert_built(
        &Command::new("javac").arg("-d").arg(made.path()).arg(program("Jdbc.java")).output().unwrap(),
    );
    let mut java = Command::new("java");
    java.arg("-cp").arg(format!("{}:{JDBC_DRIVER}", made.path().display())).arg("Jdbc");
    says_done(java).await;
}

/// Debian's place for the sources of Go's packages.
const GO_PACKAGES: &str = "/usr/share/gocode";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_in_go_get_rows_types_and_sqlstates_through_both_drivers() {
    if !has("go", &["version"])
        || !has("test", &["-d", &format!("{GO_PACKAGES}/src/github.com/jackc/pgx/v4")])
    {
        return;
    }
    let made = tempfile::tempdir().unwrap();
    let binary = made.path().join("client");
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&binary).arg(program("golang.go")).current_dir(made.path());
    build.envs([("GO111MODULE", "off"), ("GOPATH", GO_PACKAGES), ("GOFLAGS", "")]);
    assert_built(&build.output().unwrap());
    says_done(Command::new(binary)).await;
}

/// The program is a workspace of its own, so that the driver's features stay out of everybody's build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_prepares_binds_streams_and_describes() {
    let made = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sqlx-client");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(program("sqlx/Cargo.toml"));
    cargo.arg("--target-dir").arg(made).arg("--");
    says_done(cargo).await;
}
