//! `plimsoll config init`: writes a configuration that works for one agent, and what it needs beside it.
//!
//! The texts are the files of `config/examples`, so that what is written here is what the tests run.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::terminal::printable;

/// Writes a commented configuration that works for one agent. Asks nothing, and overwrites nothing without --force.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll config init --agent claude-code
  plimsoll config init --agent ollama --output ~/.config/plimsoll/plimsoll.yaml
  plimsoll config init --agent codex --output -
  plimsoll config init --agent local-process   # with a server that works as it is")]
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
    /// A server in Python that is written beside it, in a process that starts when needed.
    LocalProcess,
    /// The same in a container.
    LocalContainer,
}

/// The server of both.
const SERVER: (&str, &str) = ("server.py", include_str!("../../config/examples/local-process/server.py"));

impl Example {
    fn text(self) -> &'static str {
        match self {
            Self::ClaudeCode => include_str!("../../config/examples/claude-code/plimsoll.yaml"),
            Self::Codex => include_str!("../../config/examples/codex/plimsoll.yaml"),
            Self::Gemini => include_str!("../../config/examples/gemini/plimsoll.yaml"),
            Self::Ollama => include_str!("../../config/examples/ollama/plimsoll.yaml"),
            Self::Openai => include_str!("../../config/examples/openai/plimsoll.yaml"),
            Self::Anthropic => include_str!("../../config/examples/anthropic/plimsoll.yaml"),
            Self::LocalProcess => include_str!("../../config/examples/local-process/plimsoll.yaml"),
            Self::LocalContainer => include_str!("../../config/examples/local-container/plimsoll.yaml"),
        }
    }

    /// What stands beside it, by name.
    fn others(self) -> &'static [(&'static str, &'static str)] {
        const DOCKERFILE: &str = include_str!("../../config/examples/local-container/Dockerfile");
        match self {
            Self::LocalProcess => &[SERVER],
            Self::LocalContainer => &[SERVER, ("Dockerfile", DOCKERFILE)],
            Self::ClaudeCode | Self::Codex | Self::Gemini | Self::Ollama | Self::Openai | Self::Anthropic => {
                &[]
            }
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
            Self::LocalProcess => ("local", &[]),
            Self::LocalContainer => ("local", &["docker build --tag plimsoll-local:1 {directory}"]),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let text = args.agent.text();
    if args.output == Path::new("-") {
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let directory = args.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let others = args.agent.others().iter().map(|(name, text)| (args.output.with_file_name(name), *text));
    let files: Vec<(PathBuf, &str)> = std::iter::once((args.output.clone(), text)).chain(others).collect();
    write_all(args, &files)?;
    let config = shown(&args.output);
    let names: Vec<String> = files.iter().map(|(file, _)| shown(file)).collect();
    let (agent, before) = args.agent.before();
    let mut out = std::io::stdout().lock();
    let them = if files.len() == 1 { "it" } else { "them" };
    writeln!(out, "wrote {}; read {them}, then:\n", names.join(", "))?;
    for step in before {
        writeln!(out, "  {}", step.replace("{directory}", &shown(directory)))?;
    }
    writeln!(out, "  plimsoll doctor --config {config}")?;
    writeln!(out, "  plimsoll serve --config {config}")?;
    writeln!(out, "  plimsoll send {agent} 'hello'   # from another terminal")?;
    if let Some(first) = taken_instead(args) {
        writeln!(out, "\nWithout --config, commands take {first} here.")?;
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

/// All or none, as far as can be seen before the first is written.
fn write_all(args: &Args, files: &[(PathBuf, &str)]) -> Result<(), Failure> {
    let there = files.iter().find(|(file, _)| !args.force && file.symlink_metadata().is_ok());
    if let Some((file, _)) = there {
        let advice = "it is there already: --force overwrites it. For one more agent in it, print the recipe \
                      with `--output -` and put its entries in: docs/agents.md, \"Several agents\"";
        let advice = if *file == args.output { advice } else { "it is there already: --force overwrites it" };
        let error = std::io::Error::other(advice);
        return Err(Failure::Input(format!("cannot write {}", shown(file)), error));
    }
    for (file, text) in files {
        write(args, file, text)
            .map_err(|error| Failure::Input(format!("cannot write {}", shown(file)), error))?;
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

fn write(args: &Args, path: &Path, text: &str) -> std::io::Result<()> {
    let write = |file: std::io::Result<File>| file?.write_all(text.as_bytes());
    if !args.force {
        return write(File::create_new(path));
    }
    match path.canonicalize() {
        Ok(old) if old.is_file() => replace(&old, text),
        _ => write(File::create(path)),
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
