//! What a viewer costs the real daemon.

use std::{fs, path::Path, time::Duration};

use crate::{
    readers::Readers,
    support::{
        figures::{kib, table, verdict},
        hive::Hive,
        processes::Memory,
    },
};

const VIEWERS: usize = 1000;
/// The number.
const PER_VIEWER_MAX: u64 = 32 * 1024;
/// Frames come at least once a second: agents' readings.
const SETTLE_FOR: Duration = Duration::from_secs(20);

pub(crate) fn run(scratch: &Path) -> anyhow::Result<()> {
    let dir = scratch.join("memory");
    fs::create_dir(&dir)?;
    let swarm = "[runtime]\nsample_interval = \"1s\"\n[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\n\
                 replicas = 5\ncommand = [\"sleep\", \"1000000\"]\n";
    let mut hive = Hive::start(&dir, swarm)?;
    hive.until_running(5, Duration::from_secs(30))?;
    std::thread::sleep(Duration::from_secs(5));
    let before = Memory::of(hive.pid()?)?;
    let readers = Readers::connect(hive.address().parse()?, VIEWERS)?;
    readers.until(2 * VIEWERS as u64, Duration::from_secs(60))?;
    let greeted = Memory::of(hive.pid()?)?;
    std::thread::sleep(SETTLE_FOR);
    let with = Memory::of(hive.pid()?)?;
    let frames = readers.frames();
    drop(readers);
    std::thread::sleep(Duration::from_secs(5));
    let after = Memory::of(hive.pid()?)?;
    hive.stop()?;
    let each = with.rss.saturating_sub(before.rss) / VIEWERS as u64;
    let row = |name: &str, memory: Memory| vec![name.to_owned(), kib(memory.rss), kib(memory.private)];
    let rows = [
        row("no viewer", before),
        row(&format!("{VIEWERS} viewers, greeted"), greeted),
        row(&format!("the same, {frames} frames later"), with),
        row("all have left", after),
    ];
    table("the daemon's resident memory, KiB", &["state", "RSS", "private"], &rows);
    println!("RSS for each viewer: {} KiB; goal 32 KiB: {}", kib(each), verdict(each <= PER_VIEWER_MAX));
    Ok(())
}
