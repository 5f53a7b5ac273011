//! `plimsoll demo`: a server of its own with lively agents, and people who keep them busy.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::exit::Failure;
use super::signals::Signals;
use super::target::SourceArgs;
use crate::app::App;
use crate::catalogue;
use crate::client::{Client, Target};
use crate::clock::Clock;
use crate::config::Config;
use crate::demo::{BREACHES, Breach, Cycle, Drama, LASTS_MAX, PACE, People, Plan, Tally, cast, crew, drive};
use crate::units::Period;

/// Serves a small team of simulated agents and keeps them busy, so that there is something to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll demo
  plimsoll demo --rate 50 --duration 2m
  plimsoll demo --port 0 --seed 7 --data-dir ./demo-data
  plimsoll demo --breach queue
  plimsoll demo --breach all --config demo.yaml --data-dir /var/lib/plimsoll-demo

No model is called and nothing costs anything. The same seed makes the same people ask the same things.

Without --config no configuration is read: it listens on loopback and wants no token. With one it is reached,
guarded and kept as that says (server, auth, metrics, journal, live, telemetry, notify); agents, providers
and towns are always its own, and so is the data directory.

A breach makes alerts fire, ends so that they resolve, and comes again. Without --breach-lasts and
--breach-pause its times are those that its alerts need:

  tick       for 9m, every tick takes over 500 ms; then all is well for 10m
  queue      for 6m, events wait for the town and requests for an agent; then all is well for 4m
  invariant  for 3m, the state of the town is damaged once a minute, and mended; then all is well for 17m
  all        these three, one after the other

What --breach invariant does to its town no API can do; its data directory is good for nothing else.")]
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
    /// The port; 0 takes a free one. Without this 1876, or that of --config.
    #[arg(long)]
    port: Option<u16>,
    /// A configuration that says how it is reached, who may do what, and how its signals are kept.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where its data is kept; without this, in a temporary directory that goes at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    breaches: BreachArgs,
}

/// What goes wrong on purpose, and when.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What goes wrong on purpose")]
struct BreachArgs {
    /// What goes wrong; given again, one after the other.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    breach: Vec<What>,
    /// When the first begins, up to 1d [default: 30s].
    #[arg(long, value_name = "PERIOD", requires = "breach", value_parser = first)]
    breach_first: Option<Period>,
    /// How long each lasts, 1s to 30m.
    #[arg(long, value_name = "PERIOD", requires = "breach", value_parser = lasts)]
    breach_lasts: Option<Period>,
    /// How long all is well after each, 1s to 1d.
    #[arg(long, value_name = "PERIOD", requires = "breach", value_parser = pause)]
    breach_pause: Option<Period>,
    /// Divides these times and those within a breach, as `plimsoll alerts prometheus` does those of the rules; 1 to 60.
    #[arg(long, value_name = "N", requires = "breach", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=60))]
    durations_divided_by: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Ticks are slow.
    Tick,
    /// Events and requests wait.
    Queue,
    /// The state of the town is damaged.
    Invariant,
    /// All of these.
    All,
}

impl What {
    fn breaches(self) -> &'static [Breach] {
        match self {
            Self::Tick => &[Breach::Tick],
            Self::Queue => &[Breach::Queue],
            Self::Invariant => &[Breach::Invariant],
            Self::All => &BREACHES,
        }
    }
}

impl BreachArgs {
    fn cycle(&self) -> Cycle {
        let Self { breach, breach_first, breach_lasts, breach_pause, durations_divided_by } = self;
        let said = |period: &Option<Period>| period.map(|period| period.0);
        Cycle {
            breaches: breach.iter().flat_map(|what| what.breaches()).copied().collect(),
            first: said(breach_first),
            lasts: said(breach_lasts),
            pause: said(breach_pause),
            divisor: *durations_divided_by,
        }
    }
}

/// Only what an operator of the demo must know: that requests fail here is part of the play.
const LOG_LEVEL: &str =
    "off,plimsoll::app=warn,plimsoll::api=warn,plimsoll::journal=warn,plimsoll::cli=info,plimsoll::demo=info";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected a number from 0.01 to 10000".to_owned())
}

fn first(text: &str) -> Result<Period, String> {
    between(text, Duration::ZERO, DAY)
}

fn lasts(text: &str) -> Result<Period, String> {
    between(text, Duration::from_secs(1), LASTS_MAX)
}

fn pause(text: &str) -> Result<Period, String> {
    between(text, Duration::from_secs(1), DAY)
}

fn between(text: &str, least: Duration, most: Duration) -> Result<Period, String> {
    let period = Period::parse(text)?;
    if (least..=most).contains(&period.0) {
        return Ok(period);
    }
    Err(format!("expected {} to {}", Period(least), Period(most)))
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let scratch = args.data_dir.is_none().then(Scratch::new).transpose()?;
    let data_dir = args.data_dir.as_deref().or(scratch.as_ref().map(|scratch| scratch.0.as_path()));
    let data_dir = data_dir.expect("one of the two is there").to_owned();
    let config = config(args, &data_dir)?;
    super::on_all_cores(async {
        let mut signals = Signals::install()?;
        let app = App::start(config, data_dir.clone(), Clock::system(), catalogue::registry()).await?;
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

fn config(args: &Args, data_dir: &Path) -> Result<Config, Failure> {
    let mut own = Config {
        providers: cast::providers(args.seed),
        prices: cast::prices(),
        agents: cast::agents(),
        towns: crew::towns(),
        ..Config::default()
    };
    match &args.config {
        None => own.server.shutdown_grace = Period::from_secs(5),
        Some(file) => {
            let source = SourceArgs { config: Some(file.clone()), data_dir: Some(data_dir.to_owned()) };
            let Config { server, auth, metrics, journal, live, telemetry, notify, .. } =
                source.load()?.config;
            own = Config { server, auth, metrics, journal, live, telemetry, notify, ..own };
        }
    }
    if let Some(port) = args.port {
        own.server.listen.set_port(port);
    }
    own.telemetry.log.level = LOG_LEVEL.to_owned();
    Ok(own)
}

async fn play(args: &Args, app: &App, data_dir: &Path, signals: &mut Signals) -> Result<Tally, Failure> {
    let url = format!("http://{}", app.address());
    greet(args, &url, data_dir)?;
    // Not over the network, which needs a token as soon as somebody makes one.
    let client = Client::new(Target::DataDir(data_dir.to_owned()))?;
    let stop = CancellationToken::new();
    let drama = Drama { client: client.clone(), drill: app.drill(), cycle: args.breaches.cycle() };
    let load = async {
        let load = drive(&client, Plan::new(args.seed, args.rate), &stop);
        tokio::pin!(load);
        tokio::select! {
            tally = &mut load => return tally,
            () = drama.play(People::new(args.seed, PACE), &stop) => {}
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

fn greet(args: &Args, url: &str, data_dir: &Path) -> Result<(), Failure> {
    let dir = data_dir.display();
    let names = cast::AGENTS.iter().map(|member| member.name).collect::<Vec<_>>().join(", ");
    let (town, crew) = (crew::TOWN, crew::CREW.iter().map(|hand| hand.name).collect::<Vec<_>>().join(", "));
    let breaches: String = args.breaches.cycle().breaches.iter().map(|breach| told(*breach)).collect();
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
         {breaches}Ctrl-C ends it.",
        args.seed,
        args.rate
    )?;
    Ok(())
}

fn told(breach: Breach) -> String {
    let alerts = breach.alerts().join(" and ");
    format!("breach: {alerts}, {} after it begins with a scrape every 15 s\n", breach.fires_after())
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
