//! From the arguments to a command, and from its end to an exit code.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use ratatui::crossterm;
use serde_json::{Value, json};

use crate::{
    app::program,
    config::{Config, FILE_NAME, LoadArgs, Loader, read_file, resolve_path},
};

use super::{
    advice,
    args::{ActArgs, Cli, Command, Common, EndingArgs, OperationsCommand, ServeArgs},
    attached, backup, check,
    client::Client,
    commands, doctor,
    error::{CliError, Exit},
    events, handover, history, init,
    interrupt::Interrupts,
    locate::{self, Place},
    locks, logs, manual, mcp, messages, notify, operations, probes,
    progress::Patience,
    ps, reconcile, reload, report,
    screen::Screen,
    tasks, token, top, tree, up, wait,
};

/// Runs the daemon until it ends, with its configuration and what reads that again.
pub type Serve<'a> = &'a mut dyn FnMut(Config, Loader) -> anyhow::Result<()>;

/// Everything of the machine that a command looks at besides its arguments.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The absolute working directory.
    pub cwd: PathBuf,
    /// What ages are counted from.
    pub now: fn() -> SystemTime,
    /// Where Ctrl-C is heard.
    pub interrupts: Interrupts,
}

impl Surroundings {
    /// Those of this process. Variables that are not UTF-8 are none of ours.
    ///
    /// # Errors
    /// The working directory can't be told.
    pub fn of_this_process() -> io::Result<Self> {
        let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Ok(Self {
            env: env.collect(),
            cwd: std::env::current_dir()?,
            now: SystemTime::now,
            interrupts: Interrupts::of_this_process(),
        })
    }
}

/// Runs a command line of this process. `serve` runs the daemon when that is asked for, and its exit code is then ours.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(Config, Loader) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    let around = match Surroundings::of_this_process() {
        Ok(around) => around,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hivekeeper: can't tell the working directory: {error}");
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let no_colour = around.env.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stdout().is_terminal() && !no_colour;
    let is_terminal = io::stderr().is_terminal() && around.env.get("TERM").is_none_or(|term| term != "dumb");
    let live = is_terminal.then(|| crossterm::terminal::size().map_or(80, |(columns, _)| columns));
    let mut screen = Screen { out: &mut io::stdout(), err: &mut io::stderr(), colour, live };
    let (mut serve, mut served) = (Some(serve), None);
    let exit = execute(args, &around, &mut screen, &mut |config, load| {
        if let Some(serve) = serve.take() {
            served = Some(serve(config, load)?);
        }
        Ok(())
    });
    served.unwrap_or_else(|| ExitCode::from(exit.code()))
}

/// Runs a command line within given surroundings.
pub fn execute(
    args: impl IntoIterator<Item = OsString>,
    around: &Surroundings,
    screen: &mut Screen<'_>,
    serve: Serve<'_>,
) -> Exit {
    let cli = match manual::parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render();
            // Help that was asked for is an answer, everything else a complaint.
            let to: &mut dyn Write = if error.use_stderr() { screen.err } else { screen.out };
            let _ = write!(to, "{text}");
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let outcome = dispatch(&cli, around, screen, serve).and_then(|()| Ok(screen.out.flush()?));
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::Done && !matches!(error, CliError::Told(_)) {
                screen.note(&format!("hivekeeper: {error}"));
                let client = || Client::new(locate::daemon(&place(&cli.common, around), &cli.common)?);
                if let Some(meant) = advice::meant(&error, client) {
                    screen.note(&meant);
                }
            }
            exit
        }
    }
}

fn dispatch(cli: &Cli, around: &Surroundings, screen: &mut Screen<'_>, serve: Serve<'_>) -> Result<(), CliError> {
    let common = &cli.common;
    let json = common.json;
    let Some(command) = &cli.command else { return daemon(&cli.serve, common, around, serve) };
    if cli.serve.http.is_some() || cli.serve.data_plane.is_some() || cli.serve.log_level.is_some() {
        return Err(CliError::Usage("--http, --data-plane and --log-level go behind `serve` or `check`".to_owned()));
    }
    let client = || Client::new(locate::daemon(&place(common, around), common)?);
    let patience = |timeout| Patience { timeout, interrupts: &around.interrupts, json };
    let act = |screen: &mut Screen<'_>, verb: &str, body: Value, act: &ActArgs| {
        commands::act(&client()?, verb, &body, act, patience(act.wait.timeout), screen)
    };
    let ending = |args: &EndingArgs| commands::ending(args.grace, args.reason.as_deref());
    if follows(command, json) {
        around.interrupts.end_with_reader();
    }
    match command {
        Command::Serve(args) => return daemon(args, common, around, serve),
        Command::Check(args) => check::check(load(args, common, around), json, screen)?,
        Command::Doctor => {
            let ground = doctor::Ground { place: place(common, around), client: &client };
            doctor::doctor(&ground, json, screen)?;
        }
        Command::Ps { output } => ps::ps(&client()?, output.is_some(), json, (around.now)(), screen)?,
        Command::Top => top::top(&client()?, around.now, &around.interrupts, json, screen)?,
        Command::Tree => tree::tree(&client()?, json, (around.now)(), screen)?,
        Command::Health => probes::health(&client()?, json, (around.now)(), screen)?,
        Command::Logs(args) => logs::logs(&client()?, args, json, screen)?,
        Command::Events(args) => events::events(&client()?, args, json, (around.now)(), screen)?,
        Command::History(args) => history::history(&client()?, args, json, screen)?,
        Command::Restart { ending: args, rolling } => {
            act(screen, "restart", commands::restart(ending(args), *rolling, &args.act.target)?, &args.act)?;
        }
        Command::Stop(args) => act(screen, "stop", ending(args), &args.act)?,
        Command::Start(args) => act(screen, "start", json!({}), args)?,
        Command::Pause(args) => act(screen, "pause", json!({}), args)?,
        Command::Resume(args) => act(screen, "resume", json!({}), args)?,
        Command::Up(args) => up::up(&client()?, args, &around.cwd, patience(args.wait.timeout), screen)?,
        Command::Run(args) => {
            attached::run(&client()?, args, &around.cwd, &around.env, &around.interrupts, json, screen)?;
        }
        Command::Scale { agent, wait } => commands::scale(&client()?, agent, wait, patience(wait.timeout), screen)?,
        Command::Rm { swarms, wait } => commands::rm(&client()?, swarms, wait, patience(wait.timeout), screen)?,
        Command::Wait(args) => wait::wait(&client()?, args, &around.interrupts, json, screen)?,
        Command::Operations { command } => {
            let command = command.as_ref().unwrap_or(&OperationsCommand::Ls { limit: None });
            operations::operations(&client()?, command, patience, (around.now)(), screen)?;
        }
        Command::Tasks { command, whose } => {
            let seen = (around.cwd.as_path(), (around.now)());
            tasks::tasks(&client()?, command.as_ref(), whose, seen, json, screen)?;
        }
        Command::Locks { command, whose } => {
            locks::locks(&client()?, command.as_ref(), whose, (around.now)(), json, screen)?;
        }
        Command::Messages { command, whose } => {
            messages::messages(&client()?, command.as_ref(), whose, (around.now)(), json, screen)?;
        }
        Command::Report(args) => report::report(&client()?, args, &around.cwd, json, screen)?,
        Command::Init { dir } => start(dir.as_deref(), common, around, screen)?,
        Command::Reload { dry_run, wait } => {
            reload::reload(&client()?, *dry_run, wait, patience(wait.timeout), screen)?;
        }
        Command::Reconcile { dry_run } => reconcile::reconcile(&client()?, *dry_run, json, screen)?,
        Command::Token { command } => token::token(&client()?, command, json, (around.now)(), screen)?,
        Command::Notify { command } => notify::notify(&client()?, command, json, screen)?,
        Command::Mcp(args) => mcp::mcp(args, around, client, screen)?,
        Command::Completions { shell } => manual::completions(*shell, json, screen)?,
        Command::Man { dir } => manual::man(dir.as_ref().map(|dir| around.cwd.join(dir)).as_deref(), json, screen)?,
        Command::Ready => probes::ready(&client()?, json, screen)?,
        Command::Backup { file, logs } => {
            let data_dir = locate::data_dir(&place(common, around))?;
            backup::backup(&data_dir, &around.cwd.join(file), *logs, json, screen)?;
        }
        Command::Restore { file } => {
            let data_dir = locate::data_dir(&place(common, around))?;
            backup::restore(&around.cwd.join(file), &data_dir, json, screen)?;
        }
        Command::Handover => handover::handover(&locate::data_dir(&place(common, around))?, json, screen)?,
        Command::Agent { .. } => {
            let text = "`hivekeeper agent` is started by the daemon and reads frames; to run a program, put it into a [[swarm]]";
            return Err(CliError::Usage(text.to_owned()));
        }
    }
    Ok(())
}

/// Whether it writes until somebody ends it.
fn follows(command: &Command, json: bool) -> bool {
    match command {
        Command::Logs(args) => args.follow,
        Command::Events(args) => args.follow,
        Command::Top => json,
        _ => false,
    }
}

fn daemon(args: &ServeArgs, common: &Common, around: &Surroundings, serve: Serve<'_>) -> Result<(), CliError> {
    let config = load(args, common, around)?;
    let again = loader(&config, args, common, around);
    serve(config, again).map_err(|error| CliError::Failed(format!("{error:#}")))
}

/// Reads it again as it was read at the start: its file, variables, flags and working directory. A file that was there must still be.
fn loader(config: &Config, args: &ServeArgs, common: &Common, around: &Surroundings) -> Loader {
    let file = common.config.clone().or_else(|| config.file.is_some().then(|| PathBuf::from(FILE_NAME)));
    let (flags, cwd, env) = (args.layer(common), around.cwd.clone(), around.env.clone());
    Box::new(move || {
        let (file, cwd, flags) = (file.clone(), cwd.clone(), flags.clone());
        Config::load(&LoadArgs { file, cwd, env: &env, flags, read: &read_file, resolve: &resolve_path })
    })
}

/// Writes a configuration and reads it as the daemon will.
fn start(dir: Option<&Path>, common: &Common, around: &Surroundings, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if common.config.is_some() {
        return Err(CliError::Usage(format!("--config is for reading; `hivekeeper init DIR` writes DIR/{FILE_NAME}")));
    }
    let there = dir.map_or_else(|| around.cwd.clone(), |dir| around.cwd.join(dir));
    let path = init::write(&there)?;
    let load = LoadArgs { file: Some(path.clone()), cwd: there, ..place(common, around) };
    Config::load(&load)?;
    init::tell(&path, dir, common.json, &program(), screen)
}

fn load(args: &ServeArgs, common: &Common, around: &Surroundings) -> Result<Config, CliError> {
    let load = LoadArgs { flags: args.layer(common), ..place(common, around) };
    Ok(Config::load(&load)?)
}

/// What a client reads of the configuration: enough to find its daemon.
fn place<'a>(common: &Common, around: &'a Surroundings) -> Place<'a> {
    LoadArgs {
        file: common.config.clone(),
        cwd: around.cwd.clone(),
        env: &around.env,
        flags: ServeArgs::default().layer(common),
        read: &read_file,
        resolve: &resolve_path,
    }
}
