//! Secrets, and the files that hold them: found, masked, and refused with what to do.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn the_files_of_tls_are_loaded_and_the_key_is_a_secret() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let config = "server: {tls: {cert_file: cert.pem, key_file: key.pem}}\n";
    let load = |certificate: &str, key: &str| {
        let world = World::of(&[("plimsoll.yaml", config), ("cert.pem", certificate), ("key.pem", key)]);
        let file = world.dir.path().join("key.pem");
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("the mode is set");
        (world.load(None).map(|loaded| loaded.warnings), world)
    };
    let (warnings, world) = load(&certificate, &key);
    let warnings = warnings.expect("both can be used");
    assert!(warnings.len() == 1 && warnings[0].to_string().contains("key.pem (mode 644"), "{warnings:?}");
    let file = world.dir.path().join("key.pem");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("the mode is set");
    assert_eq!(world.loaded().warnings, []);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = other.signing_key.serialize_pem();
    for (certificate, key, says) in [
        ("rubbish", key.as_str(), "server.tls.cert_file: "),
        (&certificate, "rubbish", "server.tls.key_file: "),
        (&certificate, &other, "server.tls: the certificate and the key do not fit together"),
    ] {
        let problems = load(certificate, key).0.expect_err(says);
        assert!(problems[0].contains(says), "{problems:?}");
    }
}

#[test]
fn secrets_come_from_variables_and_files_and_show_their_name_only() {
    let world = World::of(&[
        (
            "plimsoll.yaml",
            "providers:\n  a: {kind: openai, base_url: http://h, api_key: \"${KEY}\"}\n  b: {kind: openai, base_url: http://h, api_key: sk-literal}\n  c: {kind: openai, base_url: http://h, api_key_file: key}\n",
        ),
        ("key", "from-file\n"),
    ])
    .with("KEY", "from-environment");
    let key = world.dir.path().join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("the mode is set");
    let loaded = world.loaded();
    let found = secrets(&loaded.config, &|_| None);
    let found: Vec<_> = found.iter().map(crate::secret::Secret::expose).collect();
    assert_eq!(found, ["from-environment", "sk-literal", "from-file"]);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].message.contains("mode 644"), "{:?}", loaded.warnings);
    let shown = [show::yaml(&loaded.config), show::json(&loaded.config), show::origins(&loaded)]
        .map(|text| text.expect("it is written"))
        .concat()
        + &format!("{loaded:?}");
    for value in ["from-environment", "from-file"] {
        assert!(!shown.contains(value), "{shown}");
    }
    let file = format!("file:{}", key.display());
    for name in ["${KEY}", "***", file.as_str()] {
        assert!(shown.contains(name), "{name} in {shown}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the mode is set");
    assert_eq!(world.loaded().warnings, []);
}

#[test]
fn what_programs_are_handed_is_secret_unless_it_names_a_place() {
    let world = World::of(&[(
        "plimsoll.yaml",
        "providers:\n  p: {kind: exec, program: sh, env_pass: [A_KEY, HOME, CODEX_HOME, NOT_THERE, EMPTY], env: {MODE: literal, OTHER: \"${OTHER_KEY}\"}}\n",
    )])
    .with("OTHER_KEY", "of-env");
    let environment = |name: &str| match name {
        "A_KEY" => Some("of-env-pass".into()),
        "EMPTY" => Some("".into()),
        "HOME" | "CODEX_HOME" => Some("/home/somebody".into()),
        _ => None,
    };
    let found = secrets(&world.loaded().config, &environment);
    let found: Vec<_> = found.iter().map(|secret| (secret.expose(), secret.to_string())).collect();
    let named = |value, name: &str| (value, name.to_owned());
    assert_eq!(found, [named("of-env-pass", "${A_KEY}"), named("of-env", "${OTHER_KEY}")]);
}

#[test]
fn each_variable_within_a_value_is_secret_too_and_so_is_each_line() {
    let world = World::of(&[(
        "plimsoll.yaml",
        "providers:\n  p: {kind: exec, program: sh, env: {AUTH: \"Bearer ${TOKEN}\", URL: \"db://u:${PW:-none}@${TMP_DIR}\", PEM: \"${PEM}\"}}\n",
    )]);
    let variables = [
        ("TOKEN", "a-token"),
        ("PW", "a-password"),
        ("TMP_DIR", "/a/place"),
        ("PEM", "line one\r\n\nline two\n"),
    ];
    let world = variables.into_iter().fold(world, |world, (name, value)| world.with(name, value));
    let environment = |name: &str| Some(variables.iter().find(|(own, _)| *own == name)?.1.into());
    let found = secrets(&world.loaded().config, &environment);
    let mut found: Vec<_> = found.iter().map(crate::secret::Secret::expose).collect();
    found.sort_unstable();
    let expected =
        ["Bearer a-token", "a-password", "a-token", "db://u:a-password@/a/place", "line one", "line two"];
    assert_eq!(found, expected);
}

#[test]
fn a_secret_file_that_cannot_be_used_says_why() {
    let config = "providers: {p: {kind: openai, base_url: http://h, api_key_file: key}}";
    for (content, part) in
        [(None, "No such file"), (Some(""), "it is empty"), (Some("a\nb\n"), "more than one line")]
    {
        let mut files = vec![("plimsoll.yaml", config)];
        files.extend(content.map(|text| ("key", text)));
        let problems = World::of(&files).load(None).map(|_| ()).expect_err(part);
        assert!(problems[0].contains(part) && problems[0].contains("api_key_file"), "{problems:?}");
    }
    let large = "x".repeat(usize::try_from(crate::limits::SECRET_FILE_BYTES_MAX).expect("it fits") + 1);
    let problems = World::of(&[("plimsoll.yaml", config), ("key", &large)]).load(None).map(|_| ());
    assert!(problems.expect_err("too large")[0].contains("larger than"));
}
