#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{AgentId, LogLevel, LogRecord, LogRecords},
    store::{
        DataDir, LogLine, LogPage, LogQuery, Options, StoreError,
        suite::at,
        testing::{DIR, Second, SmallDisk, short_dir},
    },
};

const ROOMY: LogLimits = LogLimits { bytes_per_agent: 16 << 20, total_bytes: 64 << 20, segment_bytes: 1 << 20 };

fn data(dir: &Path) -> DataDir {
    DataDir::open(dir, "test", Options::default()).unwrap()
}

fn book(data: &DataDir, limits: LogLimits) -> LogBook {
    LogBook::open(&data.logs_dir(), limits, data.fence()).unwrap()
}

fn coder() -> AgentId {
    "review/coder-1".parse().unwrap()
}

fn out(seq: u64, text: &str) -> NewLine {
    NewLine { seq: Some(seq), at: at(seq), stream: "stdout", level: None, partial: false, text: text.to_owned() }
}

fn outs(seqs: std::ops::RangeInclusive<u64>) -> Vec<NewLine> {
    seqs.map(|seq| out(seq, &format!("line {seq}"))).collect()
}

fn record(text: &str) -> NewLine {
    NewLine { seq: None, at: at(1), stream: "log", level: Some("warn"), partial: false, text: text.to_owned() }
}

fn records(text: &str) -> LogRecords {
    let mut records = LogRecords::default();
    records.push(LogRecord { level: LogLevel::Warn, at: Some(at(1)), partial: false, text });
    records
}

fn lost(fallen: &[(AgentId, u64)]) -> u64 {
    fallen.iter().map(|(_, lost)| lost).sum()
}

async fn all(book: &LogBook, agent: &AgentId) -> Vec<LogLine> {
    let page = book.read(agent, LogQuery { limit: usize::MAX, ..LogQuery::default() }).await.unwrap();
    page.lines
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

fn segments(data: &DataDir, agent: &AgentId) -> Vec<PathBuf> {
    let dir = data.logs_dir().join(agent.swarm.as_str()).join(agent.name.as_str());
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

proptest! {
    #[test]
    fn every_line_comes_back(text in any::<String>(), seq in any::<Option<u64>>(), partial in any::<bool>(), ms in 0_u64..1 << 50) {
        let new = NewLine { seq, at: at(ms), stream: "stderr", level: Some("warn"), partial, text: text.clone() };
        let mut encoded = String::new();
        let used = line::encode(&mut encoded, 7, 3, &new);
        prop_assert_eq!(used, 1);
        prop_assert_eq!(encoded.matches('\n').count(), 1);
        let back = line::parse(encoded.strip_suffix('\n').unwrap()).unwrap();
        prop_assert_eq!(back, LogLine { number: 7, incarnation: 3, seq, at: at(ms), stream: "stderr", level: Some("warn".to_owned()), partial, text });
    }

    #[test]
    fn garbage_is_never_a_line_of_ours(text in "\\PC*") {
        if let Some(line) = line::parse(&text) {
            prop_assert!(text.starts_with(&line.number.to_string()) || text.starts_with('0') || text.starts_with('+'));
        }
    }
}

#[tokio::test]
async fn lines_are_numbered_over_incarnations_and_read_by_query() {
    let dir = short_dir();
    let data = data(dir.path());
    let book = book(&data, ROOMY);
    assert_eq!(book.read(&coder(), LogQuery::default()).await.unwrap(), LogPage::default());
    let mut growth = book.growth(&coder());
    assert_eq!(book.append(&coder(), 1, outs(1..=3)).await, Ok(3));
    assert_eq!(*growth.borrow_and_update(), 3);
    let note = NewLine::note(at(9), "incarnation 1 ended".to_owned());
    assert_eq!(book.append(&coder(), 1, vec![note]).await, Ok(4));
    assert_eq!(book.append(&coder(), 2, outs(1..=2)).await, Ok(6));
    let lines = all(&book, &coder()).await;
    assert_eq!(texts(&lines), ["line 1", "line 2", "line 3", "incarnation 1 ended", "line 1", "line 2"]);
    assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(lines.iter().map(|line| line.incarnation).collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2]);
    assert_eq!((lines[3].stream, lines[3].seq, lines[5].seq), ("hivekeeper", None, Some(2)));

    let read = async |query| {
        let page = book.read(&coder(), query).await.unwrap();
        assert_eq!((page.first_kept, page.last), (1, 6));
        page.lines.iter().map(|line| line.number).collect::<Vec<_>>()
    };
    let query = LogQuery { limit: 100, ..LogQuery::default() };
    assert_eq!(read(LogQuery { after: Some(4), ..query.clone() }).await, [5, 6]);
    assert_eq!(read(LogQuery { after: Some(6), ..query.clone() }).await, [0_u64; 0]);
    assert_eq!(read(LogQuery { after: Some(u64::MAX), ..query.clone() }).await, [0_u64; 0]);
    assert_eq!(read(LogQuery { limit: 2, ..query.clone() }).await, [1, 2]);
    assert_eq!(read(LogQuery { limit: 0, ..query.clone() }).await, [0_u64; 0]);
    assert_eq!(read(LogQuery { tail: Some(2), ..query.clone() }).await, [5, 6]);
    assert_eq!(read(LogQuery { tail: Some(0), ..query.clone() }).await, [0_u64; 0]);
    assert_eq!(read(LogQuery { tail: Some(3), limit: 2, ..query.clone() }).await, [4, 5]);
    assert_eq!(read(LogQuery { since: Some(at(3)), ..query.clone() }).await, [3, 4]);
    assert_eq!(read(LogQuery { since: Some(at(2)), tail: Some(2), ..query }).await, [4, 6]);
}

#[tokio::test]
async fn what_a_launcher_sends_again_is_passed_over() {
    let dir = short_dir();
    let data = data(dir.path());
    let first = book(&data, ROOMY);
    first.append(&coder(), 1, outs(1..=5)).await.unwrap();
    assert_eq!(first.append(&coder(), 1, outs(3..=7)).await, Ok(7));
    assert_eq!(first.append(&coder(), 1, outs(1..=7)).await, Ok(7), "nothing new");
    drop(first);
    let second = book(&data, ROOMY);
    assert_eq!((second.last_seq(&coder(), 1), second.last_seq(&coder(), 2)), (7, 0));
    assert_eq!(second.append(&coder(), 1, outs(6..=9)).await, Ok(9));
    assert_eq!(
        all(&second, &coder()).await.iter().filter_map(|line| line.seq).collect::<Vec<_>>(),
        (1..=9).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let dir = short_dir();
    let mut second = Second::start("store::logbook::tests::second_process_appends", dir.path());
    for _ in 0..20 {
        second.said();
    }
    let acknowledged = second.kill().max(20);
    let data = data(dir.path());
    let book = book(&data, ROOMY);
    let safe = book.last_seq(&coder(), 1);
    assert!(safe >= acknowledged, "{safe} of {acknowledged}");
    assert_eq!(book.append(&coder(), 1, outs(1..=safe + 1)).await, Ok(safe + 1));
    assert_eq!(
        all(&book, &coder()).await.iter().filter_map(|line| line.seq).collect::<Vec<_>>(),
        (1..=safe + 1).collect::<Vec<_>>()
    );
}

#[tokio::test]
#[ignore = "the second process of what_was_acknowledged_is_there_after_kill_9"]
async fn second_process_appends() {
    let data = data(&PathBuf::from(std::env::var_os(DIR).unwrap()));
    let book = book(&data, LogLimits { segment_bytes: 4096, ..ROOMY });
    // Far more than the first process waits for; a bound, should it have died.
    for seq in 1..100_000 {
        book.append(&coder(), 1, outs(seq..=seq)).await.unwrap();
        println!("said {seq}");
    }
}

#[tokio::test]
async fn a_torn_end_is_cut_off() {
    for torn in ["4 1 4 4 std", "4 1 4 4 stdout - half a li", "\0\0\0\0\0\0", "\0\0\0\n\0\0\n", "9"] {
        let dir = short_dir();
        let data = data(dir.path());
        let first = book(&data, ROOMY);
        first.append(&coder(), 1, outs(1..=3)).await.unwrap();
        drop(first);
        let path = segments(&data, &coder()).remove(0);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole, torn.as_bytes()].concat()).unwrap();
        let second = book(&data, ROOMY);
        assert_eq!(fs::read(&path).unwrap(), whole, "{torn:?}");
        assert_eq!(second.append(&coder(), 1, outs(4..=4)).await, Ok(4));
        assert_eq!(texts(&all(&second, &coder()).await), ["line 1", "line 2", "line 3", "line 4"], "{torn:?}");
    }
}

#[tokio::test]
async fn segments_roll_and_the_head_carries_the_numbers_over() {
    let dir = short_dir();
    let data = data(dir.path());
    let limits = LogLimits { segment_bytes: 256, ..ROOMY };
    let first = book(&data, limits);
    for seq in 1..=100 {
        first.append(&coder(), 1, outs(seq..=seq)).await.unwrap();
    }
    first.append(&coder(), 2, vec![NewLine::note(at(1), "x".repeat(500))]).await.unwrap();
    assert!(segments(&data, &coder()).len() > 10);
    drop(first);
    let second = book(&data, limits);
    assert_eq!(second.last_seq(&coder(), 1), 100, "although the last segment holds none of its lines");
    assert_eq!(second.append(&coder(), 2, outs(1..=1)).await, Ok(102));
    let numbers: Vec<_> = all(&second, &coder()).await.iter().map(|line| line.number).collect();
    assert_eq!(numbers, (1..=102).collect::<Vec<_>>());
    for after in 0..=102 {
        let page =
            second.read(&coder(), LogQuery { after: Some(after), limit: 3, ..LogQuery::default() }).await.unwrap();
        let numbers: Vec<_> = page.lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, (after + 1..=102).take(3).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_follower_of_a_long_segment_is_led_by_marks() {
    let dir = short_dir();
    let data = data(dir.path());
    let first = book(&data, ROOMY);
    for block in 0..50 {
        first.append(&coder(), 1, outs(block * 200 + 1..=block * 200 + 200)).await.unwrap();
    }
    for book in [first, book(&data, ROOMY)] {
        let offset = book.segment_offset(&coder(), 9_000);
        assert!(offset > 100_000, "{offset}");
        for after in [0, 1, 1_999, 2_500, 5_000, 9_000, 9_999] {
            let page =
                book.read(&coder(), LogQuery { after: Some(after), limit: 1, ..LogQuery::default() }).await.unwrap();
            assert_eq!(page.lines[0].number, after + 1);
        }
    }
}

#[tokio::test]
async fn an_agents_book_is_bounded() {
    let dir = short_dir();
    let data = data(dir.path());
    let limits = LogLimits { bytes_per_agent: 8192, segment_bytes: 1024, ..ROOMY };
    let book = book(&data, limits);
    for seq in 1..=2_000 {
        book.append(&coder(), 1, outs(seq..=seq)).await.unwrap();
    }
    let on_disk: u64 = segments(&data, &coder()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(on_disk <= 8192, "{on_disk}");
    assert_eq!(book.status().bytes, on_disk);
    let page = book.read(&coder(), LogQuery { limit: 1, ..LogQuery::default() }).await.unwrap();
    assert!(page.first_kept > 1_500 && page.lines[0].number == page.first_kept);
    assert_eq!(page.last, 2_000);
}

#[tokio::test]
async fn all_books_together_are_bounded_and_no_number_comes_twice() {
    let dir = short_dir();
    let data = data(dir.path());
    let limits = LogLimits { bytes_per_agent: 4096, total_bytes: 16_384, segment_bytes: 1024 };
    let agents: Vec<AgentId> = (0..40).map(|n| format!("review/coder-{n}").parse().unwrap()).collect();
    let first = book(&data, limits);
    for agent in &agents {
        for seq in 1..=30 {
            first.append(agent, 1, outs(seq..=seq)).await.unwrap();
        }
        // What idle agents leave behind is a head alone; forty of those fit.
        assert!(first.status().bytes <= limits.total_bytes, "{}", first.status().bytes);
    }
    let page = first.read(&agents[0], LogQuery { limit: 9, ..LogQuery::default() }).await.unwrap();
    assert_eq!((page.lines.len(), page.last), (0, 30), "the one that was idle for longest made room");
    assert_eq!(all(&first, &agents[39]).await.len(), 30);
    drop(first);
    let second = book(&data, limits);
    assert!(second.status().bytes <= limits.total_bytes);
    for agent in &agents {
        assert_eq!(second.last_seq(agent, 1), 30);
        assert_eq!(second.append(agent, 1, outs(29..=31)).await, Ok(31));
    }
}

#[tokio::test]
async fn a_full_disk_loses_what_is_not_sent_again_and_says_so() {
    let Some(disk) = SmallDisk::mount(512) else { return };
    let data = data(&disk.path().join("data"));
    let book = book(&data, LogLimits { segment_bytes: 64 << 10, ..ROOMY });
    book.append(&coder(), 1, outs(1..=2)).await.unwrap();
    disk.fill();
    // The block that is open takes some more.
    let mut safe = 2;
    let refused = loop {
        match book.append(&coder(), 1, vec![out(safe + 1, &"y".repeat(700))]).await {
            Ok(_) => safe += 1,
            Err(error) => break error,
        }
        assert!(safe < 1_000, "the disk is never full");
    };
    assert_eq!(refused, StoreError::Full);
    assert!(!book.status().ok);
    assert_eq!(book.last_seq(&coder(), 1), safe, "what was refused is not safe");
    assert_eq!(all(&book, &coder()).await.len() as u64, safe, "reading goes on, and shows no half line");
    let other: AgentId = "review/other".parse().unwrap();
    assert_eq!(book.append(&other, 1, vec![out(1, &"z".repeat(9_000))]).await, Err(StoreError::Full));
    assert_eq!(book.append(&coder(), 1, vec![out(safe + 2, &"y".repeat(9_000))]).await, Err(StoreError::Full));
    assert_eq!(book.append(&coder(), 1, vec![record(&"r".repeat(9_000))]).await, Err(StoreError::Full));
    disk.free();

    // One of the two output lines is sent again, the record is not.
    book.append(&coder(), 1, vec![out(safe + 2, "again"), out(safe + 3, "new")]).await.unwrap();
    let lines = all(&book, &coder()).await;
    assert_eq!(
        texts(&lines[usize::try_from(safe).unwrap()..]),
        ["2 lines lost: no space was left on the disk", "again", "new"]
    );
    assert!(book.status().ok);
    assert_eq!(book.status().lost_lines, 2);
    book.append(&other, 1, vec![out(1, "again")]).await.unwrap();
    assert_eq!(texts(&all(&book, &other).await), ["again"], "nothing was lost here");
    book.append(&coder(), 1, outs(safe + 4..=safe + 4)).await.unwrap();
    assert_eq!(book.status().lost_lines, 2, "a loss is noted once");
}

#[tokio::test]
async fn a_flood_is_bounded_in_memory_and_what_falls_out_is_counted() {
    let dir = short_dir();
    let data = data(dir.path());
    let book = book(&data, ROOMY);
    let other: AgentId = "review/other".parse().unwrap();
    let mut appends = Vec::new();
    let mut fallen = 0;
    {
        let held = book.hold_writer();
        // Once it has taken this one it waits for us.
        book.try_log(&other, 1, at(1), records("record"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while held.waiting().1 > 0 {
            assert!(Instant::now() < deadline, "the writer does not come");
            std::thread::yield_now();
        }
        for seq in 0..40 {
            let (book, text) = (book.clone(), "x".repeat(1 << 20));
            let agent: AgentId = format!("flood/agent-{seq}").parse().unwrap();
            appends.push(tokio::spawn(async move { book.append(&agent, 1, vec![out(1, &text)]).await }));
        }
        for n in 0..80_000 {
            fallen += lost(&book.try_log(&other, 1, at(1), records(&format!("record {n}"))));
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let (bytes, records) = held.waiting();
        assert!(bytes > 4 << 20 && bytes <= 8 << 20, "{bytes}");
        assert_eq!(records, 65_536);
    }
    for append in appends {
        assert_eq!(append.await.unwrap(), Ok(1));
    }
    // Behind the records, since it is one.
    fallen += lost(&book.try_log(&other, 1, at(1), records("the last")));
    let mut growth = book.growth(&other);
    let all_there = async {
        loop {
            let lines = all(&book, &other).await;
            if lines.last().is_some_and(|line| line.text == "the last") {
                return lines;
            }
            growth.changed().await.unwrap();
        }
    };
    let lines = tokio::time::timeout(Duration::from_secs(20), all_there).await.unwrap();
    let notes = lines.iter().filter(|line| line.stream == "hivekeeper");
    let noted = notes.clone().map(|line| line.text.split_once(" log records dropped").unwrap().0);
    assert_eq!(noted.map(|number| number.parse::<u64>().unwrap()).sum::<u64>(), fallen);
    assert_eq!(lines.len() as u64, 80_002 - fallen + notes.count() as u64);
    assert_eq!(lines[lines.len() - 2].text, "record 79999", "the oldest go first");
    assert_eq!(book.status().dropped_records, fallen);
}

#[tokio::test]
async fn a_long_record_becomes_pieces() {
    let dir = short_dir();
    let data = data(dir.path());
    let book = book(&data, ROOMY);
    let text = "é".repeat(20_000);
    assert_eq!(book.append(&coder(), 1, vec![record(&text)]).await, Ok(3));
    let lines = all(&book, &coder()).await;
    assert_eq!(lines.iter().map(|line| line.partial).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<String>(), text);
    assert_eq!(lines[2].level.as_deref(), Some("warn"));
}

#[tokio::test]
async fn the_tail_holds_the_last_lines_of_the_last_incarnation() {
    let dir = short_dir();
    let data = data(dir.path());
    let first = book(&data, ROOMY);
    first.append(&coder(), 1, outs(1..=30)).await.unwrap();
    assert_eq!(first.tail(&coder(), 1, 2), ["line 29", "line 30"]);
    assert_eq!(first.tail(&coder(), 1, 99).len(), 20);
    assert_eq!(first.tail(&coder(), 2, 2), [""; 0], "it has not written");
    let half = NewLine { partial: true, ..out(1, "half a ") };
    first.append(&coder(), 2, vec![half, out(2, "line"), out(3, &"w".repeat(9_000))]).await.unwrap();
    first.append(&coder(), 2, vec![NewLine::note(at(1), "3 lines lost".to_owned())]).await.unwrap();
    let tail = first.tail(&coder(), 2, 9);
    assert_eq!((tail.len(), tail[0].as_str(), tail[1].len()), (2, "half a line", 1024));
    drop(first);
    assert_eq!(book(&data, ROOMY).tail(&coder(), 2, 9), tail, "also for the next daemon");
}

#[tokio::test]
async fn a_fenced_daemon_writes_nothing() {
    let dir = short_dir();
    let old_data = data(dir.path());
    let old = book(&old_data, ROOMY);
    old.append(&coder(), 1, outs(1..=3)).await.unwrap();
    // The holder seems dead: its touch is old, and it is not watched for another.
    let lock = fs::File::options().write(true).open(dir.path().join("lock")).unwrap();
    lock.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let at_once = Options { watch: Duration::ZERO, ..Options::default() };
    let new_data = DataDir::open(dir.path(), "test", at_once).unwrap();
    let new = book(&new_data, ROOMY);
    assert_eq!(old.append(&coder(), 1, outs(4..=4)).await, Err(StoreError::Fenced));
    assert_eq!(old.remove(&coder()).await, Err(StoreError::Fenced));
    let path = segments(&new_data, &coder()).remove(0);
    let end = fs::metadata(&path).unwrap().len();
    new.append(&coder(), 1, vec![out(4, "from the new one")]).await.unwrap();
    // A write that the old one had under way when it was stopped, to where it knew the end.
    let stale = b"4 1 4 4 stdout - a line from the old one\n";
    fs::File::options().write(true).open(&path).unwrap().write_all_at(stale, end).unwrap();
    assert_eq!(texts(&all(&new, &coder()).await), ["line 1", "line 2", "line 3", "from the new one"]);
    drop(new);
    let newest = book(&new_data, ROOMY);
    assert_eq!(texts(&all(&newest, &coder()).await), ["line 1", "line 2", "line 3", "from the new one"]);
}

#[tokio::test]
async fn a_removed_book_is_gone() {
    let dir = short_dir();
    let data = data(dir.path());
    let book = book(&data, ROOMY);
    book.append(&coder(), 1, outs(1..=3)).await.unwrap();
    let mut growth = book.growth(&coder());
    growth.borrow_and_update();
    book.remove(&coder()).await.unwrap();
    assert!(growth.changed().await.is_err(), "closed");
    assert_eq!(book.read(&coder(), LogQuery::default()).await.unwrap(), LogPage::default());
    assert!(!data.logs_dir().join("review").exists());
    assert_eq!(book.status().bytes, 0);
    book.remove(&coder()).await.unwrap();
    assert_eq!(book.append(&coder(), 1, outs(1..=1)).await, Ok(1), "a new one begins");
}

#[tokio::test]
async fn many_agents_share_few_open_files() {
    let dir = short_dir();
    let data = data(dir.path());
    let book = book(&data, ROOMY);
    for round in 1..=3 {
        for n in 0..300 {
            let agent: AgentId = format!("many/agent-{n}").parse().unwrap();
            book.append(&agent, 1, outs(round..=round)).await.unwrap();
        }
    }
    let below = data.logs_dir();
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let open = open.filter(|path| path.starts_with(&below)).count();
    assert!((1..=128).contains(&open), "{open}");
    assert_eq!(all(&book, &"many/agent-7".parse().unwrap()).await.len(), 3);
}

#[tokio::test]
async fn followers_read_beside_a_writer_without_a_gap() {
    let dir = short_dir();
    let data = data(dir.path());
    let book = book(&data, LogLimits { segment_bytes: 4096, ..ROOMY });
    let follow = || {
        let book = book.clone();
        async move {
            let mut growth = book.growth(&coder());
            let mut after = 0;
            while after < 2_000 {
                let query = LogQuery { after: Some(after), limit: 100, ..LogQuery::default() };
                let page = book.read(&coder(), query).await.unwrap();
                for line in &page.lines {
                    assert_eq!(line.number, after + 1);
                    after = line.number;
                }
                if page.lines.is_empty() {
                    growth.changed().await.unwrap();
                }
            }
        }
    };
    let write = async {
        for seq in 0..200 {
            book.append(&coder(), 1, outs(seq * 10 + 1..=seq * 10 + 10)).await.unwrap();
        }
    };
    let both = async { tokio::join!(write, futures_util::future::join_all((0..5).map(|_| follow()))) };
    tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
}
