//! What recording costs: a step of a counter, an observation of a histogram, a whole model call, a scrape.

use std::hint::black_box;
use std::time::Duration;

use plimsoll::clock::{Clock, Timestamp};
use plimsoll::ids::{AgentId, RequestId, SessionId, TraceId};
use plimsoll::live::{self, Live, ModelCall};
use plimsoll::telemetry::Registry;
use plimsoll::telemetry::metric::{Counter, Histogram};

/// Measures what recording metrics costs, and how long a scrape takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Steps per loop.
    #[arg(long, default_value_t = 2_000_000)]
    steps: u32,
    /// Loops, of which the median counts.
    #[arg(long, default_value_t = 5)]
    loops: u32,
}

static STEPS: Counter<1> =
    Counter::new("plimsoll_bench_steps_total", &["agent"], "Steps of a bench.").series_max(10_000);
static SECONDS: Histogram<1> = Histogram::new(
    "plimsoll_bench_duration_seconds",
    &["agent"],
    "Durations of a bench.",
    (live::gen_ai::SECONDS, "those of the GenAI conventions"),
)
.series_max(10_000);

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let mut catalogue = plimsoll::catalogue::all();
    catalogue.extend([STEPS.0, SECONDS.0]);
    let registry = Registry::new(&catalogue).map_err(|error| error.to_string())?;
    let (steps, seconds) = (registry.counters(&STEPS), registry.histograms(&SECONDS));
    let live = Live::new(&live::Config::default(), &registry, Clock::system());
    let (counter, histogram) = (steps.with(["a"]), seconds.with(["a"]));
    let call = call()?;

    println!("| recording | median of {} loops | goal |\n|---|---|---|", args.loops);
    let row = |what: &str, each: Duration, goal: &str| println!("| {what} | {each:?} | {goal} |");
    row("counter, handle held", args.median(args.steps, || counter.increment(1)), "<= 20 ns");
    row(
        "histogram of 18 buckets, handle held",
        args.median(args.steps, || histogram.record(black_box(1.0))),
        "<= 100 ns",
    );
    row(
        "counter, looked up by label",
        args.median(args.steps / 10, || steps.with([black_box("a")]).increment(1)),
        "",
    );
    row(
        "model call: ring, snapshot, all metrics",
        args.median(args.steps / 50, || live.record_model_call(call.clone())),
        "",
    );

    println!("\n| /metrics with | median | worst | bytes | goal |\n|---|---|---|---|---|");
    scrape("5,000 counters", args, |registry| {
        let family = registry.counters(&STEPS);
        (0..5_000).for_each(|n| family.with([&format!("agent-{n}")]).increment(1));
    })?;
    scrape("5,000 series, 2,415 of them in 115 histograms", args, |registry| {
        let family = registry.counters(&STEPS);
        (0..2_585).for_each(|n| family.with([&format!("agent-{n}")]).increment(1));
        let family = registry.histograms(&SECONDS);
        // 18 edges, +Inf, sum and count make 21 series each.
        (0..115).for_each(|n| family.with([&format!("agent-{n}")]).record(1.0));
    })
}

impl Args {
    fn median(&self, steps: u32, mut step: impl FnMut()) -> Duration {
        let clock = Clock::system();
        let mut loops: Vec<Duration> = (0..self.loops.max(1))
            .map(|_| {
                let start = clock.elapsed();
                (0..steps).for_each(|_| step());
                (clock.elapsed() - start) / steps
            })
            .collect();
        loops.sort_unstable();
        loops[loops.len() / 2]
    }
}

fn scrape(what: &str, args: &Args, fill: impl FnOnce(&Registry)) -> Result<(), String> {
    let registry = Registry::new(&[STEPS.0, SECONDS.0]).map_err(|error| error.to_string())?;
    fill(&registry);
    let clock = Clock::system();
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..args.loops.max(2) {
        let start = clock.elapsed();
        bytes = black_box(registry.render()).len();
        times.push(clock.elapsed() - start);
    }
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("| {what} | {median:?} | {worst:?} | {bytes} | <= 20 ms |");
    Ok(())
}

fn call() -> Result<ModelCall, String> {
    let text = |error: plimsoll::ids::InvalidId| error.to_string();
    Ok(ModelCall {
        timestamp: Timestamp::from_millis(1),
        provider: "openai".to_owned(),
        model: "model-2026".to_owned(),
        requested_model: "model".to_owned(),
        agent: AgentId::parse("agent").map_err(text)?,
        session: SessionId::parse("session").map_err(text)?,
        request_id: RequestId::parse("request").map_err(text)?,
        trace_id: TraceId::from_bits(1).ok_or("not zero")?,
        latency: 1_200.0,
        time_to_first_token: Some(300.0),
        input_tokens: Some(900),
        output_tokens: Some(150),
        tokens_per_sec: Some(125.0),
        cost_usd: Some(0.01),
        unpriced: false,
        error: None,
    })
}
