//! `[[source]]`.

use std::time::Duration;

use super::load;

fn source(more: &str) -> String {
    format!("[[source]]\nname = \"s\"\naddress = \"127.0.0.1:9600\"\n{more}\n")
}

#[test]
fn what_a_source_does_not_say_has_a_default() {
    let config = load(&source("")).unwrap();
    let [source] = &config.sources[..] else { panic!("{:?}", config.sources) };
    assert_eq!((source.name.as_str(), &*source.address), ("s", "127.0.0.1:9600"));
    let tools: Vec<(&str, &str)> = source.tools.iter().map(|tool| (&*tool.name, &*tool.arguments)).collect();
    assert_eq!(tools, [("agent_list", "{}"), ("swarm_status", "{}")]);
    assert_eq!((source.interval, source.timeout), (Duration::from_secs(10), Duration::from_secs(5)));
    assert_eq!(source.connections, 2);
    assert_eq!(load("").unwrap().sources, []);
}

#[test]
fn what_it_says_is_taken() {
    let text = "tools = [\"a\", { name = \"b\", arguments = { zone = \"UTC\", deep = { list = [1, 2.5, true, 2026-01-01] } } }, { name = \"c\" }]\n\
                interval = \"1m\"\ntimeout = \"250ms\"\nconnections = 8";
    let config = load(&source(text)).unwrap();
    let source = &config.sources[0];
    let arguments: Vec<&str> = source.tools.iter().map(|tool| &*tool.arguments).collect();
    assert_eq!(arguments, ["{}", r#"{"deep":{"list":[1,2.5,true,"2026-01-01"]},"zone":"UTC"}"#, "{}"]);
    assert_eq!((source.interval, source.timeout), (Duration::from_secs(60), Duration::from_millis(250)));
    assert_eq!(source.connections, 8);
    for address in ["localhost:1", "[::1]:9500", "agents.lan:65535", "my_container-1:80"] {
        let text = format!("[[source]]\nname = \"s\"\naddress = \"{address}\"");
        assert_eq!(&*load(&text).unwrap().sources[0].address, address);
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "[[source]]\nname = \"S\"\naddress = \"nowhere\"\ntools = []\ninterval = \"1ms\"\ntimeout = \"2h\"\nconnections = 9\nadress = 1\n\
                [[source]]\nname = \"t\"\ntools = [1, \"\", { nam = \"x\" }, { name = \"y\", arguments = [] }]\n\
                [[source]]\nname = \"t\"\naddress = \"h:1\"\n";
    let problems = load(text).unwrap_err();
    let said = |key: &str, words: &str| {
        let hit = problems.iter().any(|problem| problem.contains(&format!(": {key}: ")) && problem.contains(words));
        assert!(hit, "{key} ... {words}\n{}", problems.join("\n"));
    };
    said("source[#1].name", "\"S\"");
    said("source[#1].address", "a host and a port");
    said("source[#1].tools", "0 tools");
    said("source[#1].interval", "100ms to 1day");
    said("source[#1].timeout", "100ms to 1m");
    said("source[#1].connections", "from 1 to 8");
    said("source[#1].adress", "did you mean `address`?");
    said("source[t].address", "this key is required");
    said("source[t].tools[#1]", "found 1");
    said("source[t].tools[#2]", "the name of a tool");
    said("source[t].tools[#3].name", "this key is required");
    said("source[t].tools[#3].nam", "did you mean `name`?");
    said("source[t].tools[#4].arguments", "a table");
    said("source[t].name", "a second source \"t\"");
    assert_eq!(problems.len(), 14, "{}", problems.join("\n"));
}

#[test]
fn addresses_that_are_none_are_refused() {
    for address in
        ["", "h", ":1", "h:", "h:0", "h:65536", "h:+1", "::1:80", "[::1]", "[x]:1", "h h:1", "h/x:1", "http://h:1"]
    {
        let problems = load(&format!("[[source]]\nname = \"s\"\naddress = \"{address}\"")).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains("source[s].address"), "{address}: {problems:?}");
    }
    assert!(load("source = 1").unwrap_err()[0].contains("[[source]], with two brackets"));
    let many: String = (0..65).map(|n| format!("[[source]]\nname = \"s{n}\"\naddress = \"h:1\"\n")).collect();
    assert!(load(&many).unwrap_err()[0].contains("64 at most"));
}
