//! `plimsoll config init`: writes a configuration that works for one agent.
//!
//! The texts are the files of `config/examples`, so that what is written here is what the tests run.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::terminal::printable;

/// Writes a commented configuration that works for one agent. Asks nothing, and overwrites nothing without --force.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll config init --agent claude-code
  plimsoll config init --agent ollama --output ~/.config/plimsoll/plimsoll.yaml
  plimsoll config init --agent codex --output -")]
pub(crate) struct Args {
    /// The agent.
    #[arg(long)]
    agent: Example,
    /// Where to write it; `-` is standard output.
    #[arg(long, short, value_name = "FILE", default_value = "plimsoll.yaml")]
    output: PathBuf,
    /// Overwrites a file that is there.
    #[arg(long)]
    force: bool,
}

/// What there is an example of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Example {
    /// Claude Code, run once per message.
    ClaudeCode,
    /// Codex, run once per message.
    Codex,
    /// Gemini CLI, run once per message.
    Gemini,
    /// A model on this machine; the same for vLLM, llama.cpp and LiteLLM.
    Ollama,
    /// A model of OpenAI's API.
    Openai,
    /// A model of Anthropic's API.
    Anthropic,
}

impl Example {
    fn text(self) -> &'static str {
        match self {
            Self::ClaudeCode => include_str!("../../config/examples/claude-code/plimsoll.yaml"),
            Self::Codex => include_str!("../../config/examples/codex/plimsoll.yaml"),
            Self::Gemini => include_str!("../../config/examples/gemini/plimsoll.yaml"),
            Self::Ollama => include_str!("../../config/examples/ollama/plimsoll.yaml"),
            Self::Openai => include_str!("../../config/examples/openai/plimsoll.yaml"),
            Self::Anthropic => include_str!("../../config/examples/anthropic/plimsoll.yaml"),
        }
    }

    /// The agent's id in it, and what to do before plimsoll is started.
    fn before(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::ClaudeCode => (
                "claude-code",
                &[
                    "npm install -g @anthropic-ai/claude-code",
                    "export ANTHROPIC_API_KEY=...   # or log in once: claude",
                ],
            ),
            Self::Codex => (
                "codex",
                &["npm install -g @openai/codex", "export CODEX_API_KEY=...   # or log in once: codex login"],
            ),
            Self::Gemini => (
                "gemini",
                &[
                    "npm install -g @google/gemini-cli",
                    "export GEMINI_API_KEY=...   # or log in once: gemini",
                ],
            ),
            Self::Ollama => ("ollama", &["ollama pull qwen3:8b   # https://ollama.com"]),
            Self::Openai => ("openai", &["export OPENAI_API_KEY=..."]),
            Self::Anthropic => ("anthropic", &["export ANTHROPIC_API_KEY=..."]),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let text = args.agent.text();
    if args.output == Path::new("-") {
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let shown = args.output.display().to_string();
    let shown = printable(&shown);
    write(args, text).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let advice = "it is there already: --force overwrites it. For one more agent in it, print the recipe \
                          with `--output -` and put its entries in: docs/agents.md, \"Several agents\"";
            Failure::Input(format!("cannot write {shown}"), std::io::Error::other(advice))
        }
        _ => Failure::Input(format!("cannot write {shown}"), error),
    })?;
    let (agent, before) = args.agent.before();
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote {shown}; read it, then:\n")?;
    for step in before {
        writeln!(out, "  {step}")?;
    }
    writeln!(out, "  plimsoll doctor --config {shown}")?;
    writeln!(out, "  plimsoll serve --config {shown}")?;
    writeln!(out, "  plimsoll send {agent} 'hello'   # from another terminal")?;
    if let Some(first) = taken_instead(args) {
        writeln!(out, "\nWithout --config, commands take {first} here.")?;
    }
    Ok(())
}

/// The configuration that a command without `--config` takes before the one that was written.
fn taken_instead(args: &Args) -> Option<String> {
    let named = std::env::var_os("PLIMSOLL_CONFIG").filter(|file| !file.is_empty());
    let first = named.map_or_else(|| PathBuf::from("config/plimsoll.yaml"), PathBuf::from);
    let same =
        first.canonicalize().is_ok_and(|first| args.output.canonicalize().is_ok_and(|own| own == first));
    (first.exists() && !same).then(|| printable(&first.display().to_string()).into_owned())
}

fn write(args: &Args, text: &str) -> std::io::Result<()> {
    let write = |file: std::io::Result<File>| file?.write_all(text.as_bytes());
    if !args.force {
        return write(File::create_new(&args.output));
    }
    match args.output.canonicalize() {
        Ok(old) if old.is_file() => replace(&old, text),
        _ => write(File::create(&args.output)),
    }
}

/// Puts a new file in the place of one, whole or not at all.
fn replace(old: &Path, text: &str) -> std::io::Result<()> {
    let name = old.file_name().unwrap_or_default().to_string_lossy();
    let new = old.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = File::create_new(&new).and_then(|mut file| {
        file.set_permissions(old.metadata()?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| std::fs::rename(&new, old));
    if replaced.is_err() {
        // What cannot be taken away either is told by its name.
        let _ = std::fs::remove_file(&new);
    }
    replaced
}
