//! Where it was measured, without which no figure means anything.

use std::{fs, path::Path, thread};

/// One line: processor, cores, memory, kernel, file system of the scratch directory, load.
pub fn describe(scratch: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_else(|| "unknown".to_owned())
    };
    let processor = value(&read("/proc/cpuinfo"), "model name");
    let cores = thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{processor}, {cores} cores, {memory}, Linux {kernel}, scratch on {}, load {}",
        file_system(scratch),
        load()
    )
}

/// Runnable tasks, averaged over the last minute: above about half a core others disturb.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// The type of the file system that holds a path, by the longest mount point that it begins with (proc(5), mountinfo).
fn file_system(path: &Path) -> String {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        path.starts_with(point).then_some((point.len(), right.split(' ').next()?))
    });
    mounts.max_by_key(|(len, _)| *len).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}
