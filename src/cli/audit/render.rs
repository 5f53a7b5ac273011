//! Records as people and machines read them.

use std::io::{BufWriter, IsTerminal as _, Stdout, Write as _};

use serde_json::json;

use super::super::exit::Failure;
use super::super::terminal::{Paint, Table, one_line};
use super::told;
use crate::journal::Record;

/// How records look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people, a line each.
    Table,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

/// Writes records to standard output as they come.
pub(super) struct Renderer {
    out: Out,
    terminal: bool,
}

enum Out {
    Table(Table),
    Ndjson(BufWriter<Stdout>),
    Csv(Box<csv::Writer<Stdout>>, Header),
}

#[derive(PartialEq, Eq)]
enum Header {
    Written,
    Missing,
}

impl Renderer {
    pub(super) fn new(format: Format) -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let out = match format {
            Format::Table => Out::Table(Table::new(&["SEQ", "TIME", "ACTOR", "KIND", "AGENT", "WHAT"])),
            Format::Ndjson => Out::Ndjson(BufWriter::new(stdout)),
            Format::Csv => Out::Csv(Box::new(csv::Writer::from_writer(stdout)), Header::Missing),
        };
        Self { out, terminal }
    }

    pub(super) fn records(&mut self, records: &[Record]) -> Result<(), Failure> {
        match &mut self.out {
            Out::Table(table) => records.iter().for_each(|record| row(table, record)),
            Out::Ndjson(out) => {
                for record in records {
                    let line = as_json(record).to_string();
                    let line = if self.terminal { one_line(&line).into_owned() } else { line };
                    writeln!(out, "{line}")?;
                }
            }
            Out::Csv(out, header) => {
                if *header == Header::Missing {
                    out.write_record(Record::COLUMNS).map_err(failed)?;
                    *header = Header::Written;
                }
                for record in records {
                    out.write_record(record.cells()).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.out {
            Out::Table(table) => table.write(&mut std::io::stdout().lock(), Paint::of_stdout())?,
            Out::Ndjson(mut out) => out.flush()?,
            Out::Csv(mut out, _) => out.flush()?,
        }
        Ok(())
    }
}

fn row(table: &mut Table, record: &Record) {
    let Record { seq, time, kind, actor, .. } = record;
    let (seq, time, actor) = (seq.to_string(), time.to_string(), actor.to_string());
    table.row([&seq, &time, &actor, kind, &told::agent(record), &told::told(record)]);
}

fn as_json(record: &Record) -> serde_json::Value {
    let Record { seq, time, stream, kind, version, actor, trace_id, detail, prev_hash } = record;
    json!({
        "seq": seq, "time": time.to_string(), "stream": stream, "kind": kind, "version": version, "actor": actor,
        "trace_id": trace_id, "detail": detail, "prev_hash": prev_hash,
    })
}

fn failed(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::Output(error),
        other => Failure::Bug(format!("a record makes no line of CSV: {other:?}")),
    }
}
