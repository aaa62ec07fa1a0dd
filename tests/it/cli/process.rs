//! Commands that need no daemon, or are one.

use std::{fs, os::unix::process::ExitStatusExt, process::Command, thread, time::Duration};

use super::*;

#[test]
fn the_daemon_is_found_by_flag_variable_and_data_directory_in_this_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d");
    fs::create_dir(&data).unwrap();
    let text = hive().to_string();
    let daemon = Daemon::new(move |_| (200, "application/json", text.clone()));
    let address = daemon.url.trim_start_matches("http://");
    let anywhere = address.replace("127.0.0.1", "0.0.0.0");
    fs::write(data.join("endpoints.json"), json!({ "pid": 1, "http": anywhere, "data_plane": address }).to_string())
        .unwrap();
    fs::write(dir.path().join("config.toml"), "[hive]\ndata_dir = \"d\"\n[log]\nlevel = \"a mistake\"").unwrap();
    assert_eq!(run_in(dir.path(), &[], &["ps"]).exit, Exit::Done, "by endpoints.json, in spite of a mistake elsewhere");
    let host = format!("host: {address}");
    assert!(daemon.requests()[0].head.contains(&host), "an address that is no destination is not asked for");
    let elsewhere = [("HIVEKEEPER_URL", "http://127.0.0.1:1")];
    assert_eq!(run_in(dir.path(), &elsewhere, &["ps"]).exit, Exit::Unreachable, "the variable wins");
    assert_eq!(run_in(dir.path(), &elsewhere, &["ps", "--url", &daemon.url]).exit, Exit::Done, "the flag wins");
    let ran = run_in(Path::new("/nowhere"), &[], &["ps", "--data-dir", &data.to_string_lossy()]);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);

    let mistyped = [("HIVEKEEPER_URL", daemon.url.as_str())];
    for args in [&["ps", "--config", "confg.toml"][..], &["handover", "--config", "confg.toml"]] {
        let ran = run_in(dir.path(), &mistyped, args);
        assert!(ran.exit == Exit::Usage && ran.err.contains("confg.toml can't be read"), "{args:?}: {}", ran.err);
    }

    let secret = dir.path().join("secret");
    fs::write(&secret, "t0ken-of-the-api\n").unwrap();
    run_in(dir.path(), &[], &["ps", "--token-file", "secret"]);
    assert!(daemon.requests().last().unwrap().head.contains("authorization: bearer t0ken-of-the-api"));
    assert_eq!(run_in(dir.path(), &[], &["ps", "--token-file", "none"]).exit, Exit::Usage);
    let two_words = [("HIVEKEEPER_API_TOKEN", "two words")];
    assert_eq!(run_in(dir.path(), &two_words, &["ps"]).exit, Exit::Usage);
}

#[test]
fn serve_is_the_default_and_gets_the_flags() {
    let dir = tempfile::tempdir().unwrap();
    for args in
        [&["--http", "127.0.0.1:0", "--data-dir", "/d"][..], &["serve", "--http", "127.0.0.1:0", "--data-dir", "/d"]]
    {
        let ran = run_in(dir.path(), &[("HIVEKEEPER__LOG__LEVEL", "debug")], args);
        let config = ran.served.unwrap_or_else(|| panic!("not served: {}", ran.err));
        assert_eq!((config.http.bind.port(), config.log.level.word()), (0, "debug"));
        assert_eq!(config.hive.data_dir, Path::new("/d"));
    }
}

#[test]
fn check_reports_every_mistake_and_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hive.toml");
    fs::write(&file, "[http]\nbnid = 1\n[log]\nlevel = 2\n").unwrap();
    let ran = run_in(dir.path(), &[], &["check", "--config", "hive.toml", "--data-dir", "/d"]);
    assert_eq!(ran.exit, Exit::Usage);
    assert_eq!(ran.out, "");
    assert!(
        ran.err.starts_with("hivekeeper: 2 mistakes in the configuration\nhive.toml:2: http.bnid: "),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("\nhive.toml:4: log.level: "), "{}", ran.err);
    assert_eq!(run_in(dir.path(), &[], &["--config", "hive.toml"]).exit, Exit::Usage, "serve refuses it, too");

    fs::write(&file, "[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\nreplicas = 2\ncommand = [\"x\"]")
        .unwrap();
    let ran = run_in(dir.path(), &[], &["check", "--config", "hive.toml", "--data-dir", "/d"]);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let expected = format!(
        "{} is good\nhive \"hive\" in /d\napi http://127.0.0.1:8080, data plane 127.0.0.1:9500\nswarm s: 2 agents (a-1 to a-2)\n",
        file.display()
    );
    assert_eq!(ran.out, expected);
}

#[test]
fn handover_signals_the_daemon_of_the_data_directory_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_string_lossy().into_owned();
    let handover = || run_in(Path::new("/nowhere"), &[], &["handover", "--data-dir", &data]);
    let endpoints = |pid: u32| {
        let document = json!({ "pid": pid, "http": "127.0.0.1:1", "data_plane": "127.0.0.1:2" });
        fs::write(dir.path().join("endpoints.json"), document.to_string()).unwrap();
    };
    let ran = handover();
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("endpoints.json"), "{}", ran.err);

    endpoints(std::process::id());
    let ran = handover();
    assert!(ran.exit == Exit::Failed && ran.err.contains("is not the daemon any more"), "{}", ran.err);

    // A stand-in for the daemon: any program by its name that SIGUSR2 ends.
    let stand_in = dir.path().join("hivekeeper");
    fs::copy("/bin/sleep", &stand_in).unwrap();
    let mut child = Command::new(&stand_in).arg("60").spawn().unwrap();
    endpoints(child.id());
    let ran = handover();
    let signal = child.wait_timeout_signal();
    assert_eq!((ran.exit, signal), (Exit::Done, Some(12)), "{}", ran.err);
}

trait WaitSignal {
    /// Waits at most 5 s; then kills and says so by SIGKILL's number.
    fn wait_timeout_signal(&mut self) -> Option<i32>;
}

impl WaitSignal for std::process::Child {
    fn wait_timeout_signal(&mut self) -> Option<i32> {
        for _ in 0..500 {
            if let Some(status) = self.try_wait().unwrap() {
                return status.signal();
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill().unwrap();
        self.wait().unwrap().signal()
    }
}
