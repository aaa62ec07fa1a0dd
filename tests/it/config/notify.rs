//! `[[notify]]`.

use std::time::Duration;

use hivekeeper::model::{Receiver, Topic, UrlSpec};

use super::{load, load_with};

fn webhook(more: &str) -> String {
    format!("[[notify]]\nname = \"n\"\nwebhook = \"https://hooks.example.org/T0/sesame\"\n{more}\n")
}

#[test]
fn what_a_notifier_does_not_say_has_a_default() {
    let config = load(&webhook("")).unwrap();
    let [notifier] = &config.notifiers[..] else { panic!("{:?}", config.notifiers) };
    let Receiver::Webhook(webhook) = &notifier.to else { panic!("{notifier:?}") };
    assert_eq!(webhook.url, UrlSpec::Plain("https://hooks.example.org/T0/sesame".to_owned()));
    assert_eq!((&webhook.headers[..], &webhook.token_file, &webhook.secret_file), (&[][..], &None, &None));
    assert_eq!((notifier.on.len(), notifier.swarms.len(), notifier.per_minute), (4, 0, 10));
    assert_eq!((notifier.timeout, notifier.recovered_after), (Duration::from_secs(10), Duration::from_secs(30)));
    assert_eq!(notifier.retry_for, Duration::from_secs(3600));
    assert!(!format!("{config:?}").contains("sesame"), "an address may be a secret");
    assert_eq!(load("").unwrap().notifiers, []);
}

#[test]
fn what_it_says_is_taken() {
    let text = "[[notify]]\nname = \"n\"\nwebhook_file = \"url\"\non = [\"stuck\", \"failed\"]\nswarms = [\"review\"]\nper_minute = 1\n\
                recovered_after = \"0s\"\ntimeout = \"1s\"\nretry_for = \"5m\"\nheaders = { X-Room = \"ops\" }\n\
                token_file = \"token\"\nsecret_file = \"secret\"\n\
                [[notify]]\nname = \"m\"\ncommand = [\"bin/page\", \"me\"]\n[[notify]]\nname = \"o\"\ncommand = [\"page\"]\n";
    let files = [("config.toml", text), ("url", "http://h/x\n"), ("token", "abc\n"), ("secret", "whsec_Zm9vYmFy\n")];
    let config = load_with(&files, &[], Vec::new()).unwrap();
    let [n, m, o] = &config.notifiers[..] else { panic!("{:?}", config.notifiers) };
    let Receiver::Webhook(webhook) = &n.to else { panic!("{n:?}") };
    assert_eq!(webhook.url, UrlSpec::File("/h/url".into()));
    assert_eq!(webhook.headers, [("X-Room".to_owned(), "ops".to_owned())]);
    assert_eq!(webhook.token_file.as_deref(), Some("/h/token".as_ref()));
    assert_eq!(n.on, [Topic::Failed, Topic::Stuck].into());
    assert_eq!(n.swarms.first().unwrap().as_str(), "review");
    assert_eq!((n.per_minute, n.recovered_after, n.retry_for), (1, Duration::ZERO, Duration::from_secs(300)));
    assert_eq!(m.to, Receiver::Command(vec!["/h/bin/page".to_owned(), "me".to_owned()]));
    assert_eq!(o.to, Receiver::Command(vec!["page".to_owned()]), "looked for in PATH");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "[[notify]]\nname = \"a\"\nwebhook = \"hooks.example.org/hidden\"\non = [\"recovered\"]\nper_minute = 0\nretry_fo = \"1s\"\n\
                headers = { Authorization = \"Bearer hidden\" }\ntoken_file = \"empty\"\nsecret_file = \"secret\"\nca_file = \"nowhere\"\n\
                [[notify]]\nname = \"a\"\n\
                [[notify]]\nname = \"b\"\ncommand = [\"x\"]\nwebhook = \"https://h/\"\n\
                [[notify]]\nname = \"c\"\ncommand = [\"x\"]\ntoken_file = \"empty\"\non = [\"glad\"]\n\
                [[notify]]\nname = \"d\"\nwebhook_file = \"empty\"\nheaders = { \"a b\" = \"c\" }\nswarms = [\"S\"]\n";
    let files = [("config.toml", text), ("empty", "\n"), ("secret", "whsec_!")];
    let problems = load_with(&files, &[], Vec::new()).unwrap_err();
    let said = |key: &str, words: &str| {
        let hit = problems.iter().any(|problem| problem.contains(&format!(": {key}: ")) && problem.contains(words));
        assert!(hit, "{key} ... {words}\n{}", problems.join("\n"));
    };
    said("notify[a].webhook", "the address is no URL");
    said("notify[a].on", "something that can be wrong");
    said("notify[a].per_minute", "from 1 to 600");
    said("notify[a].retry_fo", "did you mean `retry_for`?");
    said("notify[a].headers", "token_file");
    said("notify[a].token_file", "no word of printable ASCII");
    said("notify[a].secret_file", "no base64 behind whsec_");
    said("notify[a].ca_file", "can't be read");
    said("notify[a].name", "a second notifier");
    said("notify[a]", "nobody to tell");
    said("notify[b]", "webhook and command");
    said("notify[c].token_file", "belongs to a webhook");
    said("notify[c].on", "\"failed\", \"critical\", \"stuck\", \"recovered\"");
    said("notify[d].webhook_file", "the address");
    said("notify[d].headers", "no header can be");
    said("notify[d].swarms", "\"S\"");
    assert_eq!(problems.len(), 16, "{}", problems.join("\n"));
    assert!(!problems.iter().any(|problem| problem.contains("hidden")), "{problems:?}");
    assert!(load("notify = 1").unwrap_err()[0].contains("[[notify]], with two brackets"));
    let many: String = (0..17).map(|n| format!("[[notify]]\nname = \"n{n}\"\ncommand = [\"x\"]\n")).collect();
    assert!(load(&many).unwrap_err()[0].contains("16 at most"));
}
