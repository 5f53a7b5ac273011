//! The unit for systemd: systemd accepts it, its documentation names what it sets, and what it relies on is so.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::support::server::clean_command;
use crate::support::tools::needs;

const UNIT: &str = include_str!("../../packaging/plimsoll.service");
const PAGE: &str = include_str!("../../docs/systemd.md");

/// Names and values of all options, in their order.
fn options() -> Vec<(&'static str, &'static str)> {
    UNIT.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect()
}

fn option(name: &str) -> &'static str {
    let found = options().into_iter().find(|(one, _)| *one == name);
    found.unwrap_or_else(|| panic!("the unit has no {name}=")).1
}

#[test]
fn systemd_accepts_the_unit() {
    let Some(program) = needs("systemd-analyze") else { return };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let verify = |unit: String| {
        fs::write(folder.path().join("plimsoll.service"), unit).expect("the unit is written");
        let mut command = Command::new(&program);
        command.args(["verify", "--man=no", "./plimsoll.service"]).current_dir(folder.path());
        let output = command.output().expect("systemd-analyze runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // It also looks whether the program is there.
    let here = UNIT.replace("/usr/local/bin/plimsoll", env!("CARGO_BIN_EXE_plimsoll"));
    assert_eq!(verify(here.clone()), (true, String::new()));
    let (_, complaint) = verify(here.replace("ProtectHome=", "ProtectHouse="));
    assert!(complaint.contains("ProtectHouse"), "it looks at options: {complaint:?}");
}

#[test]
fn the_documentation_names_every_option_of_the_unit_and_no_other() {
    let (_, table) = PAGE.split_once("## What each option is for").expect("the page has the table");
    let (table, left_out) = table.split_once("Left out on purpose").expect("and what is left out");
    let named = |text: &'static str| -> BTreeSet<&str> {
        let quoted = text.split('`').skip(1).step_by(2);
        quoted.filter_map(|code| Some(code.split_once('=')?.0)).collect()
    };
    let standing = ["Description", "Wants", "After", "WantedBy"];
    let set = options().into_iter().map(|(name, _)| name).filter(|name| !standing.contains(name));
    let set: BTreeSet<&str> = set.collect();
    assert_eq!(named(table), set);
    assert!(named(left_out).is_disjoint(&set), "what is left out is not set");
    for quoted in table.split('`').skip(1).step_by(2).filter_map(|code| code.split_once('=')) {
        let (name, value) = quoted;
        assert!(value.is_empty() || option(name) == value, "{name}= is {}, not {value}", option(name));
    }
}

#[test]
fn the_unit_ends_plimsoll_as_its_security_page_wants_and_restarts_no_mistake() {
    assert_eq!(option("KillMode"), "mixed");
    assert_eq!(option("Type"), "exec", "nothing here speaks sd_notify");
    let manual = include_str!("../../docs/cli.md");
    for (code, meaning) in [
        ("2", "the command line is wrong"),
        ("3", "the configuration is wrong"),
        ("4", "the data directory is"),
    ] {
        assert!(option("RestartPreventExitStatus").split(' ').any(|one| one == code));
        assert!(manual.contains(&format!("    {code}  {meaning}")), "{code}: {meaning}");
    }
    let start = option("ExecStart").split(' ').skip(1);
    let output = clean_command().args(start).arg("--help").output().expect("plimsoll runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_configuration_finds_the_credentials_and_the_data_directory_of_the_unit() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    // The example of the page, as it stands there.
    let (_, example) = PAGE.split_once("# /etc/plimsoll/plimsoll.yaml\n").expect("the page has an example");
    let (example, _) = example.split_once("```").expect("which ends");
    let file = folder.path().join("plimsoll.yaml");
    fs::write(&file, example).expect("the configuration is written");
    let credential = |name: &str, text: &str| {
        let path = folder
            .path()
            .join(format!("{}_{name}", option("LoadCredential").split(':').next().expect("a name")));
        fs::write(&path, text).expect("the credential is written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        fs::set_permissions(path, private).expect("its mode is set");
    };
    let check = || {
        let mut command = clean_command();
        command.args(["config", "show", "--config"]).arg(&file);
        command
            .env("CREDENTIALS_DIRECTORY", folder.path())
            .env("STATE_DIRECTORY", folder.path().join("state"));
        let output = command.output().expect("plimsoll runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    credential("anthropic", "k-1234567890abcdef\n");
    let (code, said) = check();
    assert_eq!(code, Some(3), "one is missing: {said}");
    assert!(said.contains("notify.ops.secret_file"), "{said}");
    credential("ops", "s-1234567890abcdef1234567890abcdef\n");
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("1234567890abcdef"), "no secret is shown: {said}");
    assert!(said.contains("plimsoll_anthropic"), "{said}");
}
