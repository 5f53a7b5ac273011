//! `plimsoll cancel`: ends a request.

use serde_json::json;

use super::exit::Failure;
use super::target::TargetArgs;
use crate::ids::RequestId;

/// Cancels a request, whether it waits or runs. `plimsoll ps` names those there are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll cancel 01KAP3V6X3C9W8J0D1X6Y4R2TM")]
pub(crate) struct Args {
    /// The request.
    #[arg(value_parser = RequestId::parse)]
    request: RequestId,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    let params = json!({"requestId": args.request});
    let answer = super::block_on(async { client.call("agent.cancel", params).await })??;
    if answer.get("cancelled") == Some(&json!(true)) {
        println!("cancelled {}", args.request);
        return Ok(());
    }
    Err(Failure::Refused(format!("no request {} waits or runs: it may have ended", args.request)))
}
