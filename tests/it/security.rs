//! `SECURITY.md` promises nothing that no test holds.

use std::{collections::BTreeMap, fs};

/// Texts of the page that name a test, `FILE::NAME`.
fn named(text: &str) -> Vec<(&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|name| name.split_once(".rs::")).collect()
}

/// Whether a source has a test of this name: the attribute stands in the few lines above it.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().any(|(i, line)| {
        let above = &lines[i.saturating_sub(3)..i];
        line.contains(&head) && above.iter().any(|line| line.trim_start().starts_with("#[") && line.contains("test]"))
    })
}

#[test]
fn every_promise_names_tests_that_are_there() {
    let page = fs::read_to_string("SECURITY.md").unwrap();
    let (mut promises, mut sources) = (0, BTreeMap::new());
    let mut promised = false;
    for line in page.lines() {
        if line.starts_with("We promise") {
            promised = true;
        } else if line.starts_with("We don't promise") || line.starts_with('#') {
            promised = false;
        }
        let names = named(line);
        if promised && line.starts_with("- ") {
            promises += 1;
            assert!(!names.is_empty(), "no test holds: {line}");
        }
        for (file, name) in names {
            let path = format!("{file}.rs");
            let source =
                sources.entry(path.clone()).or_insert_with(|| fs::read_to_string(&path).expect("the file of a test"));
            assert!(has_test(source, name), "there is no test {name} in {path}");
        }
    }
    assert!(promises > 20, "{promises} promises were found");
}

#[test]
fn a_test_is_one_only_with_its_attribute() {
    assert!(has_test("#[test]\nfn a() {", "a") && has_test("    #[tokio::test]\n    async fn a() {", "a"));
    assert!(!has_test("#[test]\nfn ab() {", "a") && !has_test("fn a() {", "a"));
    assert!(!has_test("#[test]\nfn b() {\n\n\n}\nfn a() {", "a"));
    assert_eq!(named("- x. `a/b.rs::c`, `d`, `e.rs::f`"), [("a/b", "c"), ("e", "f")]);
}
