//! The table of rooms, held over `cargo metadata`: which rooms a room may know, and which heavy crates may never be below it.
//! And the one gate of promise 1: `Scrubbed` is made at two places of the production code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// A room and its walls.
struct Room {
    package: &'static str,
    /// The rooms it may know, directly or through others.
    rooms: &'static [&'static str],
    /// Crates that are never in its closure; a name that ends in `-` stands for all that start so.
    never: &'static [&'static str],
}

const TABLE: &[Room] = &[
    Room {
        package: "beeacon-record",
        rooms: &[],
        never: &[
            "tokio",
            "hyper",
            "axum",
            "bollard",
            "parquet",
            "object_store",
            "sqlx",
            "datafusion",
            "rustix",
            "socket2",
            "mio",
            "tracing",
            "regex-automata",
        ],
    },
    Room {
        package: "beeacon-journal",
        rooms: &[],
        never: &[
            "arrow-",
            "tokio",
            "hyper",
            "http",
            "axum",
            "parquet",
            "sqlx",
            "datafusion",
            "bollard",
            "socket2",
            "mio",
        ],
    },
    Room {
        package: "beeacon-settings",
        rooms: &[],
        never: &[
            "arrow-",
            "tokio",
            "hyper",
            "http",
            "axum",
            "parquet",
            "sqlx",
            "datafusion",
            "bollard",
            "socket2",
            "mio",
        ],
    },
    Room {
        package: "beeacon-filters",
        rooms: &["beeacon-record"],
        never: &[
            "tokio",
            "hyper",
            "http",
            "axum",
            "bollard",
            "parquet",
            "object_store",
            "sqlx",
            "datafusion",
            "rustix",
            "socket2",
            "mio",
        ],
    },
    Room {
        package: "beeacon-agent",
        rooms: &["beeacon-record", "beeacon-journal", "beeacon-filters", "beeacon-settings"],
        never: &["parquet", "object_store", "sqlx", "datafusion", "axum", "reqwest", "tonic"],
    },
    Room {
        package: "beeacon-sqlite",
        rooms: &[],
        never: &[
            "arrow-",
            "parquet",
            "object_store",
            "datafusion",
            "hyper",
            "http",
            "axum",
            "bollard",
            "redis",
        ],
    },
    Room {
        package: "beeacon-store",
        rooms: &["beeacon-record", "beeacon-sqlite"],
        never: &["datafusion", "axum", "hyper", "reqwest", "tonic", "bollard", "regex-automata"],
    },
    Room {
        package: "beeacon-collector",
        rooms: &[
            "beeacon-record",
            "beeacon-journal",
            "beeacon-filters",
            "beeacon-store",
            "beeacon-settings",
            "beeacon-sqlite",
        ],
        never: &["datafusion", "bollard", "tonic"],
    },
    Room {
        package: "beeacon-query",
        rooms: &["beeacon-record", "beeacon-store", "beeacon-settings", "beeacon-sqlite"],
        never: &["bollard", "inotify"],
    },
    Room {
        package: "beeacon-alerts",
        rooms: &["beeacon-sqlite"],
        never: &["arrow-", "parquet", "object_store", "datafusion", "bollard", "axum", "reqwest"],
    },
    Room {
        package: "beeacon-access",
        rooms: &[],
        never: &["arrow-", "parquet", "object_store", "sqlx", "datafusion", "bollard", "reqwest"],
    },
    Room {
        package: "beeacon-events",
        rooms: &["beeacon-sqlite"],
        never: &[
            "arrow-",
            "parquet",
            "object_store",
            "datafusion",
            "bollard",
            "axum",
            "hyper",
            "redis",
            "reqwest",
        ],
    },
    Room {
        package: "beeacon",
        rooms: &[
            "beeacon-record",
            "beeacon-journal",
            "beeacon-filters",
            "beeacon-agent",
            "beeacon-store",
            "beeacon-collector",
            "beeacon-query",
            "beeacon-settings",
            "beeacon-alerts",
            "beeacon-access",
            "beeacon-events",
            "beeacon-sqlite",
        ],
        never: &["openssl", "native-tls", "aws-lc-sys", "fancy-regex"],
    },
];

/// Every package below one, by normal dependencies on this platform, itself left out.
fn closure<'a>(metadata: &'a Metadata, root: &PackageId) -> BTreeSet<&'a str> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let mut seen = BTreeSet::new();
    let mut left = vec![root];
    while let Some(id) = left.pop() {
        for dependency in &nodes[id].deps {
            let is_normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if is_normal && seen.insert(&dependency.pkg) {
                left.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| names[id]).collect()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .other_options(
            ["--locked", "--offline", "--filter-platform", "x86_64-unknown-linux-gnu"]
                .map(String::from)
                .to_vec(),
        )
        .exec()
        .unwrap()
}

/// Guarantees: no room knows one that the design keeps from it, and no heavy crate slips below a light room.
#[test]
fn every_room_keeps_to_its_walls() {
    let metadata = metadata();
    let members: BTreeMap<&str, &PackageId> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.as_str(), &package.id))
        .collect();
    let rooms: BTreeSet<&str> = members.keys().copied().collect();
    let listed: BTreeSet<&str> = TABLE.iter().map(|room| room.package).collect();
    assert_eq!(
        rooms, listed,
        "every package of the workspace has its row in the table, and every row its package"
    );

    let broken: Vec<String> = TABLE
        .iter()
        .flat_map(|room| broken_walls(room, &closure(&metadata, members[room.package]), &rooms))
        .collect();
    assert!(broken.is_empty(), "walls are broken:\n{}", broken.join("\n"));
}

/// What lies below a room and may not.
fn broken_walls(room: &Room, below: &BTreeSet<&str>, rooms: &BTreeSet<&str>) -> Vec<String> {
    let mut broken = Vec::new();
    for other in below.intersection(rooms).filter(|other| !room.rooms.contains(other)) {
        broken.push(format!("{} knows the room {other}", room.package));
    }
    for never in room.never {
        let is_meant = |name: &&&str| match never.strip_suffix('-') {
            Some(_) => name.starts_with(never),
            None => **name == *never,
        };
        broken.extend(below.iter().filter(is_meant).map(|name| format!("{} rests on {name}", room.package)));
    }
    broken
}

/// Guarantees: a room that did what another may do would be caught, by name and by beginning.
#[test]
fn a_broken_wall_is_seen() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let rooms: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let query = packages.iter().find(|package| package.name.as_str() == "beeacon-query").unwrap();
    let strict =
        Room { package: "beeacon-query", rooms: &["beeacon-record"], never: &["datafusion", "arrow-"] };
    let broken = broken_walls(&strict, &closure(&metadata, &query.id), &rooms);
    for expected in ["knows the room beeacon-store", "rests on datafusion", "rests on arrow-array"] {
        assert!(broken.iter().any(|wall| wall.ends_with(expected)), "{expected}: {broken:?}");
    }
}

/// Guarantees: the walk over the graph does see through several layers, so the test above can fail.
#[test]
fn the_closure_of_the_program_reaches_what_its_rooms_rest_on() {
    let metadata = metadata();
    let id =
        |name: &str| &metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == name).unwrap().id;
    let program = closure(&metadata, id("beeacon"));
    for name in ["datafusion", "bollard", "parquet", "tokio", "beeacon-record"] {
        assert!(program.contains(name), "{name} is not below the program");
    }
    assert!(!program.contains("tempfile") || closure(&metadata, id("beeacon-query")).contains("tempfile"));
}

/// Guarantees: text becomes `Scrubbed` in the filters and by decoding a frame, and nowhere else.
#[test]
fn scrubbed_is_made_at_exactly_two_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places = Vec::new();
    for package in metadata().workspace_packages() {
        let source = package.manifest_path.parent().unwrap().join("src");
        for file in sources_below(source.as_std_path()) {
            let text = fs::read_to_string(&file).unwrap();
            let calls = production_lines(&text).filter(|line| line.contains("Scrubbed::seal(")).count();
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            places.extend(std::iter::repeat_n(name, calls));
        }
    }
    places.sort_unstable();
    assert_eq!(places.len(), 2, "{places:?}");
    assert!(places[0].starts_with("filters/src/"), "{places:?}");
    assert_eq!(places[1], "record/src/frame/mod.rs");
}

#[test]
fn lines_of_tests_and_comments_are_not_production_code() {
    let text = "a\n/// doc\n#[cfg(test)]\nmod tests;\nb\n// c\n#[cfg(test)]\nmod tests {\n    d\n}\n";
    assert_eq!(production_lines(text).collect::<Vec<_>>(), ["a", "b"]);
}

/// Files of a folder that are compiled into the product.
fn sources_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "tests" {
            files.extend(sources_below(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && name != "tests.rs" {
            files.push(path);
        }
    }
    files
}

/// The lines before a file's test module, without comments.
fn production_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            if line.trim() == "#[cfg(test)]" {
                let is_a_file = lines.next().is_some_and(|next| next.trim_end().ends_with(';'));
                if !is_a_file {
                    return None;
                }
            } else if !line.trim_start().starts_with("//") {
                return Some(line);
            }
        }
    })
}
