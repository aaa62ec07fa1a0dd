//! Opens what outlives a daemon, and takes over what an earlier one left.

use std::{sync::Arc, time::SystemTime};

use anyhow::Context as _;

use crate::{
    config::Config,
    control_plane::{
        chronicle::SEQS_AHEAD,
        document,
        plan::{self, BootPlan, Found, FoundSwarm},
        recover::{self, Fenced, Takeover},
    },
    model::{Operation, Seq, SwarmSpec},
    runtime::{AgentDeps, Runtimes},
    store::{DataDir, Journal, LogBook, LogLimits, Options, SqliteJournal, StoreError, SwarmRow, WorkStore},
    view::SwarmDocument,
};

/// Segments of an agent's log book: the oldest one goes at a time, so an eighth of its lines at most.
const SEGMENTS: u64 = 8;
/// Shortest and longest segment: a screenful is not worth a file, and beyond some megabytes a search gets slow.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=4 * 1024 * 1024;

/// What is open for as long as the daemon lives.
pub(super) struct Ground {
    pub(super) data: Arc<DataDir>,
    pub(super) journal: Arc<dyn Journal>,
    /// The same file.
    pub(super) work: Arc<dyn WorkStore>,
    pub(super) logs: LogBook,
}

/// Takes the data directory and opens journal and log books.
pub(super) fn open(config: &Config) -> anyhow::Result<Ground> {
    let path = &config.hive.data_dir;
    let data = DataDir::open(path, &config.hive.name, Options::default())
        .with_context(|| format!("failed to take the data directory {}", path.display()))?;
    let journal = Arc::new(SqliteJournal::open(&data.database(), data.epoch()).context("failed to open the journal")?);
    let limits = LogLimits {
        bytes_per_agent: config.log.agent_bytes_max,
        total_bytes: config.log.total_bytes_max,
        segment_bytes: (config.log.agent_bytes_max / SEGMENTS).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()),
    };
    let logs = LogBook::open(&data.logs_dir(), limits, data.fence()).context("failed to open the log books")?;
    Ok(Ground { data: Arc::new(data), work: Arc::clone(&journal) as _, journal, logs })
}

/// The first number of this daemon's feed, and up to which number it may go without asking again.
pub(super) async fn numbers(journal: &dyn Journal) -> anyhow::Result<(Seq, Seq)> {
    let last = journal.last_reserved().await.context("failed to read the journal")?;
    let upto = Seq(last.0 + SEQS_AHEAD);
    journal.reserve_seqs(upto).await.context("failed to write the journal")?;
    Ok((Seq(last.0 + 1), upto))
}

/// What an earlier daemon left, put beside what is configured; and the documents that it worked with.
pub(super) async fn plan(
    journal: &dyn Journal,
    config: &[SwarmSpec],
) -> anyhow::Result<(BootPlan, Vec<SwarmSpec>, Vec<Operation>)> {
    let read = async {
        Ok::<_, StoreError>(Found {
            swarms: journal.swarms().await?.into_iter().map(found).collect(),
            desires: journal.agent_desires().await?.into_iter().collect(),
            open: journal.open_incarnations().await?,
            unfinished: journal.unfinished_operations().await?,
        })
    };
    let found = read.await.context("failed to read the journal")?;
    let plan = plan::boot(config, &found, SystemTime::now())?;
    let Found { swarms, unfinished, .. } = found;
    Ok((plan, swarms.into_iter().filter_map(|swarm| swarm.spec).collect(), unfinished))
}

/// Clears what stood in the journal for agents that are not what they were. Before anything else of the plan is carried out: a daemon that dies in
/// between finds the old documents and does it again.
pub(super) async fn clear(journal: &dyn Journal, plan: &BootPlan) -> Result<(), StoreError> {
    for agent in &plan.dropped {
        document::renew(journal, agent, true).await?;
    }
    for agent in &plan.renewed {
        document::renew(journal, agent, false).await?;
    }
    Ok(())
}

fn found(row: SwarmRow) -> FoundSwarm {
    let spec = serde_json::from_str::<SwarmDocument>(&row.document)
        .map_err(|error| error.to_string())
        .and_then(|document| document.into_spec(row.origin).map_err(|error| error.to_string()));
    if let Err(error) = &spec {
        tracing::warn!(swarm = %row.name, %error, "a journaled document can't be read; its agents are taken over as they are");
    }
    let scaled = document::scaled_of(&row);
    let SwarmRow { name, origin, desired, since, .. } = row;
    FoundSwarm { name, origin, spec: spec.ok(), scaled, desired, since }
}

/// Takes over or ends what lives, then writes down what is desired now. In this order: a daemon that dies in between finds the old documents,
/// and so still knows which agents run something else.
pub(super) async fn settle(deps: &Arc<AgentDeps>, plan: &mut BootPlan) -> anyhow::Result<Result<Takeover, Fenced>> {
    let takeover = match recover::recover(deps, plan).await {
        Ok(takeover) => takeover,
        Err(fenced) => return Ok(Err(fenced)),
    };
    let known: Vec<_> = plan.adopt.iter().chain(&plan.end).map(|open| open.begun.launch_id).collect();
    for runtime in deps.runtimes.all() {
        for stray in runtime.orphans(known.clone(), true).await {
            tracing::warn!(launch = %stray, "a launcher that the journal does not know was ended");
        }
    }
    write_down(&*deps.journal, &deps.runtimes, plan).await.context("failed to write the journal")?;
    Ok(Ok(takeover))
}

async fn write_down(journal: &dyn Journal, runtimes: &Runtimes, plan: &BootPlan) -> Result<(), StoreError> {
    for name in &plan.removed {
        journal.remove_swarm(name).await?;
        tracing::info!(swarm = %name, "this swarm is not wanted any more; its agents were ended");
        runtimes.evict(name).await;
    }
    for swarm in &plan.swarms {
        journal.put_swarm(document::row(swarm)).await?;
    }
    Ok(())
}
