//! The way into a container that somebody else has made. Its life is its owner's: we look at it, execute in it, and put a launcher into it where none
//! is mounted. It may be read-only, have no shell, be stopped, started again or replaced at any time.
//!
//! What is ours in it lies in one directory of this hive and swarm, its home: the launcher, below the digest of its executable, and a run directory
//! for each start of the container, so that what an earlier start left on disk confuses nobody.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    engine::{
        ContainerError, ContainerState, DeliverError, Engine, Exec, ExecError, ExecOrder, LAUNCHER_DIR, LAUNCHER_PATH,
        LauncherVolume, Parcel, label,
    },
    executable::Launcher,
    inside::{self, Door, VisitError},
    lodging::EnterError,
};
use crate::model::{HiveId, SwarmName};

/// Where a launcher may be written when the root can't be: in this order, the first that can be written and executed from.
const DIRS: [&str; 4] = ["/run", "/tmp", "/var/tmp", "/dev/shm"];
/// For a command that only looks: an exec takes a fraction of a second.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// For sending the executable, as for sending it as an archive.
const SEND_DEADLINE: Duration = Duration::from_secs(120);
/// What such a command may say.
const SAID_LEN_MAX: u64 = 4096;
/// Digits of an id or digest in a name: 64 bits, of which nobody chooses one.
const DIGITS: usize = 16;

/// Whether a launcher can be written to a directory of `$1` with the name `$2`, below the version `$3`, and executed from there. Says `have` or `want`
/// when it can, or why not. A directory that somebody else has made first is not used.
const LOOK: &str = r#"umask 077
home=$1/$2 new=
[ -d "$1" ] || { echo "is not there"; exit; }
mkdir "$home" 2>/dev/null && new=yes
if [ -L "$home" ] || [ ! -O "$home" ]; then echo "cannot be written"; exit; fi
try=$home/$3/try
{ mkdir -p "$home/$3" && echo '#!/bin/sh' >"$try" && chmod 700 "$try"; } 2>/dev/null && can=yes || can=
if [ "$can" ] && "$try" 2>/dev/null; then
  rm -f "$try"
  if [ -x "$home/$3/hivekeeper" ]; then echo have; else echo want; fi
else
  rm -f "$try"
  [ -z "$new" ] || rm -rf "$home"
  if [ "$can" ]; then echo "is noexec"; else echo "cannot be written"; fi
fi
"#;

/// Writes stdin, of `$2` bytes, to the launcher in the directory `$1`, under its name only when it is whole.
const RECEIVE: &str = r#"umask 077
part=$1/part
if cat >"$part" && [ "$(wc -c <"$part")" -eq "$2" ] && chmod 500 "$part" && mv -f "$part" "$1/hivekeeper"; then
  echo received
else
  rm -f "$part"
  echo "not all of it came in"
fi
"#;

/// A swarm's place in containers of others.
pub(super) struct Sidecar {
    swarm: SwarmName,
    launcher: Launcher,
    /// In one incarnation of one container; several where the document has named another user since.
    settled: Mutex<Vec<Settled>>,
}

/// Where we are at home in one incarnation of a container.
#[derive(Debug, Clone)]
struct Settled {
    door: Door,
    home: String,
    /// The launcher's directory in it.
    version: String,
    /// Whether the engine made the home, so that only root can remove it.
    by_root: bool,
}

/// Why one way does not work.
enum No {
    /// Here; another may.
    Here(String),
    /// None can be tried.
    Any(EnterError),
}

impl Sidecar {
    pub(super) fn new(swarm: SwarmName, launcher: Launcher) -> Self {
        Self { swarm, launcher, settled: Mutex::default() }
    }

    /// The door of the container that runs under this name now. Makes sure that our launcher is behind it, once for each incarnation of the container.
    pub(super) async fn enter(&self, engine: &Engine, name: &str, user: Option<&str>) -> Result<Door, EnterError> {
        let away = |how: &str| EnterError::NotYet(format!("container {name} {how}"));
        match self.look(engine, name).await? {
            None => Err(away("is not there")),
            Some(state) if !state.running => Err(away("does not run")),
            Some(state) => self.door(engine, &state, name, user).await,
        }
    }

    /// The same, where no running container means that nothing of the swarm runs.
    pub(super) async fn find(
        &self,
        engine: &Engine,
        name: &str,
        user: Option<&str>,
    ) -> Result<Option<Door>, EnterError> {
        match self.look(engine, name).await? {
            Some(state) if state.running => self.door(engine, &state, name, user).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Whether the container that a door leads into still runs, and has run all the time since. All that was behind it is dead otherwise.
    pub(super) async fn is_open(&self, engine: &Engine, door: &Door) -> Result<bool, EnterError> {
        match self.look(engine, &door.container).await? {
            Some(state) if !state.running || state.started_at != door.started_at => Ok(false),
            Some(state) if state.paused => Err(paused(&state.name)),
            found => Ok(found.is_some()),
        }
    }

    /// What was found behind a door was no launcher: it is looked for anew at the next entry. Returns whether that can help.
    pub(super) fn doubt(&self, door: &Door) -> bool {
        self.settled.lock().extract_if(.., |settled| settled.door == *door).count() > 0
    }

    /// Removes what is ours from the container that was entered last, as far as that works.
    pub(super) async fn leave(&self, engine: &Engine) {
        let settled = std::mem::take(&mut *self.settled.lock());
        let Some(last) = settled.last() else { return };
        if !self.is_open(engine, &last.door).await.unwrap_or_default() {
            return;
        }
        if settled.len() > 1 {
            // Each user's own first, and the launcher last: it is what removes.
            for Settled { door, home, version, .. } in &settled {
                let _ = inside::clear(engine, door, home, &[version]).await;
            }
        }
        let mut cleared = Vec::new();
        for settled in &settled {
            if cleared.contains(&settled.home) {
                continue;
            }
            match clear(engine, settled, &[]).await {
                Ok(()) => cleared.push(settled.home.clone()),
                Err(error) => {
                    let container = super::lodging::short(&settled.door.container);
                    tracing::warn!(swarm = %self.swarm, container, home = settled.home, %error, "something of ours is left in a container");
                }
            }
        }
    }

    async fn look(&self, engine: &Engine, container: &str) -> Result<Option<ContainerState>, EnterError> {
        match engine.inspect(container).await {
            Ok(state) if engine.is_own_container(&state.id) => Err(EnterError::Refused(format!(
                "container {container} is the daemon's own: whoever runs in it can use the engine's socket"
            ))),
            Ok(state) if state.labels.contains_key(label::SWARM) => {
                Err(EnterError::Refused(format!("container {container} is a swarm's own, which ends with it")))
            }
            Ok(state) => Ok(Some(state)),
            Err(ContainerError::Missing) => Ok(None),
            Err(error) => Err(EnterError::Unreachable(error.to_string())),
        }
    }

    async fn door(
        &self,
        engine: &Engine,
        state: &ContainerState,
        name: &str,
        user: Option<&str>,
    ) -> Result<Door, EnterError> {
        if state.paused {
            return Err(paused(name));
        }
        let is_here =
            |settled: &Settled| settled.door.container == state.id && settled.door.started_at == state.started_at;
        let known = self.settled.lock().iter().find(|it| is_here(it) && it.door.user.as_deref() == user).cloned();
        if let Some(known) = known {
            return Ok(known.door);
        }
        let (_, digest) = self.launcher.read().await.map_err(EnterError::Refused)?;
        let volume = LauncherVolume::of(digest)?;
        let ways = Ways {
            engine,
            launcher: &self.launcher,
            container: &state.id,
            started_at: state.started_at,
            user,
            home: home_name(engine.owner().hive_id, &self.swarm),
            version: &digest[..DIGITS],
        };
        let settled = ways.first(name, &volume).await?;
        let door = settled.door.clone();
        tracing::info!(swarm = %self.swarm, container = name, launcher = door.launcher, "agents can be started in a container of others");
        let mut known = self.settled.lock();
        known.retain(is_here);
        known.push(settled);
        Ok(door)
    }
}

/// Nobody can be asked in it, and nobody in it does anything.
fn paused(name: &str) -> EnterError {
    EnterError::NotYet(format!("container {name} is paused"))
}

/// One directory for each swarm of each hive. The last digits of the hive's id are those that are not the time.
fn home_name(hive_id: HiveId, swarm: &SwarmName) -> String {
    let id = hive_id.0.simple().to_string();
    format!("hivekeeper-{}-{swarm}", &id[id.len() - DIGITS..])
}

/// Named by the start of the container; users have one each, for none can use another's.
fn run_name(started_at: Option<SystemTime>, user: Option<&str>) -> String {
    let since = started_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let start = start_name(since);
    user.map_or_else(|| start.clone(), |user| format!("{start}-{}", user.replace(':', ".")))
}

fn start_name(since: Duration) -> String {
    format!("run-{:x}", since.as_nanos())
}

/// Removes what is ours, save what is kept: each user's things as that user, and what the engine made as root.
async fn clear(engine: &Engine, settled: &Settled, keep: &[&str]) -> Result<(), VisitError> {
    let cleared = inside::clear(engine, &settled.door, &settled.home, keep).await;
    if cleared.is_ok() || !settled.by_root {
        return cleared;
    }
    let as_root = Door { user: Some("0:0".to_owned()), ..settled.door.clone() };
    inside::clear(engine, &as_root, &settled.home, keep).await
}

/// The ways to a launcher in one incarnation of a container.
struct Ways<'a> {
    engine: &'a Engine,
    launcher: &'a Launcher,
    container: &'a str,
    started_at: Option<SystemTime>,
    user: Option<&'a str>,
    home: String,
    version: &'a str,
}

impl Ways<'_> {
    /// The first that works: what lies there already, what the engine writes into the root, what a shell writes elsewhere.
    async fn first(&self, name: &str, volume: &LauncherVolume) -> Result<Settled, EnterError> {
        let mut failed = Vec::new();
        let mut tell = |place: &str, no| match no {
            No::Here(why) => {
                failed.push(format!("{place} {why}"));
                Ok(())
            }
            No::Any(error) => Err(error),
        };
        let present = match self.present().await {
            Ok(()) => true,
            Err(no) => {
                tell(LAUNCHER_PATH, no)?;
                false
            }
        };
        match self.in_root(present).await {
            Ok(settled) => return Ok(settled),
            Err(no) => tell("/", no)?,
        }
        for dir in DIRS {
            match self.in_dir(dir, present).await {
                Ok(settled) => return Ok(settled),
                Err(no) => tell(dir, no)?,
            }
        }
        Err(EnterError::Refused(format!(
            "container {name} has no place for the launcher: {}; mount the volume {} at {LAUNCHER_DIR} read-only, or give it a tmpfs with exec",
            failed.join("; "),
            volume.name(),
        )))
    }

    /// Whether our own version has been mounted or built in.
    async fn present(&self) -> Result<(), No> {
        if !self.engine.has(self.container, LAUNCHER_PATH).await.map_err(|error| No::Any(error.into()))? {
            return Err(No::Here("is not there".to_owned()));
        }
        let said = self.said(&[LAUNCHER_PATH, "--version"], None, LOOK_DEADLINE).await?;
        match said.trim() {
            concat!("hivekeeper ", env!("CARGO_PKG_VERSION")) => Ok(()),
            said => Err(No::Here(format!("is not this version: {said}"))),
        }
    }

    /// Through the engine, which needs nothing in the container but a root that can be written.
    async fn in_root(&self, present: bool) -> Result<Settled, No> {
        let home = format!(".{}", self.home);
        let parcel = Parcel { home: &home, version: self.version };
        let (exe, _) = self.launcher.read().await.map_err(|why| No::Any(EnterError::Refused(why)))?;
        let delivered = self.engine.deliver(self.container, parcel, (!present).then_some(exe)).await;
        let was_there = delivered.map_err(|error| match error {
            DeliverError::Unwritable(why) => No::Here(format!("cannot be written: {why}")),
            DeliverError::ContainerMissing => No::Any(EnterError::NotYet(error.to_string())),
            DeliverError::Call(_) => No::Any(EnterError::Unreachable(error.to_string())),
            DeliverError::Read(_) => No::Any(EnterError::Refused(error.to_string())),
        })?;
        let launcher = if present { LAUNCHER_PATH.to_owned() } else { parcel.launcher_path() };
        self.settle(launcher, parcel.home_path(), true, was_there).await
    }

    /// Into a directory, by a shell as the user who is to run it; where a launcher is present, it makes its run directory there itself.
    async fn in_dir(&self, dir: &str, present: bool) -> Result<Settled, No> {
        let home = format!("{dir}/{}", self.home);
        if present {
            return self.settle(LAUNCHER_PATH.to_owned(), home, false, true).await;
        }
        let place = format!("{home}/{}", self.version);
        let look = ["sh", "-c", LOOK, "sh", dir, &self.home, self.version];
        match self.said(&look, None, LOOK_DEADLINE).await?.trim() {
            "have" => {}
            "want" => {
                let size = self.launcher.size().map_err(|why| No::Any(EnterError::Refused(why)))?.to_string();
                let receive = ["sh", "-c", RECEIVE, "sh", &place, &size];
                match self.said(&receive, Some(self.launcher), SEND_DEADLINE).await?.trim() {
                    "received" => {}
                    said => return Err(No::Here(format!("cannot hold it: {said}"))),
                }
            }
            said => return Err(No::Here(said.to_owned())),
        }
        self.settle(format!("{place}/hivekeeper"), home, false, true).await
    }

    /// Proves that the launcher runs, makes the run directory, and takes away what other starts and versions have left.
    async fn settle(&self, launcher: String, home: String, by_root: bool, was_there: bool) -> Result<Settled, No> {
        let door = Door {
            container: self.container.to_owned(),
            launcher,
            run_dir: format!("{home}/{}", run_name(self.started_at, self.user)),
            user: self.user.map(str::to_owned),
            started_at: self.started_at,
        };
        inside::settle(self.engine, &door).await?;
        let settled = Settled { door, home, version: self.version.to_owned(), by_root };
        if was_there {
            let start = run_name(self.started_at, None);
            if let Err(error) = clear(self.engine, &settled, &[&start, self.version]).await {
                tracing::debug!(home = settled.home, %error, "what an earlier start left in a container stays");
            }
        }
        Ok(settled)
    }

    /// What a command says until it ends, in its own words or the engine's.
    async fn said(&self, argv: &[&str], stdin: Option<&Launcher>, deadline: Duration) -> Result<String, No> {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        let order = ExecOrder { argv, user: self.user.map(str::to_owned), ..Default::default() };
        let exec = self.engine.exec(self.container, &order).await.map_err(VisitError::Exec)?;
        let Exec { stdout, stdin: mut input, stderr, .. } = exec;
        let mut out = Vec::new();
        let read = async { stdout.take(SAID_LEN_MAX).read_to_end(&mut out).await };
        let write = async {
            if let Some(launcher) = stdin {
                // Whoever does not take it says why.
                let _ = launcher.write_to(&mut input).await;
            }
        };
        let both = async { tokio::join!(read, write).0 };
        match timeout(deadline, both).await {
            Ok(Ok(_)) => Ok(format!("{} {}", String::from_utf8_lossy(&out).trim(), stderr.text().trim())),
            Ok(Err(error)) => Err(No::Any(EnterError::Unreachable(error.to_string()))),
            Err(_) => Err(No::Any(EnterError::Unreachable(format!("no answer within {} s", deadline.as_secs())))),
        }
    }
}

impl From<VisitError> for No {
    fn from(error: VisitError) -> Self {
        match error {
            VisitError::Spoke(why) => Self::Here(format!("cannot be used: {why}")),
            VisitError::Exec(error @ (ExecError::ContainerMissing | ExecError::NotRunning(_))) => {
                Self::Any(EnterError::NotYet(error.to_string()))
            }
            VisitError::Exec(error) => Self::Any(EnterError::Unreachable(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn hives_and_swarms_are_at_home_in_different_places() {
        let swarm = |name: &str| name.parse::<SwarmName>().unwrap();
        let (one, other) = (HiveId::mint(), HiveId::mint());
        let name = home_name(one, &swarm("review"));
        assert!(name.starts_with("hivekeeper-") && name.ends_with("-review"), "{name}");
        assert_ne!(name, home_name(other, &swarm("review")));
        assert_ne!(name, home_name(one, &swarm("reviews")));
        // With a dot before it and a slash behind it, the longest is a name that an archive takes.
        assert!(home_name(one, &swarm(&"s".repeat(63))).len() + 2 <= 100);
    }

    #[test]
    fn each_start_and_user_has_a_run_directory() {
        let at = |nanos| Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        let start = run_name(at(0xab), None);
        assert_eq!(start, "run-ab");
        assert_ne!(run_name(at(0xac), None), start);
        assert_eq!(run_name(at(0xab), Some("1000:100")), "run-ab-1000.100");
    }
}
