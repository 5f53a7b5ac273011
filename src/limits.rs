//! Limits that are not configuration: each with its unit in the name and one sentence on why this number.
//!
//! What an operator may want to change is a configuration key of the module that enforces it, with a checked range.

use std::time::Duration;

pub mod alerts;

/// Records in one `append`, and in one committed group: sled 0.34.7 needs three times the memory and 150 ms a
/// batch at 10,000 rows, and is at its fastest from 500 on.
pub const JOURNAL_GROUP_RECORDS_MAX: usize = 500;

/// Appends that may wait for the journal's writer: at 60,000 a second this is about 70 ms of work.
pub const JOURNAL_QUEUE_APPENDS_MAX: usize = 4_096;

/// Bytes of one record's detail as JSON: a bead's instructions (64 KiB) with room for their escaping.
pub const JOURNAL_DETAIL_BYTES_MAX: usize = 256 * 1024;

/// How long a record that nobody waits for may wait for others before its group is committed: a commit wakes eight
/// threads and syncs the disk, which a thousand messages a second would otherwise do 500 times a second, beside them and
/// in their way. A crash loses at most so much more of what was never acknowledged.
pub const JOURNAL_OFFER_LINGER: Duration = Duration::from_millis(25);

/// How long a query of the journal waits for what was offered before it: many commits, and no more, because a disk that
/// hangs must not hold up who reads.
pub const JOURNAL_CATCH_UP_WAIT: Duration = Duration::from_secs(1);

/// How long a message with an idempotency key, or a pause, waits for its record to be durable: a disk that needs longer
/// than this hangs, and who asked shall hear of it.
pub const JOURNAL_APPEND_WAIT: Duration = Duration::from_secs(5);

/// Bytes of all details of one append as JSON, and of one committed group: 16 of the largest details, and few enough
/// rows for sled to take as one batch.
pub const JOURNAL_GROUP_BYTES_MAX: usize = 4 << 20;

/// Bytes of one row in the store. sled puts a tree leaf of over 128 KiB into a file that it never syncs, and a leaf has
/// up to 17 rows.
pub const JOURNAL_ROW_BYTES_MAX: usize = 6 * 1024;

/// Records that one scan may look at before it answers with what it found and where to go on: some 100 ms of work.
pub const JOURNAL_SCAN_RECORDS_MAX: usize = 50_000;

/// Records between two writes of the stream index: what an unclean start reads again, some 30 ms of work.
pub const JOURNAL_INDEX_RECORDS_MAX: u64 = 8_192;

/// Records between two snapshots of the folds: what a start applies again, some 200 ms of work.
pub const JOURNAL_SNAPSHOT_RECORDS_MAX: u64 = 50_000;

/// Old partitions of one log that stay open after they were read: each has a cache and file handles.
pub const JOURNAL_OLD_PARTITIONS_OPEN_MAX: usize = 2;

/// Records that a subscriber of the journal's tail may lag behind before it has to read them back.
pub const JOURNAL_TAIL_RECORDS_MAX: usize = 4_096;

/// Envelopes that one stream client may lag behind before live ones are dropped for it (and counted).
pub const STREAM_CLIENT_ENVELOPES_MAX: usize = 1_024;

/// Events of one request that may wait for its reader: a reader that is slower makes the provider wait.
pub const REQUEST_EVENTS_MAX: usize = 64;

/// Bytes of one answer: about a million tokens, more than any model writes in one go.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Bytes that a model server may send for one answer: [`ANSWER_BYTES_MAX`] with the JSON around each token.
pub const MODEL_ANSWER_BYTES_MAX: usize = 64 << 20;

/// Bytes of one event in a model server's stream: a whole answer in one piece, escaped.
pub const MODEL_STREAM_LINE_BYTES_MAX: usize = 8 << 20;

/// Bytes of an agent's own name for a conversation: a UUID, or a path of a few of them.
pub const AGENT_SESSION_BYTES_MAX: usize = 256;

/// Conversations of programs of which it is known what a turn reads, for the estimate of one that is stopped.
pub const AGENT_READINGS_MAX: usize = 256;

/// Tools of one agent that may be at work at once: sub-agents run a few dozen.
pub const AGENT_TOOLS_OPEN_MAX: usize = 256;

/// Model calls of one agent that fail in a row before `/health` says so: one or two pass by themselves.
pub const MODEL_FAILURES_DEGRADED: u64 = 3;

/// Models without a price that are named once a day for each agent with a budget.
pub const UNPRICED_MODELS_MAX: usize = 32;

/// Hours for which usage is kept by the hour; what is older is kept by the day.
pub const USAGE_HOURS_KEPT: u64 = 49;

/// Days for which usage is kept: a quarter of a year.
pub const USAGE_DAYS_KEPT: u64 = 92;

/// Days for which usage is kept by session: a week and the day that runs.
pub const USAGE_SESSION_DAYS_KEPT: u64 = 8;

/// Models of one agent that usage tells apart in an hour or a day; the rest stand together.
pub const USAGE_MODELS_MAX: usize = 32;

/// Sessions that usage tells apart in a day; the rest of each agent stand together.
pub const USAGE_SESSIONS_MAX: usize = 1_000;

/// Since when usage is told where nobody says.
pub const USAGE_SINCE_DEFAULT: &str = "7d";

/// Rows of one answer about usage; the smallest spenders past it stand together.
pub const USAGE_ROWS_MAX: usize = 1_000;

/// Models that the record of a request tells apart; a coding agent uses two or three.
pub const MODELS_PER_REQUEST_MAX: usize = 16;

/// The window of a rate per minute, in seconds: it slides second by second.
pub const RATE_WINDOW_SECS: u64 = 60;

/// Quarters of an hour for which an agent's spend is kept: two of the longest days, in any zone, and as much again for
/// clocks that jump.
pub const METER_QUARTERS_MAX: usize = 400;

/// Requests of one agent whose spend is counted and whose record is not seen yet: more than the journal's queue and a
/// group hold, so that what is past it was lost, and stays counted.
pub const METER_PENDING_MAX: usize = 8_192;

/// Tools that an answer lists by name; the rest is only counted.
pub const TOOLS_PER_REQUEST_MAX: usize = 1_000;

/// Distinct names of tools that are remembered for the count on `/health`.
pub const TOOL_NAMES_MAX: usize = 1_000;

/// Conversations that agents keep themselves and whose names are remembered: twice the sessions that are kept by default,
/// and some 5 MB of snapshot.
pub const AGENT_SESSIONS_MAX: usize = 20_000;

/// Idempotency keys that are remembered: one a second, all day; their snapshot takes some 30 MB then.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;

/// Milliseconds that one `request.get` may wait for an end: below what proxies give a silent answer.
pub const REQUEST_WAIT_MS_MAX: u64 = 60_000;

/// The longest deadline of a request: what takes longer is a job, not a message.
pub const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How long a request that has ended, and holds nothing any more, waits for its reader to take the last event.
pub const FINAL_EVENT_WAIT: Duration = Duration::from_secs(5);

/// Bytes of text from outside (a provider's error body, a child's last words) that may enter a message.
pub const QUOTED_BYTES_MAX: usize = 1_024;

/// Nesting of JSON that is read: real calls need under 10, and every parser and schema tool copes with this much.
pub const JSON_DEPTH_MAX: usize = 64;

/// Bytes of a JSON-RPC id: long enough for two UUIDs with a prefix, short enough to be echoed in every answer.
pub const RPC_ID_BYTES_MAX: usize = 256;

/// Calls of one WebSocket connection that may be unanswered: more than one client has conversations.
pub const WS_IN_FLIGHT_MAX: usize = 1_024;

/// Messages that may wait to be written to one WebSocket: past it, what makes them waits.
pub const WS_OUTBOX_MESSAGES_MAX: usize = 32;

/// Read buffer of one WebSocket in bytes: most messages fit, and 10,000 idle ones cost 40 MB, not 1.3 GB.
pub const WS_READ_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes of one frame that we send over a WebSocket: longer messages go in parts, so this bounds its write buffer.
pub const WS_PART_BYTES_MAX: usize = 64 * 1024;

/// Bytes that a WebSocket may send before its token is known: `auth` with the longest of tokens, and some pings.
pub const WS_STRANGER_BYTES_MAX: usize = 8 * 1024;

/// Seconds that a WebSocket may take to send its token in its first message.
pub const WS_AUTH_SECS_MAX: u64 = 5;

/// Event subscriptions of one WebSocket: a page needs one or two.
pub const WS_SUBSCRIPTIONS_MAX: usize = 16;

/// Records that a stream reads back from the journal when it resumes: a day of a busy fleet; past it a client does
/// better to ask `/audit`.
pub const STREAM_BACKLOG_RECORDS_MAX: u64 = 10_000;

/// Records that a stream reads from the journal at a time.
pub const STREAM_PAGE_RECORDS: usize = 256;

/// Values in one filter of a stream.
pub const STREAM_FILTER_VALUES_MAX: usize = 32;

/// Records in one page of `GET /audit`.
pub const AUDIT_PAGE_RECORDS_MAX: usize = 1_000;

/// Heads that one check of the journal may be asked for: two logs, once a week for a year.
pub const AUDIT_HEADS_MAX: usize = 104;

/// Bytes of one header block: a browser with a crowded localhost sends 8 to 16 KiB.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Headers of one request: hyper's own default, which no real client reaches.
pub const HEADERS_MAX: usize = 100;

/// Seconds for a TLS handshake: two round trips on a bad mobile line.
pub const TLS_HANDSHAKE_SECS_MAX: u64 = 10;

/// Seconds that a client may leave what we write unread before its connection is closed.
pub const WRITE_STALL_SECS_MAX: u64 = 30;

/// Connections of the control socket, apart from those of the network, so that a flood never locks the operator out.
pub const CONTROL_CONNECTIONS_MAX: usize = 64;

/// Connections past the limit that are told so (503) at a time; the rest are closed at once.
pub const REFUSALS_AT_ONCE_MAX: usize = 64;

/// Seconds that connections get to end by themselves once the server stops, or once the first token ends those without.
pub const SERVER_STOP_SECS_MAX: u64 = 5;

/// Agents made over the API and kept: each has series, an account and a place in every listing, and with the largest
/// entries their snapshot is 16 MiB.
pub const MADE_AGENTS_MAX: usize = 256;

/// Bytes of one such entry as JSON: instructions of 60 KiB with the keys around them.
pub const MADE_AGENT_BYTES_MAX: usize = 64 << 10;

const _: () =
    assert!(MADE_AGENT_BYTES_MAX * 2 <= JOURNAL_DETAIL_BYTES_MAX, "an entry with its defaults is journaled");

/// Agents that are made and deleted at a time, those included that wait for a disk that hangs: with the largest entries
/// they hold 1 MiB.
pub const AGENT_CHANGES_AT_ONCE_MAX: usize = 16;

/// How long a deleted agent's requests may take to end: a program is killed after less.
pub const AGENT_END_WAIT: Duration = Duration::from_secs(10);

/// How long who deletes an agent waits for the end of its instance besides: most end in less, some never.
pub const AGENT_LEAVE_WAIT: Duration = Duration::from_secs(2);

/// How long who makes or deletes an agent is kept waiting: for the end above, and for the journal.
pub const AGENT_CHANGE_WAIT: Duration = Duration::from_secs(20);

const _: () = assert!(AGENT_CHANGE_WAIT.as_secs() > AGENT_END_WAIT.as_secs(), "who deletes hears of the end");

/// Tokens in all, from the configuration and made at run time: each presented one is compared with all.
pub const TOKENS_MAX: usize = 1_000;

/// Addresses whose failed attempts are counted one by one; past it, new ones share one count.
pub const AUTH_ADDRESSES_MAX: usize = 10_000;

/// Characters of a token that somebody made elsewhere: as hexadecimal digits they are 64 bits.
pub const TOKEN_CHARS_MIN: usize = 16;

/// Bytes from which compressing an answer pays: below it the header and the CPU cost more than the line.
pub const COMPRESS_BYTES_MIN: usize = 1_024;

/// Members of a `tracestate` (<https://www.w3.org/TR/trace-context-1/#list>); a longer list is invalid.
pub const TRACE_STATE_MEMBERS_MAX: usize = 32;

/// Bytes of a `tracestate` that are passed on: what the specification asks for at least
/// (<https://www.w3.org/TR/trace-context-1/#tracestate-limits>).
pub const TRACE_STATE_BYTES_MAX: usize = 512;

/// Bytes of a member of a `tracestate` that is too long, past which it goes before all others (the same section).
pub const TRACE_STATE_LARGE_MEMBER_BYTES: usize = 128;

/// Log lines that may wait for a slow reader of standard error: at 200 bytes a line under a mebibyte.
pub const LOG_LINES_MAX: usize = 4_096;

/// Bytes of one label value; longer ones are cut, so that a hostile name cannot fill the memory of every scrape.
pub const LABEL_BYTES_MAX: usize = 128;

/// Series of one metric when its definition names no smaller number.
pub const METRIC_SERIES_MAX: usize = 200;

/// Towns with series of their own, in the order in which they were made; later ones share `other`. Each has 110 series, so
/// all of them have 2,310 at most.
pub const TOWN_SERIES_MAX: usize = 20;

/// Lines of an agent's output that are kept: what a coding agent prints in some twenty turns.
pub const OUTPUT_LINES_MAX: usize = 2_000;

/// Bytes of one kept line of an agent's output; longer ones are cut. A step of a coding agent fits, a file that it read
/// does not.
pub const OUTPUT_LINE_BYTES_MAX: usize = 8 * 1024;

/// Bytes of the kept output of all agents together: four agents may fill their lines to the brim, a thousand still have
/// 16 KiB each.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Deleted agents of which is known how many lines they printed: as many as may be made. After so many deletions nobody
/// reads on.
pub const OUTPUT_GONE_MAX: usize = MADE_AGENTS_MAX;

/// Milliseconds that one call may wait for an agent's next line of output: below the minute after which proxies cut a
/// silent connection.
pub const OUTPUT_WAIT_MS_MAX: u64 = 30_000;

/// Bytes of one configuration file: a thousand agents with their instructions stay far below.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// Values in one configuration file once its aliases are written out: what a file of the largest size may reasonably
/// hold, and little enough for a bomb of aliases to do no harm.
pub const CONFIG_NODES_MAX: usize = 100_000;

/// How deep values of a configuration file may be nested; the schema itself goes to 5.
pub const CONFIG_DEPTH_MAX: usize = 32;

/// Bytes that environment variables may add to the configuration in all.
pub const CONFIG_EXPANDED_BYTES_MAX: usize = 16 << 20;

/// Problems of a configuration that are told at once: more than anybody mends before trying again.
pub const CONFIG_PROBLEMS_MAX: usize = 100;

/// Bytes of a file that holds one secret: a key or a token, not an archive named by mistake.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// So long after it was told to make a container, an engine does so no more if nobody heard that it did: layers are unpacked
/// and disks hang for minutes.
pub const CONTAINER_LATE_MAX: Duration = Duration::from_secs(3_600);

/// Records of instances that may wait for the disk: an hour of eighty instances that fail every five minutes.
pub const INSTANCE_RECORDS_QUEUED_MAX: usize = 1_024;

/// What a scripted instance was asked for and what came of it, of which tests look at the last so many.
pub const SCRIPTED_CALLS_MAX: usize = 1_024;

const _: () =
    assert!(JOURNAL_QUEUE_APPENDS_MAX >= JOURNAL_GROUP_RECORDS_MAX, "a full queue must fill a group");
const _: () =
    assert!(JOURNAL_GROUP_BYTES_MAX >= 2 * JOURNAL_DETAIL_BYTES_MAX, "the largest detail must fit a group");
const _: () = assert!(
    METER_PENDING_MAX >= JOURNAL_QUEUE_APPENDS_MAX + JOURNAL_GROUP_RECORDS_MAX,
    "what waits for the journal must stay known"
);
const _: () =
    assert!(17 * JOURNAL_ROW_BYTES_MAX < 120 * 1024, "a full leaf must stay under sled's blob threshold");

/// The first wait after an instance failed, and the longest: a mistake that is mended is tried again within 5 min, and one
/// that is not costs 300 starts a day.
pub const INSTANCE_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// See [`INSTANCE_BACKOFF_MIN`].
pub const INSTANCE_BACKOFF_MAX: Duration = Duration::from_secs(300);

/// An instance that stayed up for so long is well, and what failed before is forgotten.
pub const INSTANCE_WELL_AFTER: Duration = Duration::from_secs(60);

/// So many failures of an instance in a row are a crash loop: by then half a minute of waiting did not help.
pub const INSTANCE_CRASH_LOOP_FAILURES: u32 = 5;

/// Bytes of a bead's title: a line that people read.
pub const BEAD_TITLE_BYTES_MAX: usize = 512;

/// Bytes of a bead's instructions: a long page, which still fits one record with its escaping.
pub const BEAD_INSTRUCTIONS_BYTES_MAX: usize = 64 << 10;

/// Bytes of a reason, a note, a summary or an error in a town: what a person reads before deciding.
pub const TOWN_NOTE_BYTES_MAX: usize = 4 << 10;

/// Bytes of why an attempt of a bead failed, as its town keeps it: the error that a provider or an engine answers.
pub const TOWN_FAILURE_BYTES_MAX: usize = 1 << 10;

/// Bytes of the same of a bead that failed for good: the line that names the error, which 200,000 of them can keep.
pub const TOWN_LAST_FAILURE_BYTES_MAX: usize = 256;

/// Bytes of the id of a bead that comes from outside: leaves room for the names of its reviews and escalations
/// (`<bead>.r12`), whose ids are beads' ids too.
pub const BEAD_OUTSIDE_ID_BYTES_MAX: usize = 48;

/// Beads that one bead may wait for: more is a convoy.
pub const BEAD_BLOCKERS_MAX: usize = 100;

/// Beads that one `convoy_started` names: their ids fill a quarter of a record at most.
pub const CONVOY_BEADS_MAX: usize = 1_000;

/// Agents of one town: ten times what the bench calls a large one.
pub const TOWN_AGENTS_MAX: usize = 100_000;

/// Beads of one town that are not closed, when somebody asks for one more: ten times what the bench calls a large one.
/// Reviews and escalations, which the town makes itself, may come on top, and count: those of beads that failed end only by
/// people.
pub const TOWN_OPEN_BEADS_MAX: usize = 100_000;

/// Bytes of titles, instructions and notes of all open beads of one town, when somebody asks for one more: they are kept
/// in memory.
pub const TOWN_TEXT_BYTES_MAX: usize = 256 << 20;

/// Closed beads of a town of which others may still ask how they ended, at 200 bytes each, and twice that where they
/// failed; the oldest are forgotten. The id of one that is may be used again, and then counts its dispatches from 1.
pub const TOWN_CLOSED_BEADS_MAX: usize = 200_000;

/// Violations of a town that are open at once: more say nothing new.
pub const TOWN_EPISODES_MAX: usize = 1_000;

/// Entities named by one violation: enough to find the cause.
pub const TOWN_ENTITIES_MAX: usize = 100;

/// Idempotency keys that one town remembers: a report every second of a day.
pub const TOWN_KEYS_MAX: usize = 100_000;

/// How long a town remembers an idempotency key: whoever was down for a night can still repeat a report.
pub const TOWN_KEY_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Waits of a bead's back-off: they grow, and nobody tells more apart.
pub const TOWN_BACKOFF_STEPS_MAX: usize = 20;

/// Actions of one plan, most pressing first; more come with the next. Their events are appended all or none.
pub const TOWN_ACTIONS_MAX: usize = 400;

/// Events of one replay: at a million in some four seconds, what somebody may wait for.
pub const REPLAY_EVENTS_MAX: u64 = 5_000_000;

/// Records that a replay reads at a time: enough that finding the place costs little, and with the largest details 64 MiB.
pub const REPLAY_PAGE_RECORDS: usize = 256;

/// Agents, beads, waits, violations and taken actions that a replay, a dry run or a status lists of each: more than anybody reads.
pub const REPLAY_LISTED_MAX: usize = 1_000;

/// Events after which a replay that looks for a violation checks the invariants, at least and at most; between them it
/// is half of the open beads, each of which a check looks at in some 1 us.
pub const REPLAY_CHECK_EVENTS: (usize, usize) = (1_000, 50_000);

/// Beads or agents of a town that one page lists if nothing is said: what a terminal shows without scrolling much.
pub const TOWN_PAGE_DEFAULT: usize = 100;

/// Beads or agents of a town that one page lists at most: some 500 KiB of JSON.
pub const TOWN_PAGE_MAX: usize = 1_000;

/// Dry runs and replays at once: each holds a copy of a town, and a core for seconds.
pub const TOWN_QUESTIONS_MAX: usize = 2;

/// How long a dry run or a replay waits for its turn: most take less.
pub const TOWN_QUESTION_WAIT: Duration = Duration::from_secs(5);

/// How long a replay may take: the largest one takes a third of it on a slow disk.
pub const TOWN_QUESTION_DEADLINE: Duration = Duration::from_secs(60);

/// Towns: each has a task and its state in memory; ten times what one machine usefully works on.
pub const TOWNS_MAX: usize = 1_000;

/// Bytes of a town's id: with that of a dispatch it makes the id of a request.
pub const TOWN_ID_BYTES_MAX: usize = 32;

/// Events that wait for a town's next turn before more of outside are refused: far more than a turn needs milliseconds for,
/// and few enough to hold in memory.
pub const TOWN_PENDING_MAX: u64 = 10_000;

/// What happened to instances between two ticks of a town: what is past it, a look finds.
pub const TOWN_SIGHTS_MAX: usize = 10_000;

/// Between two ticks of a town: what comes in bursts is decided together, and nobody feels it.
pub const TOWN_TICK_PAUSE: Duration = Duration::from_millis(50);

/// How long an effect may take that only hands something over.
pub const TOWN_EFFECT_WAIT: Duration = Duration::from_secs(30);

/// How long an agent may take to stop: a container is given ten seconds before it is killed, and its engine some more.
pub const TOWN_STOP_WAIT: Duration = Duration::from_secs(60);

/// How long a tick, and the ends of dispatches, may take to be written when plimsoll ends.
pub const TOWN_END_WAIT: Duration = Duration::from_secs(5);

/// How often progress of a dispatch is written at most: the first tier of the ladder is 15 times as far away.
pub const TOWN_PROGRESS_EVERY: Duration = Duration::from_secs(60);

/// How long the journal may be silent while something in a town grows older, before its next tick tells that it was looked
/// after: as much as a tick may be late without leaving time out, and some 1,400 small rows a day where nothing else is
/// written.
pub const TOWN_LIFE_EVERY: Duration = Duration::from_secs(60);

/// Keys of reports of progress that were not written, in one town: who sends one again does so within seconds.
pub const TOWN_COALESCED_KEYS_MAX: usize = 1_000;

/// How long an agent has to answer a nudge.
pub const TOWN_NUDGE_DEADLINE: Duration = Duration::from_secs(60);

const _: () = assert!(TOWN_ACTIONS_MAX <= JOURNAL_GROUP_RECORDS_MAX, "a plan must fit one append");
const _: () = assert!(
    2 * (BEAD_INSTRUCTIONS_BYTES_MAX + BEAD_TITLE_BYTES_MAX + TOWN_NOTE_BYTES_MAX) < JOURNAL_DETAIL_BYTES_MAX,
    "a bead must fit a record with its quotes and line ends escaped"
);
const _: () = assert!(CONVOY_BEADS_MAX * 70 < JOURNAL_DETAIL_BYTES_MAX, "a convoy must fit a record");

/// Notifications that may wait for one webhook: more than anybody reads after a bad hour.
pub const NOTIFY_QUEUED_MAX: usize = 256;

/// Webhooks: each has its task, its queue and its series.
pub const NOTIFY_WEBHOOKS_MAX: usize = 20;

/// Alarms of which is known that they were told, in the hour in which they are not told again.
pub const NOTIFY_KEYS_MAX: usize = 10_000;

/// How long an alarm is not told again: a fault that comes and goes is one fault.
pub const NOTIFY_REPEAT_AFTER: Duration = Duration::from_secs(3_600);

/// Events of a town that Sentry is told with a violation, by kind and place: what led to it.
pub const NOTIFY_LAST_EVENTS: usize = 20;

/// How old what an earlier plimsoll did not tell may be to be told by the next one: after a day everybody has looked.
pub const NOTIFY_LOOK_BACK: Duration = Duration::from_secs(24 * 3_600);

/// Pages of the journal in which a start looks for how far each recipient was told: with 500 records each, more than
/// recipients who hear of anything leave in weeks.
pub const NOTIFY_CURSOR_PAGES_MAX: usize = 20;

/// Bytes of the name of an environment in Sentry (<https://docs.sentry.io/concepts/key-terms/environments/>).
pub const SENTRY_ENVIRONMENT_BYTES_MAX: usize = 64;

/// Places that Sentry is told panics of, within an hour: more is one fault that shows in many places.
pub const NOTIFY_PANICS_MAX: usize = 50;
