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
use crate::demo::{Plan, Tally, cast, drive};
use crate::units::Period;

/// Serves a small team of simulated agents and keeps them busy, so that there is something to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll demo
  plimsoll demo --rate 50 --duration 2m
  plimsoll demo --port 0 --seed 7 --data-dir ./demo-data

No model is called and nothing costs anything. The same seed makes the same people ask the same things.")]
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
}

/// Only what an operator of the demo must know: that requests fail here is part of the play.
const LOG_LEVEL: &str = "off,plimsoll::app=warn,plimsoll::api=warn,plimsoll::journal=warn";

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected a number from 0.01 to 10000".to_owned())
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
    let load = drive(&client, Plan::new(args.seed, args.rate), &stop);
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
    writeln!(
        std::io::stdout(),
        "plimsoll plays with seed {} at {} messages a second\n\n  \
         look     {url}/\n  \
         scrape   {url}/metrics\n  \
         follow   plimsoll events --data-dir {dir}\n  \
         talk     plimsoll send reviewer 'hello' --data-dir {dir}\n  \
         audit    plimsoll audit list --data-dir {dir}\n\n\
         agents: {names}\n\
         Ctrl-C ends it.",
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
