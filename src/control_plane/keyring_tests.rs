#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::store::{failing::FailingJournal, suite::scratch};

const FIRST: &str = "the-first-token-of-all";

fn at(s: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + s)
}

fn name(text: &str) -> TokenName {
    text.parse().unwrap()
}

struct Ground {
    ring: Keyring,
    journal: Arc<FailingJournal>,
    _dir: tempfile::TempDir,
}

fn ground() -> Ground {
    let (dir, journal) = scratch();
    let journal = Arc::new(FailingJournal::new(Arc::new(journal)));
    Ground { ring: Keyring::new(Arc::clone(&journal) as Arc<dyn Journal>, Some(FIRST)), journal, _dir: dir }
}

impl Ground {
    async fn reopened(&self) -> Keyring {
        Keyring::open(Arc::clone(&self.journal) as Arc<dyn Journal>, Some(FIRST)).await.unwrap()
    }
}

#[tokio::test]
async fn a_token_is_good_under_the_next_daemon_and_never_after_its_revocation() {
    let ground = ground();
    let minted = ground.ring.mint(name("ci"), Scope::Read, None, at(0)).await.unwrap();
    let secret = minted.secret.reveal();
    assert!(secret.starts_with(&format!("hk_{}_", minted.token.id)) && secret.len() == 3 + 12 + 1 + 64, "{secret}");
    for ring in [ground.ring.clone(), ground.reopened().await] {
        let key = ring.judge(secret, at(1)).unwrap();
        assert_eq!((key.name().as_str(), key.scope()), ("ci", Scope::Read));
        let last = secret.chars().last().unwrap();
        let wrong = format!("{}{}", &secret[..secret.len() - 1], if last == '0' { '1' } else { '0' });
        for bad in
            ["", "hk_", "hk__", &secret[..secret.len() - 1], &secret.to_uppercase(), &wrong, &format!("{secret}0")]
        {
            assert!(ring.judge(bad, at(1)).is_none(), "{bad}");
        }
        assert_eq!(ring.judge(FIRST, at(1)).unwrap().scope(), Scope::Control);
        assert!(!format!("{ring:?}{key:?}{minted:?}").contains(secret));
    }
    ground.ring.revoke(&minted.token.id, at(2)).await.unwrap();
    for ring in [ground.ring.clone(), ground.reopened().await] {
        assert!(ring.judge(secret, at(3)).is_none());
        assert_eq!(ring.list(at(3)), []);
    }
    let again = ground.ring.revoke(&minted.token.id, at(3)).await;
    assert!(matches!(again, Err(ControlError::NotFound { .. })));
}

#[tokio::test]
async fn names_are_taken_once_while_they_are_good() {
    let ground = ground();
    let end = Some(at(10));
    ground.ring.mint(name("ci"), Scope::Read, end, at(0)).await.unwrap();
    for taken in ["ci", "token_file"] {
        let refused = ground.ring.mint(name(taken), Scope::Read, None, at(1)).await;
        assert!(matches!(refused, Err(ControlError::Conflict { .. })), "{taken}");
    }
    let heir = ground.ring.mint(name("ci"), Scope::Control, None, at(10)).await.unwrap();
    assert_eq!(ground.ring.list(at(11)), [heir.token]);
}

#[tokio::test]
async fn what_the_journal_does_not_keep_is_not_minted_and_a_revocation_holds_at_least_here() {
    let ground = ground();
    let minted = ground.ring.mint(name("one"), Scope::Read, None, at(0)).await.unwrap();
    ground.journal.fail_writes(Some(StoreError::Full));
    let refused = ground.ring.mint(name("two"), Scope::Read, None, at(0)).await;
    assert!(matches!(refused, Err(ControlError::Journal { .. })));
    assert_eq!(ground.ring.list(at(1)).len(), 1);
    let refused = ground.ring.revoke(&minted.token.id, at(1)).await;
    assert!(matches!(refused, Err(ControlError::Journal { .. })));
    assert!(ground.ring.judge(minted.secret.reveal(), at(1)).is_none());
    ground.journal.fail_writes(None);
    ground.ring.revoke(&minted.token.id, at(2)).await.unwrap();
    assert!(ground.reopened().await.judge(minted.secret.reveal(), at(3)).is_none());
}

#[tokio::test]
async fn where_nobody_is_asked_nothing_is_minted() {
    let (_dir, journal) = scratch();
    let ring = Keyring::new(Arc::new(journal), None);
    assert!(ring.open_to_all());
    let refused = ring.mint(name("ci"), Scope::Read, None, at(0)).await;
    assert_eq!(refused.err(), Some(ControlError::OpenToAll));
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_token_hears_of_it() {
    let ground = ground();
    let mint = async |text, end| ground.ring.mint(name(text), Scope::Read, end, SystemTime::now()).await.unwrap();
    let (lasting, short) = (mint("lasting", None).await, mint("short", Some(SystemTime::now())).await);
    let now = SystemTime::now() - Duration::from_secs(1);
    let key = ground.ring.judge(lasting.secret.reveal(), now).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), key.ended()).await.is_err());
    ground.ring.judge(short.secret.reveal(), now).unwrap().ended().await;
    let ended = key.ended();
    ground.ring.revoke(key.id(), now).await.unwrap();
    ended.await;
}

#[tokio::test]
async fn a_ticket_lives_a_minute_and_dies_with_its_token() {
    let ground = ground();
    let minted = ground.ring.mint(name("page"), Scope::Read, None, at(0)).await.unwrap();
    let key = ground.ring.judge(minted.secret.reveal(), at(0)).unwrap();
    let ticket = || ground.ring.ticket(Some(Arc::clone(&key)), at(0)).unwrap();
    let ((one, ends_at), (two, _)) = (ticket(), ticket());
    assert_eq!(ends_at, at(60));
    assert_ne!(one, two);
    assert!(ground.ring.judge(one.reveal(), at(0)).is_none(), "it is no token");
    assert_eq!(ground.ring.redeem(one.reveal(), at(59)).unwrap().unwrap().id(), key.id());
    assert!(ground.ring.redeem(one.reveal(), at(60)).is_none());
    assert!(ground.ring.redeem("hkt_00", at(0)).is_none());
    ground.ring.revoke(key.id(), at(1)).await.unwrap();
    assert!(ground.ring.redeem(two.reveal(), at(1)).is_none());
    let (nobodys, _) = ground.ring.ticket(None, at(0)).unwrap();
    assert!(ground.ring.redeem(nobodys.reveal(), at(1)).unwrap().is_none());
}

#[tokio::test]
async fn tickets_are_bounded_and_those_that_ended_make_room() {
    let ground = ground();
    for _ in 0..TICKETS_MAX {
        ground.ring.ticket(None, at(0)).unwrap();
    }
    assert!(matches!(ground.ring.ticket(None, at(59)), Err(ControlError::Unavailable { .. })));
    ground.ring.ticket(None, at(60)).unwrap();
}

#[tokio::test]
async fn the_last_use_is_kept_to_the_minute() {
    let ground = ground();
    let minted = ground.ring.mint(name("ci"), Scope::Read, None, at(0)).await.unwrap();
    let used = async || ground.journal.tokens().await.unwrap()[0].last_used_at;
    for (now, kept) in [(10, 10), (11, 10), (69, 10), (70, 70)] {
        ground.ring.judge(minted.secret.reveal(), at(now)).unwrap();
        ground.ring.tidy(at(now)).await.unwrap();
        assert_eq!(used().await, Some(at(kept)), "{now}");
    }
    // What is written is not written again.
    ground.journal.fail_writes(Some(StoreError::Full));
    ground.ring.tidy(at(100)).await.unwrap();
    ground.ring.judge(minted.secret.reveal(), at(130)).unwrap();
    ground.ring.tidy(at(130)).await.unwrap_err();
}

#[tokio::test]
async fn tokens_are_bounded_and_those_that_ended_make_room() {
    let ground = ground();
    for n in 0..TOKENS_MAX {
        let expires_at = (n == 7).then(|| at(60));
        ground.ring.admit(name(&format!("t{n}")), Scope::Read, expires_at, at(0)).unwrap();
    }
    let more = async |now| ground.ring.mint(name("more"), Scope::Read, None, at(now)).await;
    assert!(matches!(more(59).await, Err(ControlError::Conflict { why }) if why.contains("1000 tokens")));
    more(61).await.unwrap();
}
