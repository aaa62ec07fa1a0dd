//! The house rules that a machine can check.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The import ranks of STYLE and ARCHITECTURE.md. A room may import rooms of a lower rank only.
const RANKS: &[(&str, u32)] = &[
    ("model", 1),
    ("wire", 1),
    ("tls", 1),
    ("view", 2),
    ("events", 3),
    ("store", 4),
    ("runtime", 5),
    ("health", 5),
    ("coordination", 5),
    ("control_plane", 6),
    ("tools", 7),
    ("mcp", 8),
    ("data_plane", 9),
    ("stream", 9),
    ("notify", 9),
    ("http", 10),
    ("config", 11),
    ("app", 12),
    ("cli", 13),
    ("launcher", 14),
];

/// Rooms that may name only these, whatever their rank.
const ONLY: &[(&str, &[&str])] = &[("launcher", &["wire"])];

/// The edges decode; they never reach for a store, a runtime or the supervision crate.
const EDGES: &[&str] = &["mcp", "data_plane", "stream", "http"];
const CLOSED_TO_EDGES: &[&str] = &["store", "runtime", "hivekeeper_actors"];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push(path);
        }
    }
}

/// Rooms named as `crate::ROOM` in a text, `use crate::{a::.., b::..}` groups included. Comments are not code.
fn rooms_named(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut fresh = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        fresh = true;
                        word.clear();
                    }
                    c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ if depth == 0 && fresh && !word.is_empty() => {
                        found.push(std::mem::take(&mut word));
                        fresh = false;
                    }
                    _ => {}
                }
            }
            if fresh && !word.is_empty() {
                found.push(word);
            }
        } else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    if code.contains("hivekeeper_actors") {
        found.push("hivekeeper_actors".to_owned());
    }
    found
}

fn wrong_arrows(files: &[(String, String)]) -> Vec<String> {
    let ranks: BTreeMap<&str, u32> = RANKS.iter().copied().collect();
    let only: BTreeMap<&str, &[&str]> = ONLY.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, text) in files {
        let room = file.trim_end_matches(".rs").split('/').next().unwrap();
        let Some(rank) = ranks.get(room) else { continue };
        for named in rooms_named(text) {
            let edge = EDGES.contains(&room) && CLOSED_TO_EDGES.contains(&named.as_str());
            let Some(other) = ranks.get(named.as_str()) else {
                if edge {
                    wrong.push(format!("{file}: the edge {room} names {named}"));
                }
                continue;
            };
            let allowed = named == room
                || match only.get(room) {
                    Some(list) => list.contains(&named.as_str()),
                    None => other < rank && !edge,
                };
            if !allowed {
                wrong.push(format!("{file}: {room} (rank {rank}) names {named} (rank {other})"));
            }
        }
    }
    wrong
}

fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths
        .into_iter()
        .map(|path| {
            (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn imports_point_down() {
    let wrong = wrong_arrows(&all_sources());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_rank() {
    let ranks: BTreeMap<&str, u32> = RANKS.iter().copied().collect();
    for (file, _) in all_sources() {
        let room = file.trim_end_matches(".rs").split('/').next().unwrap().to_owned();
        assert!(ranks.contains_key(room.as_str()) || room == "main" || room == "lib", "{file} is in no ranked room");
    }
}

#[test]
fn a_wrong_arrow_is_found() {
    let file = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
    assert_eq!(wrong_arrows(&file("model/ids.rs", "use crate::store::Journal;")).len(), 1);
    assert_eq!(wrong_arrows(&file("http/routes.rs", "use crate::{health::Handle, store::{A, B}};")).len(), 1);
    assert_eq!(wrong_arrows(&file("launcher/core.rs", "fn f() { crate::model::x() }")).len(), 1);
    assert_eq!(wrong_arrows(&file("stream/hub.rs", "use hivekeeper_actors::TreeNode;")).len(), 1);
    assert_eq!(wrong_arrows(&file("store/sqlite.rs", "use crate::{model::AgentId, view};\n// crate::http")).len(), 0);
}

#[test]
fn files_are_read_in_one_sitting() {
    let long: Vec<String> = all_sources()
        .into_iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > 600)
        .map(|(file, lines)| format!("{file}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The launcher must run in any image, so the executable has no interpreter (ELF program header PT_INTERP).
/// Built without `crt-static` (a plain `cargo test`) this can't hold, so it is compiled in only with it; `tests/run` sets it.
#[cfg(target_feature = "crt-static")]
#[test]
fn the_executable_is_static_pie() {
    const ET_DYN: u16 = 3;
    const PT_INTERP: u32 = 3;
    let elf = fs::read(env!("CARGO_BIN_EXE_hivekeeper")).unwrap();
    assert_eq!(&elf[..4], b"\x7fELF");
    let u16_at = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
    assert_eq!(u16_at(16), ET_DYN, "not position independent");
    let (table, size, count) = (u64_at(32) as usize, u16_at(54) as usize, u16_at(56) as usize);
    assert!(count > 0);
    for i in 0..count {
        assert_ne!(u32_at(table + i * size), PT_INTERP, "it asks for an interpreter");
    }
}
