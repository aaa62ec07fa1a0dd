//! The volume that brings the launcher into every container: filled once with our own executable, mounted read-only, so that an image needs nothing.

use std::{collections::HashMap, fs::File, sync::Arc, time::Duration};

use bollard::{
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{CreateContainerOptionsBuilder, RemoveVolumeOptions},
};
use tokio::time::Instant;

use super::{
    client::{CHANGE_DEADLINE, Engine, LOOK_DEADLINE, bounded},
    error::{CallError, ContainerError, VolumeError},
    names::{image_ref, label},
    parcel::{COMPLETE, FILE, SendError},
    plan::LAUNCHER_DIR,
};

/// How long another daemon may be at it. Longer than its own deadline, so that who holds the place then has died over it.
const FILLING_MAX: Duration = Duration::from_secs(150);
/// Between two looks whether another daemon is done: a fill takes about a second.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A volume that holds the launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherVolume {
    name: String,
    digest: String,
}

impl LauncherVolume {
    /// The volume for an executable, named after 16 digits of its SHA-256, whether the volume is there or not.
    ///
    /// # Errors
    /// The digest is not 64 hexadecimal digits in lower case.
    pub fn of(digest: &str) -> Result<Self, VolumeError> {
        if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(VolumeError::Digest(digest.chars().take(80).collect()));
        }
        Ok(Self { name: format!("hivekeeper-launcher-{}", &digest[..16]), digest: digest.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// No hive's id among them: it is every hive's, and no hive's orphan.
    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (label::MANAGED_BY.to_owned(), label::US.to_owned()),
            (label::LAUNCHER.to_owned(), self.digest.clone()),
        ])
    }

    /// The volume at its place. Nothing of the image is copied into it: an image must not choose what is in there. An engine that does not find the
    /// volume makes an empty one; with these labels it is one that [`Engine::ensure_launcher_volume`] fills.
    pub(super) fn mount(&self, read_only: bool) -> Mount {
        let options = MountVolumeOptions { no_copy: Some(true), labels: Some(self.labels()), ..Default::default() };
        Mount {
            typ: Some(MountType::VOLUME),
            source: Some(self.name.clone()),
            target: Some(LAUNCHER_DIR.to_owned()),
            read_only: Some(read_only),
            volume_options: Some(options),
            ..Default::default()
        }
    }
}

impl Engine {
    /// Makes sure that the volume with this executable is there and whole. All hives on an engine share it. `image` is any image that the engine has;
    /// a container of it is made for the filling and never started. `digest` is the executable's SHA-256, hexadecimal. At most 5 minutes, most of
    /// them only behind another daemon that died at it.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn ensure_launcher_volume(
        &self,
        image: &str,
        exe: &Arc<File>,
        digest: &str,
    ) -> Result<LauncherVolume, VolumeError> {
        let volume = LauncherVolume::of(digest)?;
        image_ref(image)?;
        let _filling = self.inner.filling.lock().await;
        self.make_volume(&volume).await?;
        let place = self.take_filling_place(&volume, image).await?;
        let filled = match self.is_complete(&place).await {
            Ok(true) => Ok(()),
            Ok(false) => self.fill(&place, exe).await,
            Err(error) => Err(error.into()),
        };
        // It frees the place for others, and is tried whatever became of the filling, whose error goes first.
        let freed = self.force_remove(&place).await;
        filled?;
        freed.map_err(call)?;
        Ok(volume)
    }

    /// Removes a launcher's volume. One that is not there is fine; one that a container uses is refused by the engine.
    ///
    /// # Errors
    /// A volume of that name was not made by a hivekeeper, or a call fails.
    pub async fn remove_launcher_volume(&self, volume: &LauncherVolume) -> Result<(), VolumeError> {
        let name = volume.name();
        let found = match bounded(LOOK_DEADLINE, self.docker().inspect_volume(name)).await {
            Ok(found) => found,
            Err(error) if error.status() == Some(404) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !found.labels.contains_key(label::LAUNCHER) {
            return Err(VolumeError::Foreign(name.to_owned()));
        }
        match bounded(CHANGE_DEADLINE, self.docker().remove_volume(name, None::<RemoveVolumeOptions>)).await {
            Err(error) if error.status() != Some(404) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Making one that is there changes nothing.
    async fn make_volume(&self, volume: &LauncherVolume) -> Result<(), VolumeError> {
        let request = VolumeCreateRequest {
            name: Some(volume.name.clone()),
            labels: Some(volume.labels()),
            ..Default::default()
        };
        bounded(CHANGE_DEADLINE, self.docker().create_volume(request)).await?;
        // The answer itself shows no labels of a volume that the engine has known since before its last start (seen with 20.10).
        let there = bounded(LOOK_DEADLINE, self.docker().inspect_volume(&volume.name)).await?;
        let ours = there.labels.get(label::LAUNCHER).is_some_and(|found| *found == volume.digest);
        if ours { Ok(()) } else { Err(VolumeError::Foreign(volume.name.clone())) }
    }

    /// Makes the container through which the volume is filled. Its name is the lock: an engine gives it to one daemon at a time.
    async fn take_filling_place(&self, volume: &LauncherVolume, image: &str) -> Result<String, VolumeError> {
        let name = format!("{}-fill", volume.name);
        let deadline = Instant::now() + FILLING_MAX;
        loop {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let body = self.filling_body(volume, image);
            match bounded(CHANGE_DEADLINE, self.docker().create_container(Some(options), body)).await {
                Ok(made) => return Ok(made.id),
                Err(error) if error.status() == Some(404) => return Err(VolumeError::ImageMissing(image.to_owned())),
                Err(error) if error.status() == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= deadline {
                return Err(VolumeError::Busy(volume.name.clone()));
            }
            self.free_if_dead(&name, deadline).await?;
        }
    }

    /// Frees the place when its holder is an earlier daemon of this hive, which lives no longer, or another hive's that has not let go for too long.
    async fn free_if_dead(&self, name: &str, deadline: Instant) -> Result<(), VolumeError> {
        let holder = match self.inspect(name).await {
            Ok(holder) => holder,
            Err(ContainerError::Missing) => return Ok(()),
            Err(error) => return Err(call(error)),
        };
        if self.inner.owner.owns(&holder.labels) {
            return self.force_remove(&holder.id).await.map_err(call);
        }
        while Instant::now() < deadline {
            tokio::time::sleep(LOOK_AGAIN).await;
            match self.inspect(&holder.id).await {
                Ok(_) => {}
                Err(ContainerError::Missing) => return Ok(()),
                Err(error) => return Err(call(error)),
            }
        }
        // The one case in which something of another hive is touched: a container that never ran and that nobody can be using.
        if holder.labels.get(label::MANAGED_BY).is_some_and(|by| by == label::US) {
            self.force_remove(&holder.id).await.map_err(call)?;
        }
        Ok(())
    }

    fn filling_body(&self, volume: &LauncherVolume, image: &str) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(image.to_owned()),
            // Never run; an engine wants one.
            entrypoint: Some(vec![format!("/{FILE}")]),
            cmd: Some(Vec::new()),
            labels: Some(self.inner.owner.labels(None)),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                mounts: Some(vec![volume.mount(false)]),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Whether the volume that this container mounts holds a whole launcher; the container need not run.
    pub(super) async fn is_complete(&self, place: &str) -> Result<bool, CallError> {
        self.has(place, &format!("{LAUNCHER_DIR}/{COMPLETE}")).await
    }

    async fn fill(&self, place: &str, exe: &Arc<File>) -> Result<(), VolumeError> {
        self.send_launcher(place, LAUNCHER_DIR, Vec::new(), "", exe).await.map_err(|error| match error {
            SendError::Read(error) => VolumeError::Read(error),
            SendError::Call(error) => VolumeError::Call(error),
        })
    }
}

fn call(error: ContainerError) -> VolumeError {
    VolumeError::Call(match error {
        ContainerError::Call(error) => error,
        other => CallError::Refused { status: 409, message: other.to_string() },
    })
}
