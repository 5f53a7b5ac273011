//! Which files are read, in which order, and where the data directory is.

use super::super::files::straight;
use super::*;

#[test]
fn the_overlay_merges_maps_replaces_lists_and_resets_by_null() {
    let world = World::of(&[
        ("config/plimsoll.yaml", "server: {listen: 127.0.0.1:1, allowed_hosts: [a, b], batch_max: 5}\n"),
        ("config/docker.yaml", "server:\n  listen: 127.0.0.1:2\n  allowed_hosts: [c]\n  batch_max:\n"),
    ])
    .with("PLIMSOLL_ENV", "docker");
    let loaded = world.loaded();
    let server = &loaded.config.server;
    assert_eq!(server.listen.port(), 2);
    assert_eq!(server.allowed_hosts, ["c"]);
    assert_eq!(server.batch_max, Config::default().server.batch_max);
    assert_eq!(loaded.files.len(), 2);
    let origin = loaded.origin(&KeyPath::of(&["server", "listen"])).expect("it stands in a file");
    assert!(origin.to_string().ends_with("config/docker.yaml:2:3"), "{origin}");
}

#[test]
fn an_overlay_without_a_base_is_looked_for_in_config() {
    let world = World::of(&[("config/docker.yaml", "live: {events: 7}")]).with("PLIMSOLL_ENV", "docker");
    assert_eq!(world.loaded().config.live.events, 7);
}

#[test]
fn a_missing_or_misnamed_overlay_is_refused_by_name() {
    let world = World::of(&[("plimsoll.yaml", "")]).with("PLIMSOLL_ENV", "staging");
    assert_eq!(
        world.load(None).map(|_| ()),
        Err(vec![
            "PLIMSOLL_ENV is set, and its overlay staging.yaml does not exist: make it, or unset PLIMSOLL_ENV"
                .to_owned()
        ])
    );
    for name in ["../x", "A", "a.b", "a b"] {
        let problems = World::of(&[]).with("PLIMSOLL_ENV", name).load(None).map(|_| ()).expect_err(name);
        assert!(problems[0].contains("not the name of an overlay"), "{problems:?}");
    }
}

#[test]
fn an_unset_or_empty_environment_name_means_exactly_the_base() {
    let files = [("plimsoll.yaml", "live: {events: 7}"), ("docker.yaml", "live: {events: 8}")];
    let unset = World::of(&files).loaded();
    let empty = World::of(&files).with("PLIMSOLL_ENV", "").loaded();
    assert_eq!(unset.config.live.events, 7);
    assert_eq!(show::yaml(&unset.config), show::yaml(&empty.config));
}

#[test]
fn the_base_file_is_searched_in_order() {
    let all = [
        ("config/plimsoll.yaml", "live: {events: 1}"),
        ("plimsoll.yaml", "live: {events: 2}"),
        ("home/.config/plimsoll/plimsoll.yaml", "live: {events: 3}"),
        ("named.yaml", "live: {events: 4}"),
        ("argument.yaml", "live: {events: 5}"),
    ];
    for skipped in 0..3 {
        let world = World::of(&all[skipped..]);
        assert_eq!(world.loaded().config.live.events, skipped + 1);
    }
    let world = World::of(&all).with("PLIMSOLL_CONFIG", "named.yaml");
    assert_eq!(world.loaded().config.live.events, 4);
    assert_eq!(world.load(Some("argument.yaml")).map(|loaded| loaded.config.live.events), Ok(5));
    let problems = world.load(Some("none.yaml")).map(|_| ()).expect_err("there is none");
    assert!(problems[0].starts_with("none.yaml: cannot be read"), "{problems:?}");
}

#[test]
fn the_data_directory_is_found_in_order() {
    let key = [("plimsoll.yaml", "data_dir: here")];
    let keyed = World::of(&key).with("STATE_DIRECTORY", "/var/lib/a:/var/lib/b");
    assert_eq!(keyed.loaded().data_dir, keyed.dir.path().join("here"));
    let service =
        World::of(&[]).with("STATE_DIRECTORY", "/var/lib/a:/var/lib/b").with("XDG_STATE_HOME", "/s");
    assert_eq!(service.loaded().data_dir, Path::new("/var/lib/a"));
    assert_eq!(World::of(&[]).with("XDG_STATE_HOME", "/s").loaded().data_dir, Path::new("/s/plimsoll"));
    let relative = World::of(&[]).with("XDG_STATE_HOME", "s").loaded();
    assert!(relative.data_dir.ends_with("home/.local/state/plimsoll"), "{:?}", relative.data_dir);
    let homeless = World::of(&[]).with("HOME", "").load(None).map(|_| ()).expect_err("nowhere");
    assert!(homeless[0].contains("give --data-dir"), "{homeless:?}");
}

#[test]
fn the_data_directory_is_named_without_detours() {
    let world = World::of(&[("sub/file", ""), ("there/file", "")]);
    let here = world.dir.path().canonicalize().expect("it is there").join("here");
    assert_eq!(straight(&world.dir.path().join("sub/../here")), here);
    std::os::unix::fs::symlink(world.dir.path().join("there"), &here).expect("linked");
    assert_eq!(straight(&world.dir.path().join("sub/../here")), here.with_file_name("there"));
    let far = world.dir.path().join("no/../such/place");
    assert_eq!(straight(&far), far, "what is not there cannot be told");
}

#[test]
fn the_data_directory_is_found_without_the_rest() {
    let world = World::of(&[("plimsoll.yaml", "data_dir: here\nserver: {listen: \"${UNSET}\", no: 1}\n")]);
    let request = LoadRequest {
        file: None,
        data_dir: None,
        environment: &|name| world.variables.get(name).cloned(),
        cwd: world.dir.path().to_owned(),
    };
    assert_eq!(data_dir(&request), Ok(world.dir.path().join("here")));
    assert!(world.load(None).is_err());
}
