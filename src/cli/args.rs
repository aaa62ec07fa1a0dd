//! What may be typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    config::FlagValue,
    model::{AgentId, OperationId, SwarmName, Target},
};

use super::{
    events::EventsArgs, history::HistoryArgs, locks::LocksCommand, logs::LogsArgs, mcp::McpArgs,
    messages::MessagesCommand, notify::NotifyCommand, report::ReportArgs, tasks::TasksCommand, token::TokenCommand,
    work::Whose,
};

/// Shown below `--help`.
const AFTER_HELP: &str = "\
Without a command it is `serve`. A TARGET is a swarm (`demo`) or one agent (`demo/clock`).

Finding the daemon: --url, else HIVEKEEPER_URL, else endpoints.json in the data directory, else http://127.0.0.1:8080.
The API's token: HIVEKEEPER_API_TOKEN, else --token-file, else [http] token_file.
For https the daemon's certificate must be vouched for by --ca-file, else HIVEKEEPER_CA_FILE, else [http] tls_cert_file where
endpoints.json named the daemon, else a public authority.

Exit codes:
  0  it worked
  1  it failed: the operation failed, or the daemon is not ready
  2  wrong usage, or a mistake in the configuration
  3  the daemon can't be reached
  4  the daemon refused: not found, not allowed, not possible now
  5  not done in time; what was accepted goes on
  130  Ctrl-C; what was accepted goes on";

/// Keeps swarms of AI agents alive.
#[derive(Debug, Parser)]
#[command(name = "hivekeeper", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

/// For every command.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Configuration file [default: ./config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Data directory, instead of [hive] data_dir
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Where the daemon's API is
    #[arg(long, global = true, value_name = "URL")]
    pub(super) url: Option<String>,
    /// File with the API's token
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// File with the certificates that vouch for the daemon's, for https
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Print the API's JSON unchanged
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// For the daemon.
#[derive(Debug, Default, Args)]
pub(super) struct ServeArgs {
    /// Address of the API, instead of [http] bind
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) http: Option<String>,
    /// Address of the data plane, instead of [data_plane] bind
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) data_plane: Option<String>,
    /// How much the daemon says, instead of [log] level
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
}

impl ServeArgs {
    /// The flags as the configuration's last layer.
    pub(super) fn layer(&self, common: &Common) -> Vec<FlagValue> {
        let flags = [
            ("--data-dir", "hive", "data_dir", &common.data_dir),
            ("--http", "http", "bind", &self.http),
            ("--data-plane", "data_plane", "bind", &self.data_plane),
            ("--log-level", "log", "level", &self.log_level),
        ];
        let set = |(flag, table, key, value): (_, _, _, &Option<String>)| {
            value.clone().map(|value| FlagValue { flag, table, key, value })
        };
        flags.into_iter().filter_map(set).collect()
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon in the foreground
    Serve(ServeArgs),
    /// Write a configuration to begin with
    Init {
        /// Where config.toml is to be [default: here]
        dir: Option<PathBuf>,
    },
    /// Check the configuration and report all mistakes at once
    Check(ServeArgs),
    /// Look at everything that a daemon needs, and say what is wrong and the mend
    Doctor,
    /// List the agents
    Ps {
        /// More columns, and the last lines of what ended
        #[arg(short, long, value_enum, value_name = "FORM")]
        output: Option<Form>,
    },
    /// Watch the agents live, with keys to sort, filter, restart, stop, start and read logs
    Top,
    /// Show the supervision tree
    Tree,
    /// Show how the hive is, and why
    Health,
    /// Show what an agent wrote
    Logs(LogsArgs),
    /// Show what happened
    Events(EventsArgs),
    /// Show what was measured of a target over time
    History(HistoryArgs),
    /// Launch the swarms of documents, or change those that are there into what the documents say
    Up(UpArgs),
    /// Run one command as an agent until it ends: its output, its exit code; Ctrl-C stops it, twice kills it
    Run(RunArgs),
    /// Stop swarms and remove them
    Rm {
        /// Swarms
        #[arg(required = true, value_name = "SWARM")]
        swarms: Vec<SwarmName>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change how many of an agent run
    Scale {
        /// The agent of the document and the number that should run, such as demo/coder=5
        #[arg(value_name = "SWARM/AGENT=N", value_parser = scaled)]
        agent: Scaled,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Replace the agents of a target; clears window and back-off
    Restart {
        #[command(flatten)]
        ending: EndingArgs,
        /// One agent of the swarm at a time, the next once the one before is running; stops at the first that fails
        #[arg(long)]
        rolling: bool,
    },
    /// Stop a target; it stays stopped until `start`
    Stop(EndingArgs),
    /// Start what does not run
    Start(ActArgs),
    /// Freeze a swarm
    Pause(ActArgs),
    /// Unfreeze a swarm
    Resume(ActArgs),
    /// Wait until a target is as it should be
    Wait(UntilArgs),
    /// List, show, watch and cancel operations
    Operations {
        #[command(subcommand)]
        command: Option<OperationsCommand>,
    },
    /// List, create, claim and settle the tasks that agents share
    Tasks {
        #[command(subcommand)]
        command: Option<TasksCommand>,
        #[command(flatten)]
        whose: Whose,
    },
    /// List the locks that agents hold and wait for, and give one back
    Locks {
        #[command(subcommand)]
        command: Option<LocksCommand>,
        #[command(flatten)]
        whose: Whose,
    },
    /// List, send and take messages between agents
    Messages {
        #[command(subcommand)]
        command: Option<MessagesCommand>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Report on the tasks as Markdown: what was finished, by whom, what is blocked and why
    Report(ReportArgs),
    /// Let the daemon read its configuration file again, and do what has changed in it
    Reload {
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Look through the container engine for what nobody wants any more, and remove it
    Reconcile {
        /// Tell what is there, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Make, list and take back tokens of the API
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Show who is told when something is wrong, and try it
    Notify {
        #[command(subcommand)]
        command: NotifyCommand,
    },
    /// Serve MCP on standard input and output, for any MCP client; inside an agent in its name
    Mcp(McpArgs),
    /// Exit 0 when the daemon is ready, else 1
    Ready,
    /// Copy the hive of this data directory into a file; the daemon may run
    Backup {
        /// The file, a tar archive; what was there is replaced
        file: PathBuf,
        /// The log books, too
        #[arg(long)]
        logs: bool,
    },
    /// Make the data directory, which must be new or empty, out of a backup
    Restore {
        /// What `backup` wrote
        file: PathBuf,
    },
    /// Let the daemon of this data directory exit at once and leave its agents to the next one
    Handover,
    /// Write what a shell needs to complete what is typed
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual's first page, or all of its pages into a directory
    Man {
        /// A directory such as ~/.local/share/man/man1
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Internal: run one agent under a lease; started by the daemon
    #[command(hide = true)]
    Agent {
        /// Read by the launcher itself.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// How a list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Everything.
    Wide,
}

#[derive(Debug, Args)]
pub(super) struct ActArgs {
    /// A swarm, or SWARM/NAME
    #[arg(value_parser = target)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// For whatever becomes an operation.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Return as soon as the command is accepted
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How long to wait for the end
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub(super) timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// Files with [[swarm]] tables in TOML, or the same in JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Name of the swarm that is made for it [default: run- and eight random letters]
    #[arg(long, value_name = "SWARM")]
    pub(super) name: Option<SwarmName>,
    /// Leave it to the daemon once it runs, and print which agent it is; `rm` removes it
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Whether it is started again when it ends
    #[arg(long, value_enum, value_name = "TYPE", default_value = "temporary")]
    pub(super) restart: Restart,
    /// Run it in a container of this image
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Give it a variable; without a value the one that is set here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(super) env: Vec<String>,
    /// Where it works [default: here, or where the image says]
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<PathBuf>,
    /// With --detach: how long to wait until it runs
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub(super) timeout: Duration,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

/// OTP's words for whether an end is followed by another start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Restart {
    /// Never
    Temporary,
    /// After a failure
    Transient,
    /// Always
    Permanent,
}

impl Restart {
    /// The document's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Temporary => "temporary",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct UntilArgs {
    /// A swarm, or SWARM/NAME
    #[arg(value_parser = target)]
    pub(super) target: Target,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "STATE", default_value = "running")]
    pub(super) goal: Goal,
    /// How long to wait
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub(super) timeout: Duration,
}

/// What may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Goal {
    /// Every agent runs, or has done its work
    Running,
    /// Every agent has ended
    Stopped,
    /// Every agent runs or has done its work, and nothing is to be said against it
    Healthy,
}

/// What `operations` does; without a word it lists.
#[derive(Debug, Subcommand)]
pub(super) enum OperationsCommand {
    /// List the latest operations
    Ls {
        /// How many at most [default: 50]
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Show one operation and its steps
    Show {
        /// The operation's id
        #[arg(value_parser = operation)]
        id: OperationId,
    },
    /// Follow one operation to its end
    Watch {
        /// The operation's id
        #[arg(value_parser = operation)]
        id: OperationId,
        /// How long to wait for the end
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
        timeout: Duration,
    },
    /// Call one operation off, as far as it is not done
    Cancel {
        /// The operation's id
        #[arg(value_parser = operation)]
        id: OperationId,
    },
}

/// `demo/coder=5`
#[derive(Debug, Clone)]
pub(super) struct Scaled {
    /// The name is the document's, without a number.
    pub(super) agent: AgentId,
    pub(super) replicas: u32,
}

#[derive(Debug, Args)]
pub(super) struct EndingArgs {
    #[command(flatten)]
    pub(super) act: ActArgs,
    /// Time between SIGTERM and SIGKILL, instead of the document's stop_grace
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) grace: Option<Duration>,
    /// Text for the history
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "allowed: a number with a unit (ms, s, m, h, d), such as 30s".to_owned())
}

fn scaled(text: &str) -> Result<Scaled, String> {
    let allowed = || "allowed: SWARM/AGENT=N, such as demo/coder=5".to_owned();
    let (agent, replicas) = text.rsplit_once('=').ok_or_else(allowed)?;
    let agent = agent.parse::<AgentId>().map_err(|error| error.to_string())?;
    Ok(Scaled { agent, replicas: replicas.parse().map_err(|_| allowed())? })
}

fn operation(text: &str) -> Result<OperationId, String> {
    text.parse().map_err(|_| "allowed: an id that `hivekeeper operations` shows".to_owned())
}

pub(super) fn target(text: &str) -> Result<Target, String> {
    if text.contains('/') {
        return text.parse::<AgentId>().map(Target::Agent).map_err(|error| error.to_string());
    }
    text.parse::<SwarmName>().map(Target::Swarm).map_err(|error| error.to_string())
}
