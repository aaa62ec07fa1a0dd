//! A command on a terminal of its own, and what stands on its screen.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::hive::{Hive, kill, until};

fn command(hive: &Hive, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hivekeeper"));
    command
        .args(args)
        .env_clear()
        .env("TERM", "xterm-256color")
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .env("HIVEKEEPER_URL", format!("http://{}", hive.http))
        .envs(env.iter().copied())
        .current_dir(hive.dir.path());
    command
}

/// Without a terminal: exit status, output, complaints.
pub(super) fn piped(hive: &Hive, args: &[&str]) -> (ExitStatus, String, String) {
    let ran = command(hive, args, &[]).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (ran.status, text(ran.stdout), text(ran.stderr))
}

/// Started without a terminal.
pub(super) fn started(hive: &Hive, args: &[&str], out: Stdio) -> Child {
    command(hive, args, &[]).stdin(Stdio::null()).stdout(out).spawn().unwrap()
}

/// The first line of a command whose reader then goes away, which must end it well.
pub(super) fn headed(hive: &Hive, args: &[&str], patience: Duration) -> String {
    let mut child = started(hive, args, Stdio::piped());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut first).unwrap();
    let deadline = std::time::Instant::now() + patience;
    while std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "it ends without its reader: {status}");
    first
}

/// A command whose standard streams are one terminal.
pub(super) struct Terminal {
    child: Child,
    keyboard: File,
    /// Keeps what the terminal was set to readable when the command has gone.
    side: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
    size: (u16, u16),
}

impl Terminal {
    pub(super) fn start(hive: &Hive, args: &[&str], columns: u16, lines: u16) -> Self {
        Self::start_with(hive, args, &[], columns, lines)
    }

    pub(super) fn start_with(hive: &Hive, args: &[&str], env: &[(&str, &str)], columns: u16, lines: u16) -> Self {
        let (ours, side) = open(columns, lines);
        let stream = || Stdio::from(side.try_clone().unwrap());
        let mut command = command(hive, args, env);
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // A session of its own with this terminal, so that its Ctrl-C is a signal.
        let controlling = || {
            // SAFETY: both calls are async-signal-safe and touch the new process only.
            unsafe {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
            }
            Ok(())
        };
        // SAFETY: see above.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, controlling) };
        let child = command.spawn().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, log) = (ours.try_clone().unwrap(), Arc::clone(&seen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                log.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keyboard: ours, side, seen, size: (columns, lines) }
    }

    pub(super) fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(super) fn signal(&self, signal: i32) {
        kill(i32::try_from(self.child.id()).unwrap(), signal);
    }

    pub(super) fn resize(&mut self, columns: u16, lines: u16) {
        self.seen.lock().unwrap().clear();
        self.size = (columns, lines);
        set_size(&self.keyboard, columns, lines);
    }

    /// Everything that was written, escapes included.
    pub(super) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub(super) fn until(&mut self, what: &str, fits: impl Fn(&str) -> bool) {
        let mut last = String::new();
        for _ in 0..1000 {
            last = screen(&self.raw(), self.size);
            if fits(&last) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{what}: it has ended, {status}\n{}", self.raw());
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("waited in vain: {what}\n{last}");
    }

    #[track_caller]
    pub(super) fn ended(&mut self) -> ExitStatus {
        let status = until("the command ends", || self.child.try_wait().unwrap());
        // What it wrote last may still be on its way: a word of our own behind it shows when all has come.
        const BEHIND: &str = "<that was all>";
        File::from(self.side.try_clone().unwrap()).write_all(BEHIND.as_bytes()).unwrap();
        until("its last words", || self.raw().contains(BEHIND).then_some(()));
        status
    }

    /// Whether what is typed is shown and lines are edited, as a shell needs it.
    pub(super) fn is_cooked(&self) -> bool {
        // SAFETY: an all-zero termios is a value, and the descriptor is open.
        let mode = unsafe {
            let mut mode: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.side.as_raw_fd(), &raw mut mode), 0);
            mode
        };
        mode.c_lflag & (libc::ECHO | libc::ICANON | libc::ISIG) == libc::ECHO | libc::ICANON | libc::ISIG
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open(columns: u16, lines: u16) -> (File, OwnedFd) {
    let (mut ours, mut side) = (0, 0);
    // SAFETY: the pointers are to our own integers, null is allowed for the others, and both descriptors are ours alone.
    let (ours, side) = unsafe {
        let null = std::ptr::null_mut();
        assert_eq!(libc::openpty(&raw mut ours, &raw mut side, null, null.cast(), null.cast()), 0);
        libc::fcntl(ours, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(side, libc::F_SETFD, libc::FD_CLOEXEC);
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(side))
    };
    set_size(&ours, columns, lines);
    (ours, side)
}

fn set_size(terminal: &File, columns: u16, lines: u16) {
    let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the size is ours and outlives the call.
    unsafe { assert_eq!(libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size), 0) };
}

/// What a terminal of this size shows, as far as our programs use one: text, moves, and clearing.
fn screen(raw: &str, (columns, lines): (u16, u16)) -> String {
    let (columns, lines) = (usize::from(columns), usize::from(lines));
    let mut cells = vec![vec![' '; columns]; lines];
    let (mut x, mut y) = (0, 0);
    let mut rest = raw.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.peek() == Some(&'[') => {
                rest.next();
                let mut numbers = String::new();
                let end = rest.by_ref().find(|c| {
                    let done = ('@'..='~').contains(c);
                    if !done {
                        numbers.push(*c);
                    }
                    done
                });
                let mut numbers = numbers.split(';').map(|text| text.parse::<usize>().unwrap_or(1).max(1));
                match end {
                    Some('H') => {
                        y = numbers.next().unwrap_or(1) - 1;
                        x = numbers.next().unwrap_or(1) - 1;
                    }
                    Some('J') => cells.iter_mut().for_each(|line| line.fill(' ')),
                    Some('K') => cells.get_mut(y).into_iter().for_each(|line| line[x.min(columns)..].fill(' ')),
                    _ => {}
                }
            }
            '\r' => x = 0,
            '\n' => y += 1,
            c => {
                if let Some(cell) = cells.get_mut(y).and_then(|line| line.get_mut(x)) {
                    *cell = c;
                }
                x += 1;
            }
        }
    }
    cells.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned() + "\n").collect()
}
