//! System calls that std does not offer. Each `unsafe` says why it is sound; nothing here decides anything.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        resource::{UsageWho, getrusage},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        time::TimeValLike,
    },
};

/// The exit status of the forked child when it could not exec; its report on the pipe says why.
const EXEC_FAILED_STATUS: c_int = 127;
/// The lowest priority.
const NICE_MAX: c_int = 19;
/// Highest signal number on Linux.
const SIGNAL_MAX: c_int = 64;

/// From this size on an allocation is a mapping of its own, which costs what has been written to it and goes back whole: the scratch buffer, a
/// ring, a launch. What stays below is small and short-lived.
const MAPPED_LEN_MIN: c_int = 32 * 1024;
/// Unused memory at the heap's end that is kept or asked for in advance: enough that the turns of the loop don't shrink and grow it.
const HEAP_SPARE: c_int = 32 * 1024;

/// Makes the allocator give memory back. Left alone it learns from the first large allocation that is freed (a launch of 1 MiB) to keep up to
/// twice as much for good.
pub(super) fn give_memory_back() {
    // Other C libraries have neither the habit nor the knob.
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes no pointers; there is one thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_LEN_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, HEAP_SPARE);
        libc::mallopt(libc::M_TOP_PAD, HEAP_SPARE);
    }
}

/// Closes every descriptor above stderr that the parent let slip through, so that neither we nor the agent holds it open.
pub(super) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    // Listed first and closed afterwards: the listing itself holds a descriptor, which is gone by then (EBADF is harmless).
    let open: Vec<c_int> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: called first thing in a single-threaded process, before any descriptor of our own above 2 exists.
        unsafe { libc::close(fd) };
    }
}

/// Takes stdin and stdout over as non-blocking files that no child inherits; `/dev/null` stands in their places.
pub(super) fn take_stdio() -> io::Result<(File, File)> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut taken = Vec::with_capacity(2);
    for fd in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: F_DUPFD_CLOEXEC has no memory arguments; a result that is not -1 is a new descriptor that nobody else owns.
        let owned = unsafe {
            let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3);
            if copy < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(copy)
        };
        // SAFETY: both descriptors are open; dup2 replaces the standard one, which no Rust object owns.
        if unsafe { libc::dup2(null.as_raw_fd(), fd) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let file = File::from(owned);
        set_nonblocking(&file)?;
        taken.push(file);
    }
    let (Some(stdout), Some(stdin)) = (taken.pop(), taken.pop()) else {
        return Err(io::ErrorKind::Other.into());
    };
    Ok((stdin, stdout))
}

/// Makes reads and writes return instead of waiting.
pub(super) fn set_nonblocking(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Blocks the signals that the loop reads from a descriptor instead.
pub(super) fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// One descriptor to wait for.
pub(super) fn interest(file: &impl AsRawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd: file.as_raw_fd(), events, revents: 0 }
}

/// Waits until one of `fds` is ready or the time is over. A signal ends the wait early.
pub(super) fn poll(fds: &mut [libc::pollfd], timeout: Duration) -> io::Result<()> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let count = libc::nfds_t::try_from(fds.len()).map_err(io::Error::other)?;
    // SAFETY: `fds` and `timeout` live through the call, and `count` is the length of `fds`.
    if unsafe { libc::ppoll(fds.as_mut_ptr(), count, &raw const timeout, ptr::null()) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        for fd in fds {
            fd.revents = 0;
        }
    }
    Ok(())
}

/// Lets everybody else go first from here on.
pub(super) fn step_back() {
    // SAFETY: neither call takes pointers. A refusal leaves everything as it was.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE_MAX);
        libc::sched_yield();
    }
}

/// Time since boot, suspended time included.
pub(super) fn boot_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call fills in.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// User and system time of all children that were reaped, with theirs, ms.
pub(super) fn reaped_cpu_ms() -> u64 {
    getrusage(UsageWho::RUSAGE_CHILDREN)
        .map(|usage| u64::try_from((usage.user_time() + usage.system_time()).num_milliseconds()).unwrap_or(0))
        .unwrap_or(0)
}

/// Clock ticks a second and bytes a page, the units of `/proc/PID/stat`.
pub(super) fn stat_units() -> (u64, u64) {
    // SAFETY: sysconf takes no pointers and has no preconditions.
    let (ticks, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    (u64::try_from(ticks).unwrap_or(100).max(1), u64::try_from(page).unwrap_or(4096))
}

/// A child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Exit code.
    pub(super) code: Option<i32>,
    /// Or the signal.
    pub(super) signal: Option<i32>,
}

/// What `waitpid` says.
pub(super) enum Reaped {
    /// This child has ended and its process id is free again.
    Child(i32, Ended),
    /// Children live, none has ended.
    NoneYet,
    /// There are no children: as we are the subreaper, there are no descendants.
    NoChildren,
}

/// Reaps one child. Not nix's, which has no value for a death by a real-time signal.
pub(super) fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: the pointer is to a live int.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        0 => Reaped::NoneYet,
        -1 => Reaped::NoChildren,
        pid => {
            let ended = if libc::WIFEXITED(status) {
                Ended { code: Some(libc::WEXITSTATUS(status)), signal: None }
            } else {
                Ended { code: None, signal: Some(libc::WTERMSIG(status)) }
            };
            Reaped::Child(pid, ended)
        }
    }
}

/// Signals our child that has not been reaped, so that its id can't belong to anyone else.
pub(super) fn signal_child(pid: i32, signal: c_int) {
    // SAFETY: kill takes no pointers; the id is that of an unreaped child.
    unsafe { libc::kill(pid, signal) };
}

/// Signals the process group that our unreaped child leads; the child alone while it has not come to `setsid` yet.
pub(super) fn signal_group(leader: i32, signal: c_int) {
    // SAFETY: kill takes no pointers; the id of the group is that of an unreaped child.
    if unsafe { libc::kill(-leader, signal) } < 0 {
        signal_child(leader, signal);
    }
}

/// Signals a process that somebody else may reap meanwhile: `still_it` is asked once a handle holds whatever has this id now.
pub(super) fn signal_held(pid: i32, signal: c_int, still_it: impl FnOnce() -> bool) {
    // SAFETY: pidfd_open takes no pointers; a result that is not negative is a new descriptor that nobody else owns.
    let handle = unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            fd if fd >= 0 => c_int::try_from(fd).ok().map(|fd| OwnedFd::from_raw_fd(fd)),
            _ => None,
        }
    };
    if !still_it() {
        return;
    }
    match handle {
        // SAFETY: the handle is open; a null siginfo asks for the one that kill(2) would send.
        Some(handle) => unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), 0);
        },
        // A kernel before 5.3, or a filter that refuses: the id was right a moment ago, which is all that can be had there.
        None => signal_child(pid, signal),
    }
}

/// All that the child needs between fork and exec, made before: it must not allocate there.
pub(super) struct Program {
    /// Paths to try in turn.
    pub(super) paths: Vec<CString>,
    /// Arguments, the name first.
    pub(super) argv: Vec<CString>,
    /// `NAME=VALUE`.
    pub(super) env: Vec<CString>,
    /// Working directory.
    pub(super) cwd: CString,
    /// The text for `oom_score_adj`.
    pub(super) oom_score_adj: String,
}

/// A forked child.
pub(super) struct Spawned {
    /// Its process id.
    pub(super) pid: i32,
    /// Its standard output, non-blocking.
    pub(super) stdout: File,
    /// Its standard error, non-blocking.
    pub(super) stderr: File,
    /// Closes when exec has succeeded; gives a [`Failure`] when not. Non-blocking.
    pub(super) report: File,
}

/// Bytes of a [`Failure`] on the pipe; less than PIPE_BUF, so it comes whole.
const FAILURE_LEN: usize = 8;

/// Why a child did not come to exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// The index of the path that was tried last; `None` when it was the working directory.
    pub(super) path: Option<usize>,
    /// The system's error number.
    pub(super) errno: i32,
}

impl Failure {
    /// Reads what the child wrote.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (path, rest) = bytes.split_first_chunk::<4>()?;
        let (errno, _) = rest.split_first_chunk::<4>()?;
        Some(Self { path: usize::try_from(i32::from_le_bytes(*path)).ok(), errno: i32::from_le_bytes(*errno) })
    }
}

/// Stack of a child between its birth and exec: a few frames of system calls.
const CHILD_STACK_LEN: usize = 64 * 1024;

/// What the child's side reads.
struct Birth<'a> {
    program: &'a Program,
    argv: &'a [*const c_char],
    env: &'a [*const c_char],
    fds: [c_int; 3],
    parent: libc::pid_t,
}

/// Starts a child and waits until it has executed its program or has failed to. It borrows our memory so long, as `vfork` and `posix_spawn` have it:
/// a copy of our page tables, and of each page that either of us touches, would cost as much as all the rest of a launch.
///
/// Must be called from the main thread of a single-threaded process: PDEATHSIG fires when the *thread* ends.
pub(super) fn spawn(program: &Program) -> io::Result<Spawned> {
    let (stdout, stdout_write) = io::pipe()?;
    let (stderr, stderr_write) = io::pipe()?;
    let (report, report_write) = io::pipe()?;
    let pointers = |strings: &[CString]| {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect::<Vec<*const c_char>>()
    };
    let (argv, env) = (pointers(&program.argv), pointers(&program.env));
    let fds = [stdout_write.as_raw_fd(), stderr_write.as_raw_fd(), report_write.as_raw_fd()];
    let mut stack = vec![0_u128; CHILD_STACK_LEN / size_of::<u128>()];
    // SAFETY: getpid takes no arguments.
    let birth = Birth { program, argv: &argv, env: &env, fds, parent: unsafe { libc::getpid() } };
    // SAFETY: CLONE_VFORK holds us until the child has left our memory, so `birth` and `stack` outlive its use of them and nobody else touches
    // anything meanwhile. The child runs on a stack of its own, whose end is aligned, and calls only `exec_agent`, which does not return. Its
    // descriptors, directory and signal actions are copies.
    let pid = unsafe {
        libc::clone(
            child,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw const birth).cast_mut().cast(),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut files = [stdout, stderr, report].map(|reader| File::from(OwnedFd::from(reader)));
    for file in &mut files {
        set_nonblocking(file)?;
    }
    let [stdout, stderr, report] = files;
    Ok(Spawned { pid, stdout, stderr, report })
}

extern "C" fn child(birth: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a live `Birth` and waits; this is the child of a single-threaded process, and the lists end with a null pointer.
    unsafe {
        let birth = &*birth.cast::<Birth<'_>>();
        exec_agent(birth.program, birth.argv, birth.env, birth.fds, birth.parent)
    }
}

/// The child's side.
///
/// # Safety
/// Only in a fresh child of a single-threaded process; `argv` and `env` end with a null pointer.
unsafe fn exec_agent(
    program: &Program,
    argv: &[*const c_char],
    env: &[*const c_char],
    [stdout, stderr, report]: [c_int; 3],
    parent: libc::pid_t,
) -> ! {
    // SAFETY: only async-signal-safe calls on memory that was made before the fork.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            // The launcher died before the line above: nobody would ever end this process.
            libc::_exit(EXEC_FAILED_STATUS);
        }
        libc::setsid();
        libc::dup2(stdout, libc::STDOUT_FILENO);
        libc::dup2(stderr, libc::STDERR_FILENO);
        // The system call itself, as the C library does not touch the two signals that it uses for threads, which a parent may have ignored.
        // Zeros are SIG_DFL without flags or mask.
        let default = [0_u64; 4];
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8_usize);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        let oom = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if oom >= 0 {
            libc::write(oom, program.oom_score_adj.as_ptr().cast(), program.oom_score_adj.len());
            libc::close(oom);
        }
        if libc::chdir(program.cwd.as_ptr()) < 0 {
            report_failure(report, -1, *libc::__errno_location());
        }
        // As execvp: a refusal is told only when no later path fits.
        let mut refused = None;
        let mut last = (0, libc::ENOENT);
        for (index, path) in (0..).zip(&program.paths) {
            libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr());
            last = (index, *libc::__errno_location());
            match last.1 {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => refused = refused.or(Some(last)),
                _ => break,
            }
        }
        let (index, errno) = match last.1 {
            libc::ENOENT | libc::ENOTDIR | libc::EACCES => refused.unwrap_or(last),
            _ => last,
        };
        report_failure(report, index, errno)
    }
}

/// # Safety
/// Only in the forked child.
unsafe fn report_failure(report: c_int, path: i32, errno: c_int) -> ! {
    let mut bytes = [0; FAILURE_LEN];
    bytes[..4].copy_from_slice(&path.to_le_bytes());
    bytes[4..].copy_from_slice(&errno.to_le_bytes());
    // SAFETY: the descriptor is the child's end of the report pipe, the buffer lives.
    unsafe {
        libc::write(report, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(EXEC_FAILED_STATUS)
    }
}

/// Whether there is something at a path; tells a missing interpreter from a missing program.
pub(super) fn exists(path: &CStr) -> bool {
    // SAFETY: the string ends with a null byte.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// Lets only the owner use what is created from here on, until the guard is dropped.
pub(super) struct PrivateFiles(libc::mode_t);

impl PrivateFiles {
    pub(super) fn new() -> Self {
        // SAFETY: umask takes no pointers and can't fail.
        Self(unsafe { libc::umask(0o177) })
    }
}

impl Drop for PrivateFiles {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::umask(self.0) };
    }
}
