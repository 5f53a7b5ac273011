//! `plimsoll audit`: what the journal holds.
//!
//! A running server is asked; only when none runs on the data directory are its files opened.

mod render;
mod source;
mod told;
mod verify;

use super::exit::Failure;
use super::target::TargetArgs;
use crate::clock::{Clock, Timestamp};
use crate::journal::StreamId;
use crate::units::Period;

use render::{Format, Renderer};
use source::Question;
pub(super) use source::Source;

/// Reads the journal: who did what, and how every request ended.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    List(ListArgs),
    Export(ExportArgs),
    Head(verify::HeadArgs),
    Verify(verify::VerifyArgs),
}

/// Lists records, the newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll audit list
  plimsoll audit list --stream operator --from 7d
  plimsoll audit list --kind request_finished --limit 500 --format ndjson | jq .detail.outcome")]
struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// At most this many records.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    /// How it looks.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as `--format ndjson`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Writes all records to standard output, the oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll audit export > journal.ndjson
  plimsoll audit export --format csv --stream operator --from 2026-01-01T00:00:00Z > operators.csv")]
struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    /// How it looks.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    #[command(flatten)]
    target: TargetArgs,
}

/// Which records. All conditions hold at once.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Only this stream: request, operator, instance/AGENT or town/TOWN. Nothing is written yet to alert.
    #[arg(long, value_parser = StreamId::parse)]
    stream: Option<StreamId>,
    /// Only this kind, such as `token_created`.
    #[arg(long)]
    kind: Option<String>,
    /// From this time on: RFC 3339, or how long ago, such as 30m or 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Before this time: RFC 3339, or how long ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
}

/// A moment as people name it.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    moment_before(text, Clock::system().now())
}

fn moment_before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now);
    }
    if let Ok(at) = Timestamp::parse_rfc3339(text) {
        return Ok(at);
    }
    let ago = Period::parse(text).map_err(
        |_| "expected a time such as 2026-11-21T09:00:00Z, how long ago, such as 30m or 7d, or now",
    )?;
    let ago = u64::try_from(ago.0.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp::from_millis(now.as_millis().saturating_sub(ago)))
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        AuditCommand::List(args) => {
            let format = if args.json { Format::Ndjson } else { args.format };
            let question = Question::new(&args.filter, true, Some(args.limit));
            super::block_on(write(&args.target, question, format))?
        }
        AuditCommand::Export(args) => {
            let question = Question::new(&args.filter, false, None);
            super::block_on(write(&args.target, question, args.format))?
        }
        AuditCommand::Head(args) => super::block_on(verify::head(args))?,
        AuditCommand::Verify(args) => super::block_on(verify::verify(args))?,
    }
}

/// Asks page by page, so that no answer has to fit into memory; a table is measured as a whole.
async fn write(target: &TargetArgs, mut question: Question, format: Format) -> Result<(), Failure> {
    let source = Source::open(target).await?;
    let mut renderer = Renderer::new(format);
    loop {
        let page = source.page(&question).await?;
        renderer.records(&page.records)?;
        match page.next {
            Some(next) if question.go_on(next, page.records.len()) => {}
            Some(_) | None => return renderer.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now = Timestamp::from_millis(86_400_001);
        assert_eq!(moment_before("1d", now), Ok(Timestamp::from_millis(1)));
        assert_eq!(moment_before("2d", now), Ok(Timestamp::from_millis(0)));
        assert_eq!(moment_before("now", now), Ok(now));
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(Timestamp::from_millis(1_000)));
        assert!(moment("yesterday").is_err());
    }
}
