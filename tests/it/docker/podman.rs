//! Podman, where it answers otherwise than Docker. It is imitated, for few machines that test plimsoll have it: its
//! errors are `{"cause", "message", "response"}` (`pkg/api/handlers/utils/errors.go` of podman-container-tools/podman);
//! a name that is taken is 500 in `pkg/api/handlers/compat/containers_create.go` before its pull request 28286, and 409
//! since; an image that is not there is 404, as "no such image" there and as "failed to find image" in
//! `pkg/api/handlers/compat/images.go`.

use serde_json::{Value, json};

use super::engine::IMAGE;
use super::fake::{FakeEngine, Said};
use super::gate::made_by;
use super::stand::{SERVER, World, live, script};

const ID: &str = "336a0f96cebf7bd6b7c38c1b30a6096d43c2a897d5dc476aac34ffd8dfa194aa";

fn refused(status: u16, cause: &str, message: &str) -> Said {
    Said(status, json!({"cause": cause, "message": message, "response": status}))
}

fn taken(status: u16, name: &str) -> Said {
    let message = format!(
        "container create: creating container storage: the container name \"{name}\" is already in use by {ID}. You \
         have to remove that container to be able to reuse that name: that name is already in use"
    );
    refused(status, "that name is already in use", &message)
}

fn there() -> Said {
    let id: Value = json!(format!("sha256:{ID}"));
    Said(200, json!({"Id": id}))
}

/// The kind of the failure to start on an engine that answers so, and what it says.
fn fails_on(image: fn() -> Said, create: fn(&str) -> Said) -> (String, String) {
    live(async || {
        let podman = FakeEngine::start(move |request| match made_by(request) {
            Some(name) => create(name),
            None if request.starts_with("GET /images/") => image(),
            None => refused(
                404,
                "no such container",
                "no container with name or ID \"x\" found: no such container",
            ),
        });
        let world = World::new(&podman.engine(), "podman");
        let life = world.life(&script(SERVER), &json!({}));
        let (kind, error) = life.failure().await;
        life.instances.shut_down().await;
        (kind.as_str().to_owned(), error)
    })
}

#[test]
fn a_name_that_is_taken_is_a_conflict_whatever_the_status() {
    let answers: [fn(&str) -> Said; 2] = [|name| taken(500, name), |name| taken(409, name)];
    for create in answers {
        let (kind, error) = fails_on(there, create);
        assert_eq!(kind, "name_conflict", "{error}");
        assert!(error.contains("something else is called plimsoll-"), "{error}");
    }
}

#[test]
fn an_image_that_is_missing_is_told_as_that_whoever_says_so() {
    let unknown = || {
        refused(404, "failed to find image x: x: No such image", "failed to find image x: x: No such image")
    };
    let gone = |_: &str| refused(404, "image not known", "no such image: x: image not known");
    for (kind, error) in [fails_on(unknown, gone), fails_on(there, gone)] {
        assert_eq!(kind, "image_missing", "{error}");
        assert!(error.contains(&format!("docker pull {IMAGE}")), "{error}");
    }
}

#[test]
fn what_it_refuses_for_another_reason_is_no_conflict() {
    let invalid = |_: &str| refused(500, "invalid argument", "container create: invalid argument");
    let (kind, error) = fails_on(there, invalid);
    assert_eq!(kind, "not_started", "{error}");
    assert!(error.contains("the engine says: container create: invalid argument"), "{error}");
}
