//! Who may use the API: tokens and the short-lived tickets that stand for them, verified from memory, kept by the journal.
//!
//! A token is `hk_`, its public id, and 256 random bits; only its hash is kept. It is found by its id, and the hashes are compared in constant
//! time. The configuration's token is the first one: it is always good, may everything, and without it nobody is asked for a token at all.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dashmap::DashMap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::desk::ControlError;
use crate::{
    model::{ApiToken, Scope, TokenId, TokenName},
    store::{Journal, StoreError},
};

/// What every secret begins with, so that people and scanners know one when they see it.
const SECRET_PREFIX: &str = "hk_";
/// The same of tickets.
const TICKET_PREFIX: &str = "hkt_";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Random bytes of an id; half of its digits.
const ID_BYTES: usize = 6;
/// Tokens that are good at a time: one for each of many scripts and people. Each request looks one up, and a list shows all.
const TOKENS_MAX: usize = 1000;
/// Tickets that are good at a time: each lives a minute, and a token's rate of requests bounds how many are asked for.
const TICKETS_MAX: usize = 16_384;
/// How long a ticket is good: time to open a connection with it, and to try again once or twice.
const TICKET_LIFE: Duration = Duration::from_secs(60);
/// Tokens that have not been good for so long are forgotten by the journal.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How exact the time of the last use is; it is written at most so often.
const USED_STEP_MS: u64 = 60_000;
/// Between two looks at the wall clock while something waits for a token to expire: a clock that is set must not keep it alive.
const EXPIRY_LOOK: Duration = Duration::from_secs(30);
/// The name under which the configuration's token acts.
const FIRST_NAME: &str = "token_file";

/// A token that was presented and is good, as the requests that it is presented with hold it.
pub struct Key {
    token: ApiToken,
    used_ms: AtomicU64,
    written_ms: AtomicU64,
    revoked: watch::Sender<bool>,
}

impl Key {
    fn new(token: ApiToken) -> Arc<Self> {
        let used_ms = token.last_used_at.map_or(0, millis);
        let revoked = watch::Sender::new(token.revoked_at.is_some());
        Arc::new(Self { token, used_ms: AtomicU64::new(used_ms), written_ms: AtomicU64::new(used_ms), revoked })
    }

    /// Its public half.
    pub fn id(&self) -> &TokenId {
        &self.token.id
    }

    /// What people call it.
    pub fn name(&self) -> &TokenName {
        &self.token.name
    }

    /// What it may do.
    pub fn scope(&self) -> Scope {
        self.token.scope
    }

    fn good(&self, now: SystemTime) -> bool {
        !*self.revoked.borrow() && self.token.expires_at.is_none_or(|end| now < end)
    }

    fn touch(&self, now: SystemTime) {
        let now_ms = millis(now);
        // Nearly every request only reads: a shared line that each one writes would cost them all.
        if now_ms >= self.used_ms.load(Ordering::Relaxed).saturating_add(USED_STEP_MS) {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Waits until it is no longer good. Whoever has let somebody in with it for longer than a request ends that then.
    pub async fn ended(&self) {
        let mut revoked = self.revoked.subscribe();
        let revoked = async move {
            // The sender is in `self`, which is borrowed: the wait ends with a revocation alone.
            let _ = revoked.wait_for(|revoked| *revoked).await;
        };
        let expired = async {
            let Some(end) = self.token.expires_at else { return std::future::pending().await };
            while let Ok(left) = end.duration_since(SystemTime::now())
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(EXPIRY_LOOK)).await;
            }
        };
        tokio::select! {
            () = revoked => {}
            () = expired => {}
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {:?})", self.token.name, self.token.scope)
    }
}

/// A new token: the only moment in which its secret is known.
#[derive(Debug, Clone)]
pub struct Minted {
    /// What is kept of it.
    pub token: ApiToken,
    /// What its owner presents.
    pub secret: Secret,
}

/// A text that is shown once, to its owner, and never in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

struct Ticket {
    /// Whose it is; `None` where nobody is asked for a token.
    key: Option<Arc<Key>>,
    expires_at: SystemTime,
}

struct Shared {
    journal: Arc<dyn Journal>,
    first: Option<Arc<Key>>,
    keys: DashMap<TokenId, Arc<Key>>,
    /// Held while a name is looked for and taken.
    naming: Mutex<()>,
    tickets: Mutex<HashMap<[u8; 32], Ticket>>,
}

/// A handle on the tokens; clones are the same.
#[derive(Clone)]
pub struct Keyring {
    shared: Arc<Shared>,
}

impl Keyring {
    /// The journal's tokens, and the configuration's.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn open(journal: Arc<dyn Journal>, first: Option<&str>) -> Result<Self, StoreError> {
        let known = journal.tokens().await?;
        let ring = Self::new(journal, first);
        let now = SystemTime::now();
        for key in known.into_iter().map(Key::new).filter(|key| key.good(now)) {
            ring.shared.keys.insert(key.id().clone(), key);
        }
        Ok(ring)
    }

    /// The configuration's token alone; `None` asks nobody for a token.
    pub fn new(journal: Arc<dyn Journal>, first: Option<&str>) -> Self {
        let first = first.and_then(|secret| {
            Some(Key::new(ApiToken {
                // No minted one has this id: the chance is that of guessing 48 bits, and nothing is looked up by it.
                id: "000000000000".parse().ok()?,
                name: FIRST_NAME.parse().ok()?,
                scope: Scope::Control,
                sha256: digest(secret),
                created_at: UNIX_EPOCH,
                expires_at: None,
                last_used_at: None,
                revoked_at: None,
            }))
        });
        Self {
            shared: Arc::new(Shared {
                journal,
                first,
                keys: DashMap::new(),
                naming: Mutex::default(),
                tickets: Mutex::default(),
            }),
        }
    }

    /// Whether nobody is asked for a token.
    pub fn open_to_all(&self) -> bool {
        self.shared.first.is_none()
    }

    /// The key of a text that somebody presents as a token; `None` when it is not, or no longer, good.
    pub fn judge(&self, presented: &str, now: SystemTime) -> Option<Arc<Key>> {
        let digest = digest(presented);
        let is = |key: &Key| bool::from(digest.ct_eq(&key.token.sha256));
        let found = match self.shared.first.as_ref().filter(|first| is(first)) {
            Some(first) => Arc::clone(first),
            None => {
                let id = presented.strip_prefix(SECRET_PREFIX)?.split_once('_')?.0.parse::<TokenId>().ok()?;
                let key = Arc::clone(self.shared.keys.get(&id)?.value());
                (is(&key) && key.good(now)).then_some(key)?
            }
        };
        found.touch(now);
        Some(found)
    }

    /// The tokens that are good, oldest first; the configuration's is not among them.
    pub fn list(&self, now: SystemTime) -> Vec<ApiToken> {
        let good = self.shared.keys.iter().filter(|key| key.good(now));
        let shown = good.map(|key| {
            let used_ms = key.used_ms.load(Ordering::Relaxed);
            let last_used_at = (used_ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(used_ms));
            ApiToken { last_used_at, ..key.token.clone() }
        });
        let mut tokens: Vec<_> = shown.collect();
        tokens.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        tokens
    }

    /// Makes a token. It is in the journal when this returns.
    ///
    /// # Errors
    /// `Conflict` when the name is taken or there are too many, `OpenToAll` when nobody is asked for a token, `Journal` when it can't be kept.
    pub async fn mint(
        &self,
        name: TokenName,
        scope: Scope,
        expires_at: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Minted, ControlError> {
        if self.open_to_all() {
            return Err(ControlError::OpenToAll);
        }
        let (minted, key) = self.admit(name, scope, expires_at, now)?;
        let forget_before = now.checked_sub(REMEMBERED).unwrap_or(UNIX_EPOCH);
        if let Err(error) = self.shared.journal.put_token(minted.token.clone(), forget_before).await {
            self.shared.keys.remove(key.id());
            return Err(ControlError::Journal { why: error.to_string() });
        }
        Ok(minted)
    }

    /// Takes a name and an id. Nobody knows the secret yet, so it does no harm that it is good before the journal has it.
    fn admit(
        &self,
        name: TokenName,
        scope: Scope,
        expires_at: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<(Minted, Arc<Key>), ControlError> {
        let conflict = |why: String| Err(ControlError::Conflict { why });
        let _naming = self.shared.naming.lock();
        self.shared.keys.retain(|_, key| key.good(now) || *key.revoked.borrow());
        if self.shared.keys.len() >= TOKENS_MAX {
            return conflict(format!("there are {TOKENS_MAX} tokens, and no more are allowed; revoke some"));
        }
        if name.as_str() == FIRST_NAME || self.shared.keys.iter().any(|key| key.good(now) && *key.name() == name) {
            return conflict(format!("a token with the name {name} is there; revoke it, or take another name"));
        }
        let id = loop {
            let id: TokenId =
                hex::<ID_BYTES>()?.parse().map_err(|_| ControlError::Unavailable { why: "no id".to_owned() })?;
            if !self.shared.keys.contains_key(&id) {
                break id;
            }
        };
        let secret = format!("{SECRET_PREFIX}{id}_{}", hex::<SECRET_BYTES>()?);
        let token = ApiToken {
            id,
            name,
            scope,
            sha256: digest(&secret),
            created_at: now,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        let key = Key::new(token.clone());
        self.shared.keys.insert(token.id.clone(), Arc::clone(&key));
        Ok((Minted { token, secret: Secret(secret) }, key))
    }

    /// Ends a token, what it has opened, and its tickets. The journal has it when this returns.
    ///
    /// # Errors
    /// `NotFound`; `Journal` when it can't be kept: the token has ended all the same, until this daemon does.
    pub async fn revoke(&self, id: &TokenId, now: SystemTime) -> Result<(), ControlError> {
        let key = self.shared.keys.get(id).map(|key| Arc::clone(key.value()));
        let Some(key) = key else { return Err(ControlError::NotFound { what: format!("token {id}") }) };
        key.revoked.send_replace(true);
        if let Err(error) = self.shared.journal.revoke_token(id, now).await {
            let why = format!("the token has ended, but only for as long as this daemon runs: {error}; try again");
            return Err(ControlError::Journal { why });
        }
        self.shared.keys.remove(id);
        Ok(())
    }

    /// A ticket that stands for a key, and when it ends.
    ///
    /// # Errors
    /// `Unavailable` when too many are about.
    pub fn ticket(&self, key: Option<Arc<Key>>, now: SystemTime) -> Result<(Secret, SystemTime), ControlError> {
        let text = format!("{TICKET_PREFIX}{}", hex::<SECRET_BYTES>()?);
        let expires_at = now + TICKET_LIFE;
        let mut tickets = self.shared.tickets.lock();
        if tickets.len() >= TICKETS_MAX {
            tickets.retain(|_, ticket| now < ticket.expires_at);
        }
        if tickets.len() >= TICKETS_MAX {
            return Err(ControlError::Unavailable { why: "too many tickets are about".to_owned() });
        }
        tickets.insert(digest(&text), Ticket { key, expires_at });
        Ok((Secret(text), expires_at))
    }

    /// Whose ticket it is; `None` when it is not, or no longer, good. It may be shown again until it ends, as a browser does that reconnects.
    pub fn redeem(&self, ticket: &str, now: SystemTime) -> Option<Option<Arc<Key>>> {
        // The map is asked by the hash of a random text: how long it takes says nothing that helps to find one.
        let tickets = self.shared.tickets.lock();
        let ticket = tickets.get(&digest(ticket)).filter(|ticket| now < ticket.expires_at)?;
        match &ticket.key {
            Some(key) if !key.good(now) => None,
            key => {
                if let Some(key) = key {
                    key.touch(now);
                }
                Some(key.clone())
            }
        }
    }

    /// Forgets tickets that have ended, and writes down when tokens were used; to be called every minute or so.
    ///
    /// # Errors
    /// The journal can't keep it; the next call tries again.
    pub async fn tidy(&self, now: SystemTime) -> Result<(), StoreError> {
        self.shared.tickets.lock().retain(|_, ticket| now < ticket.expires_at);
        let unwritten = |key: &Arc<Key>| {
            let used = key.used_ms.load(Ordering::Relaxed);
            (used > key.written_ms.load(Ordering::Relaxed)).then(|| (Arc::clone(key), used))
        };
        let used: Vec<_> = self.shared.keys.iter().filter_map(|key| unwritten(key.value())).collect();
        if used.is_empty() {
            return Ok(());
        }
        let seen = used.iter().map(|(key, used)| (key.id().clone(), UNIX_EPOCH + Duration::from_millis(*used)));
        self.shared.journal.tokens_used(seen.collect()).await?;
        for (key, used) in used {
            key.written_ms.fetch_max(used, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("tokens", &self.shared.keys.len()).finish_non_exhaustive()
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// So many random bytes as text.
fn hex<const N: usize>() -> Result<String, ControlError> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| ControlError::Unavailable { why: format!("no random bits: {error}") })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
