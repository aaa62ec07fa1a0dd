//! Answers that others have to bring about first, and how long anybody wants them.

use std::{future::pending, time::Duration};

use actix_web::HttpRequest;
use tokio::time::sleep;

use super::{
    error::{Code, Problem},
    guard,
    sse::Streams,
};
use crate::stream;

/// How long a call may go on once the server is asked to stop: one that does not wait for anybody needs a commit's time.
const CLOSING_GRACE: Duration = Duration::from_millis(500);
/// What takes longer waits for somebody. What does not is not worth a descriptor to watch its connection by.
const QUICK: Duration = Duration::from_millis(50);

/// Brings a call to its end, as long as somebody wants the answer: whoever has sent the request is there, his token is good, and the server goes on. A call
/// that nobody waits for must not take what others want: it would be given to nobody.
///
/// # Errors
/// Why nobody wants it any more; the call was dropped.
pub(super) async fn while_wanted<T>(
    request: &HttpRequest,
    streams: &Streams,
    call: impl Future<Output = T>,
) -> Result<T, Problem> {
    let key = guard::key(request);
    let revoked = async {
        match &key {
            Some(key) => key.ended().await,
            None => pending().await,
        }
    };
    let left = async {
        sleep(QUICK).await;
        stream::hung_up(request).await;
    };
    tokio::select! {
        biased;
        () = left => Err(Problem::new(Code::RequestTimeout, "the connection was closed before the answer was there")),
        () = revoked => Err(Problem::new(Code::InvalidToken, "the bearer token ended while this waited")),
        answer = call => Ok(answer),
        () = streams.closed(CLOSING_GRACE) => Err(Problem::new(Code::ShuttingDown, "the daemon is shutting down")),
    }
}
