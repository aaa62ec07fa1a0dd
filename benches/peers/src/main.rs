//! `hivekeeper-ingest-peers PORT THREADS`: an MCP server of rmcp's on a port of 127.0.0.1 that counts custom notifications and does nothing else with
//! them. THREADS is 1 for tokio's current_thread runtime, else the workers of its multi_thread one.
//!
//! rmcp hands a notification to a task of its own, so an answer to a request may overtake what was sent before it. The request `bench/handled` with
//! `{"count": N}` is answered once the handler has run N times on that connection. `benches/ingest.rs` starts this program and says what is measured.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use rmcp::{
    ErrorData, ServerHandler,
    model::{CustomNotification, CustomRequest, CustomResult},
    service::{NotificationContext, RequestContext, RoleServer},
};
use serde_json::json;
use tokio::{net::TcpListener, runtime::Builder, sync::Notify};

fn main() -> ExitCode {
    let numbers: Vec<u16> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [port, threads] = numbers.as_slice() else {
        eprintln!("usage: hivekeeper-ingest-peers PORT THREADS");
        return ExitCode::FAILURE;
    };
    let runtime = match threads {
        1 => Builder::new_current_thread().enable_all().build(),
        many => Builder::new_multi_thread().worker_threads(usize::from(*many)).enable_all().build(),
    };
    match runtime.and_then(|runtime| runtime.block_on(serve(*port))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hivekeeper-ingest-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let stream = listener.accept().await?.0;
        // The halves that need no lock.
        let (read, write) = stream.into_split();
        tokio::spawn(async move {
            match rmcp::serve_server(Counting::default(), (read, write)).await {
                Ok(service) => drop(service.waiting().await),
                // Somebody looked whether we are there.
                Err(error) => eprintln!("hivekeeper-ingest-peers: a session did not begin: {error}"),
            }
        });
    }
}

#[derive(Default)]
struct Counting {
    handled: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
}

impl ServerHandler for Counting {
    async fn on_custom_notification(&self, notification: CustomNotification, _: NotificationContext<RoleServer>) {
        if notification.method.starts_with("hive/") && notification.params.is_some() {
            let handled = self.handled.fetch_add(1, SeqCst) + 1;
            if handled == self.wanted.load(SeqCst) {
                self.reached.notify_one();
            }
        }
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let wanted = request.params.as_ref().and_then(|params| params.get("count")?.as_u64());
        let (true, Some(wanted)) = (request.method == "bench/handled", wanted) else {
            return Err(ErrorData::invalid_params("bench/handled with a count is known", None));
        };
        // Told before it is looked at, and the handler counts before it looks: one of the two sees the other.
        self.wanted.store(wanted, SeqCst);
        while self.handled.load(SeqCst) < wanted {
            self.reached.notified().await;
        }
        Ok(CustomResult::new(json!({"handled": self.handled.load(SeqCst)})))
    }
}
