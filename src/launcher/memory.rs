//! Whether memory ran out: what the kernel counts in the memory cgroup that we live in. The victim is named nowhere, so an end is told from other
//! kills by its time: one count more since the last look, and an end as by SIGKILL that is not ours.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::sys::Ended;

/// A container has some thirty mounts of 200 bytes; a machine that runs many has more, and is not asked.
const TEXT_LEN_MAX: u64 = 64 * 1024;
/// Both files have a handful of short lines.
const COUNTS_LEN_MAX: usize = 512;
/// The kernel counts before it kills, and a victim's memory is taken apart before its end shows: a second for some gigabytes.
const DEATH: Duration = Duration::from_secs(2);
/// What a shell says when its command was killed: 128 and SIGKILL.
const CODE_KILLED: i32 = 128 + libc::SIGKILL;

/// The count, and how far it had come at the last look.
pub(super) struct Memory {
    /// The file stays open, so that a look costs one read and no memory.
    counts: Option<File>,
    seen: u64,
    grew_at: Option<Instant>,
}

impl Memory {
    /// Looks for the first time, unless nobody is to look: a cgroup that is not a container's is shared with strangers.
    pub(super) fn watch(in_container: bool) -> Self {
        let counts = in_container.then(open).and_then(Result::ok);
        let mut memory = Self { counts, seen: 0, grew_at: None };
        memory.look(Instant::now());
        memory.grew_at = None;
        memory
    }

    /// Whether memory has run out since the last look, or just before; `None` when that can't be seen.
    pub(super) fn look(&mut self, now: Instant) -> Option<bool> {
        let mut text = [0; COUNTS_LEN_MAX];
        let len = self.counts.as_ref()?.read_at(&mut text, 0).ok()?;
        let count = kills(&text[..len])?;
        if count > self.seen {
            self.grew_at = Some(now);
        }
        self.seen = count;
        Some(self.grew_at.is_some_and(|at| now.saturating_duration_since(at) < DEATH))
    }
}

/// Whether an end was for want of memory. `grew` is what a look told; `ours` says that we had sent SIGKILL.
pub(super) fn ran_out(grew: Option<bool>, ended: Ended, ours: bool) -> Option<bool> {
    let killed = ended.signal == Some(libc::SIGKILL) || ended.code == Some(CODE_KILLED);
    grew.map(|grew| grew && killed && !ours)
}

fn open() -> io::Result<File> {
    let path = counts(&text("/proc/self/cgroup")?, &text("/proc/self/mountinfo")?);
    File::open(path.ok_or(io::ErrorKind::NotFound)?)
}

fn text(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_LEN_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The file with the counts of our own memory cgroup, from `/proc/self/cgroup` and `/proc/self/mountinfo`. Where the memory controller has a
/// hierarchy of its own (cgroup v1), v2 counts nothing.
fn counts(cgroups: &str, mounts: &str) -> Option<PathBuf> {
    let mut v2 = None;
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.split(',').any(|controller| controller == "memory") {
            let shows = |kind: &str, options: &str| kind == "cgroup" && options.split(',').any(|word| word == "memory");
            return Some(directory(path, mounts, shows)?.join("memory.oom_control"));
        }
        if controllers.is_empty() {
            v2 = Some(path);
        }
    }
    Some(directory(v2?, mounts, |kind, _| kind == "cgroup2")?.join("memory.events"))
}

/// Where a cgroup is mounted. A container sees its own as the root of the mount, or all of them with its own below.
fn directory(cgroup: &str, mounts: &str, shows: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        // proc(5): id, parent, device, root, mount point, options, any number of tags; behind a dash kind, source, options.
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let (kind, options) = (what.next()?, what.nth(1)?);
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let below = Path::new(cgroup).strip_prefix(root).ok()?;
        shows(kind, options).then(|| Path::new(point).join(below))
    })
}

/// The line `oom_kill N`, which both versions have.
fn kills(counts: &[u8]) -> Option<u64> {
    let line = counts.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "))?;
    str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write;

    use super::*;

    const V1: &str = "8:pids:/docker/6c74\n4:memory:/docker/6c74\n1:cpu:/docker/6c74\n0::/docker/6c74\n";
    const V1_MOUNTS: &str = "\
81 80 0:46 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
82 81 0:29 /docker/6c74 /sys/fs/cgroup/cpu ro,nosuid - cgroup cgroup rw,cpu
85 81 0:32 /docker/6c74 /sys/fs/cgroup/memory ro,nosuid,relatime master:9 - cgroup cgroup rw,memory
91 81 0:38 / /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw
";

    fn found(cgroups: &str, mounts: &str) -> Option<String> {
        counts(cgroups, mounts).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_cgroup_of_a_container_is_found_in_both_versions() {
        assert_eq!(found(V1, V1_MOUNTS).unwrap(), "/sys/fs/cgroup/memory/memory.oom_control");
        let joint = V1_MOUNTS.replace("rw,memory", "rw,hugetlb,memory");
        assert_eq!(found("4:hugetlb,memory:/docker/6c74\n", &joint), found(V1, V1_MOUNTS));

        let private = "31 30 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(found("0::/\n", private).unwrap(), "/sys/fs/cgroup/memory.events");
        let shared = "31 30 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
        let path = "/sys/fs/cgroup/system.slice/docker-6c74.scope/memory.events";
        assert_eq!(found("0::/system.slice/docker-6c74.scope\n", shared).unwrap(), path);
    }

    #[test]
    fn what_is_not_mounted_is_not_guessed() {
        assert_eq!(found(V1, ""), None);
        assert_eq!(found("", V1_MOUNTS), None);
        assert_eq!(found("4:memory:/docker/other\n", V1_MOUNTS), None, "somebody else's is no stand-in");
        assert_eq!(found("4:memory:/../..\n", V1_MOUNTS), None);
        assert_eq!(found(V1, "85 81 0:32 /docker/6c74 /sys/fs/cgroup/memory\n"), None, "a line that is cut");
    }

    #[test]
    fn both_versions_count_alike() {
        assert_eq!(kills(b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(kills(b"low 0\nhigh 0\nmax 9\noom 7\noom_kill 12\noom_group_kill 0\n"), Some(12));
        assert_eq!(kills(b"oom_kill_disable 0\nunder_oom 0\n"), None, "kernels before 4.13 don't count");
        assert_eq!(kills(b""), None);
    }

    #[test]
    fn a_look_tells_what_is_new_since_the_last_one() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"oom_kill 2\n").unwrap();
        let mut memory = Memory { counts: Some(file.try_clone().unwrap()), seen: 0, grew_at: None };
        let start = Instant::now();
        memory.look(start);
        assert_eq!(memory.look(start + DEATH), Some(false));
        file.set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(b"oom_kill 3\n").unwrap();
        let later = start + DEATH * 2;
        assert_eq!(memory.look(later), Some(true));
        assert_eq!(memory.look(later + DEATH / 2), Some(true), "the victim is still being taken apart");
        assert_eq!(memory.look(later + DEATH), Some(false));
        file.set_len(0).unwrap();
        assert_eq!(memory.look(later), None);
        assert_eq!(Memory::watch(false).look(later), None, "nobody is to look");
    }

    #[test]
    fn an_end_is_for_want_of_memory_when_all_speaks_for_it() {
        let ended = |code, signal| Ended { code, signal };
        let (killed, told) = (ended(None, Some(libc::SIGKILL)), ended(Some(137), None));
        for end in [killed, told] {
            assert_eq!(ran_out(Some(true), end, false), Some(true));
            assert_eq!(ran_out(Some(true), end, true), Some(false), "we killed it");
            assert_eq!(ran_out(Some(false), end, false), Some(false), "somebody else killed it");
            assert_eq!(ran_out(None, end, false), None);
        }
        for end in [ended(Some(1), None), ended(Some(0), None), ended(None, Some(libc::SIGSEGV))] {
            assert_eq!(ran_out(Some(true), end, false), Some(false), "a child of it was taken, or another agent");
        }
    }
}
