//! The command line as a shell sees it: output, errors, exit codes.

use assert_cmd::Command;

fn plimsoll() -> Command {
    Command::new(env!("CARGO_BIN_EXE_plimsoll"))
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).expect("output is UTF-8")
}

#[test]
fn help_documents_every_exit_code() {
    let help = stdout(plimsoll().arg("--help"));
    for number in ["0", "1", "2", "3", "4", "5", "6", "7", "70", "74", "130"] {
        let listed = help.lines().any(|line| line.trim_start().starts_with(&format!("{number}  ")));
        assert!(listed, "{number} is missing in:\n{help}");
    }
}

#[test]
fn the_version_names_the_build() {
    let version = stdout(plimsoll().arg("--version"));
    assert!(version.starts_with(&format!("plimsoll {} (", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains(std::env::consts::ARCH), "{version}");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    plimsoll().arg("no-such-command").assert().code(2);
    plimsoll().arg("token").arg("hash").write_stdin("").assert().code(2);
}

#[test]
fn a_wrong_argument_is_told_what_is_expected() {
    for (command, says) in [
        (&["events", "--level", "debug"][..], "info, warn, error"),
        (&["events", "--after", "x"], "a whole number such as 4711"),
    ] {
        let run = plimsoll().args(command).assert().code(2);
        let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn a_token_is_hashed_without_its_line_end() {
    let hash = stdout(plimsoll().args(["token", "hash"]).write_stdin("0123456789abcdef\r\n"));
    assert_eq!(hash, "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f\n");
}

#[test]
fn a_token_that_could_be_guessed_or_not_be_sent_is_not_hashed() {
    for (token, problem) in [("hunter2", "16"), ("0123456789abcde", "16"), ("schlüssel-schlüssel", "ASCII")]
    {
        let run = plimsoll().args(["token", "hash"]).write_stdin(token).assert().code(2).stdout("");
        let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(said.contains(problem) && said.contains("openssl rand -hex 32"), "{said}");
        assert!(!said.contains(token), "{said}");
    }
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(plimsoll().args(["completions", shell]));
        assert!(script.contains("plimsoll") && script.contains("completions"), "{shell}");
    }
}

#[test]
fn without_a_server_every_asking_command_says_what_to_do_and_ends_with_5() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for command in [&["send", "echo", "hello"][..], &["events"], &["token", "list"]] {
        let run = plimsoll().args(command).arg("--data-dir").arg(dir.path()).assert().code(5);
        let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(
            said.contains("plimsoll serve") && said.contains(&dir.path().display().to_string()),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let run = plimsoll().args(["send", "echo", "hello", "--server", &format!("http://{closed}")]).assert();
    let run = run.code(5);
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains(&closed.to_string()) && said.contains("refused"), "{said}");
}

#[test]
fn a_healthcheck_without_a_server_ends_with_1() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    plimsoll().arg("healthcheck").arg("--data-dir").arg(dir.path()).assert().code(1);
}

#[test]
fn the_catalogue_prints_as_table_json_and_markdown() {
    let table = stdout(plimsoll().arg("metrics"));
    let markdown = stdout(plimsoll().args(["metrics", "--markdown"]));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(plimsoll().args(["metrics", "--json"]))).expect("it is JSON");
    let all = json.as_array().expect("it is an array");
    assert!(!all.is_empty());
    for definition in all {
        let name = definition["name"].as_str().expect("a name");
        assert!(table.contains(name) && markdown.contains(&format!("`{name}`")), "{name}");
        assert_eq!(definition["type"] == "histogram", definition["buckets"].is_array(), "{name}");
    }
}

#[test]
fn the_audit_of_a_foreign_directory_is_refused_and_leaves_it_empty() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for question in ["head", "verify"] {
        let run = plimsoll().args(["audit", question, "--data-dir"]).arg(dir.path()).assert().failure();
        let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(said.contains("is no data directory of plimsoll") && said.contains("--data-dir"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0, "{question} made something");
    }
}
