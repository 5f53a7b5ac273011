//! `plimsoll demo`: a server of its own with lively agents, and people who keep them busy.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::exit::Failure;
use super::signals::Signals;
use crate::app::App;
use crate::catalogue;
use crate::client::{Client, Target};
use crate::clock::Clock;
use crate::config::Config;
use crate::demo::{self, PACE, People, Plan, Tally, cast, crew, drive, keep_busy};
use crate::units::Period;

/// Serves a small team of simulated agents and keeps them busy, so that there is something to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll demo
  plimsoll demo --rate 50 --duration 2m
  plimsoll demo --port 0 --seed 7 --data-dir ./demo-data
  plimsoll demo --breach queue

No model is called and nothing costs anything. The same seed makes the same people ask the same things.

A breach makes one of the alerts on towns fire. What --breach invariant does to its town no API can
do; its data directory is good for nothing else.")]
pub(crate) struct Args {
    /// Where the people's choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages a second on average, 0.01 to 10,000.
    #[arg(long, default_value_t = 8.0, value_parser = rate)]
    rate: f64,
    /// How long it goes on; without this, until Ctrl-C.
    #[arg(long, value_parser = Period::parse)]
    duration: Option<Period>,
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 1876)]
    port: u16,
    /// Where its data is kept; without this, in a temporary directory that goes at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What goes wrong in the town on purpose: its ticks are slow, events wait for them, or its state is damaged.
    #[arg(long)]
    breach: Option<Breach>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Breach {
    Tick,
    Queue,
    Invariant,
}

impl From<Breach> for demo::Breach {
    fn from(breach: Breach) -> Self {
        match breach {
            Breach::Tick => Self::Tick,
            Breach::Queue => Self::Queue,
            Breach::Invariant => Self::Invariant,
        }
    }
}

/// Between two damages of the town, and how soon it is tried again where nobody there is idle.
const DAMAGE_EVERY: Duration = Duration::from_secs(60);
const DAMAGE_AGAIN: Duration = Duration::from_millis(200);
/// When the town is damaged first: a Prometheus that scrapes every 15 s saw it whole by then.
const DAMAGE_FIRST: Duration = Duration::from_secs(16);

/// Only what an operator of the demo must know: that requests fail here is part of the play.
const LOG_LEVEL: &str = "off,plimsoll::app=warn,plimsoll::api=warn,plimsoll::journal=warn";

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected a number from 0.01 to 10000".to_owned())
}

impl Args {
    fn breach(&self) -> Option<demo::Breach> {
        self.breach.map(demo::Breach::from)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let scratch = args.data_dir.is_none().then(Scratch::new).transpose()?;
    let data_dir = args.data_dir.as_deref().or(scratch.as_ref().map(|scratch| scratch.0.as_path()));
    let data_dir = data_dir.expect("one of the two is there").to_owned();
    super::on_all_cores(async {
        let mut signals = Signals::install()?;
        let app = App::start(config(args), data_dir.clone(), Clock::system(), catalogue::registry()).await?;
        let played = play(args, &app, &data_dir, &mut signals).await;
        signals.stop(app).await?;
        let Tally { sent, answered, failed, cancelled, deadline, refused, lost } = played?;
        writeln!(
            std::io::stdout(),
            "{sent} sent: {answered} answered, {failed} failed, {cancelled} cancelled, {deadline} too late, \
             {refused} refused, {lost} still open at the end"
        )?;
        Ok(())
    })
}

fn config(args: &Args) -> Config {
    let mut config = Config {
        providers: cast::providers(args.seed),
        prices: cast::prices(),
        agents: cast::agents(),
        towns: crew::towns(),
        strain: args.breach().map(demo::Breach::strain).unwrap_or_default(),
        ..Config::default()
    };
    config.server.listen.set_port(args.port);
    config.server.shutdown_grace = Period::from_secs(5);
    config.telemetry.log.level = LOG_LEVEL.to_owned();
    config
}

async fn play(args: &Args, app: &App, data_dir: &Path, signals: &mut Signals) -> Result<Tally, Failure> {
    let url = format!("http://{}", app.address());
    greet(args, &url, data_dir)?;
    // Not over the network, which needs a token as soon as somebody makes one.
    let client = Client::new(Target::DataDir(data_dir.to_owned()))?;
    let stop = CancellationToken::new();
    let pace = args.breach().map_or(PACE, demo::Breach::pace);
    let town = async {
        let people = keep_busy(&client, People::new(args.seed, pace), &stop);
        tokio::join!(people, damage(app, args.breach, &stop))
    };
    let load = async {
        let load = drive(&client, Plan::new(args.seed, args.rate), &stop);
        tokio::pin!(load);
        tokio::select! {
            tally = &mut load => return tally,
            ((), ()) = town => {}
        }
        load.await
    };
    tokio::pin!(load);
    let length = args.duration.map_or(Duration::MAX, |period| period.0);
    tokio::select! {
        tally = &mut load => return Ok(tally?),
        () = tokio::time::sleep(length) => {}
        _ = signals.next() => {}
    }
    stop.cancel();
    tokio::select! {
        tally = load => Ok(tally?),
        _ = signals.next() => Err(Failure::Interrupted(String::new())),
    }
}

/// Damages the town every minute, if that is what goes wrong.
async fn damage(app: &App, breach: Option<Breach>, stop: &CancellationToken) {
    if breach != Some(Breach::Invariant) {
        return;
    }
    let (town, mut wait) = (crew::town(), DAMAGE_FIRST);
    // Its error is that the time has come.
    while tokio::time::timeout(wait, stop.cancelled()).await.is_err() {
        wait = if app.damage(&town).await { DAMAGE_EVERY } else { DAMAGE_AGAIN };
    }
}

fn greet(args: &Args, url: &str, data_dir: &Path) -> Result<(), Failure> {
    let dir = data_dir.display();
    let names = cast::AGENTS.iter().map(|member| member.name).collect::<Vec<_>>().join(", ");
    let (town, crew) = (crew::TOWN, crew::CREW.iter().map(|hand| hand.name).collect::<Vec<_>>().join(", "));
    let breach = args.breach().map(|breach| {
        format!(
            "breach: the alert {} fires after {}, with a scrape every 15 s\n",
            breach.alert(),
            breach.fires_after()
        )
    });
    let breach = breach.unwrap_or_default();
    writeln!(
        std::io::stdout(),
        "plimsoll plays with seed {} at {} messages a second\n\n  \
         look     {url}/\n  \
         scrape   {url}/metrics\n  \
         follow   plimsoll events --data-dir {dir}\n  \
         talk     plimsoll send reviewer 'hello' --data-dir {dir}\n  \
         town     plimsoll town status {town} --data-dir {dir}\n  \
         audit    plimsoll audit list --data-dir {dir}\n\n\
         agents: {names}\n\
         town {town}: {crew}\n\
         {breach}Ctrl-C ends it.",
        args.seed,
        args.rate
    )?;
    Ok(())
}

/// A directory for this user only that goes when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("plimsoll-demo-{:016x}", rand::random::<u64>()));
        let mut builder = std::fs::DirBuilder::new();
        let made = std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700).create(&path);
        made.map_err(|e| Failure::Input(format!("cannot make the directory {}", path.display()), e))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} stays behind: {error}", self.0.display());
        }
    }
}
