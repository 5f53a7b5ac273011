//! What is asked for when a container is made. [`body`] builds it from typed fields; [`check`] looks at the result as it
//! will be sent, and refuses whatever is not on its list, wherever it came from. Pure.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, RestartPolicy, RestartPolicyNameEnum,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::binds::Allowed;
use crate::ids::AgentId;
use crate::lifecycle::config::is_not_root;
use crate::lifecycle::{BindConfig, ContainerHost};

/// Whose a container is.
pub(super) const INSTANCE_LABEL: &str = "io.plimsoll.instance";
pub(super) const OWNER_LABEL: &str = "io.plimsoll.owner";
/// A hash of all that a container was made of.
pub(super) const CONFIG_LABEL: &str = "io.plimsoll.config";

/// Bytes of one file of what a container prints, and how many of these: what is shown comes over the engine, and the
/// disk shall not fill.
const LOG_FILE_BYTES: &str = "16m";
const LOG_FILES: &str = "2";

/// What is asked for, of a container for this instance. It gets its [`labels`] when it is made.
///
/// # Errors
/// Why a bind may not be had.
pub(super) fn body(host: &ContainerHost, allowed: &Allowed<'_>) -> Result<ContainerCreateBody, String> {
    let ContainerHost { name: _, image, command, env, binds, user, memory_max, cpus, pids_max } = host;
    let mounts = binds.iter().map(|bind| mount(bind, allowed)).collect::<Result<Vec<_>, _>>()?;
    let memory = i64::try_from(memory_max.0).unwrap_or(i64::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "a checked range of the configuration")]
    let nano_cpus = (cpus * 1e9) as i64;
    let log = HashMap::from([
        ("max-size".to_owned(), LOG_FILE_BYTES.to_owned()),
        ("max-file".to_owned(), LOG_FILES.to_owned()),
    ]);
    let host_config = HostConfig {
        memory: Some(memory),
        // As much as memory: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(i64::from(*pids_max)),
        network_mode: Some(allowed.engine.network.clone()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(log) }),
        mounts: Some(mounts),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ipc_mode: Some("private".to_owned()),
        privileged: Some(false),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: image.clone(),
        cmd: (!command.is_empty()).then(|| command.clone()),
        env: Some(env.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect()),
        user: user.clone(),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    })
}

fn mount(bind: &BindConfig, allowed: &Allowed<'_>) -> Result<Mount, String> {
    let BindConfig { source, target, writable } = bind;
    let source = allowed.source(source)?;
    let source = source.to_str().ok_or_else(|| format!("{} is not UTF-8", source.display()))?.to_owned();
    Ok(Mount {
        target: Some(target.clone()),
        source: Some(source),
        typ: Some(MountType::BIND),
        read_only: Some(!writable),
        // What is mounted below it is not meant, and would be writable there.
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    })
}

/// The hash of a body and of the image that its name stands for now.
pub(super) fn hash(body: &ContainerCreateBody, image_id: &str) -> String {
    // Maps of more than one key have no order of their own, so they go by way of `Value`, which sorts.
    let json = serde_json::to_value(body).unwrap_or_default();
    let digest = Sha256::digest(format!("{image_id}\n{json}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The labels of a container of ours.
pub(super) fn labels(instance: &AgentId, owner: &str, hash: &str) -> HashMap<String, String> {
    [(INSTANCE_LABEL, instance.as_str()), (OWNER_LABEL, owner), (CONFIG_LABEL, hash)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Looks at a body as it will be sent.
///
/// # Errors
/// What it asks for that no container of ours may have, or lacks.
pub(super) fn check(body: &Value, allowed: &Allowed<'_>) -> Result<(), String> {
    only(body, &["Image", "Cmd", "Env", "User", "Labels", "HostConfig"], "the container")?;
    only(&body["Labels"], &[INSTANCE_LABEL, OWNER_LABEL, CONFIG_LABEL], "Labels")?;
    let image = body["Image"].as_str().unwrap_or_default();
    if !allowed.engine.images.iter().any(|listed| listed == image) {
        return Err(format!("`engine.images` does not list {image:?}"));
    }
    let host = &body["HostConfig"];
    only(
        host,
        &[
            "Memory",
            "MemorySwap",
            "NanoCpus",
            "PidsLimit",
            "NetworkMode",
            "RestartPolicy",
            "LogConfig",
            "Mounts",
            "CapDrop",
            "CgroupnsMode",
            "IpcMode",
            "Privileged",
            "SecurityOpt",
        ],
        "HostConfig",
    )?;
    only(&host["RestartPolicy"], &["Name"], "RestartPolicy")?;
    only(&host["LogConfig"], &["Type", "Config"], "LogConfig")?;
    only(&host["LogConfig"]["Config"], &["max-size", "max-file"], "LogConfig.Config")?;
    for limit in ["Memory", "MemorySwap", "NanoCpus", "PidsLimit"] {
        if host[limit].as_i64().is_none_or(|limit| limit <= 0) {
            return Err(format!("{limit} is not limited"));
        }
    }
    let network = host["NetworkMode"].as_str().unwrap_or_default();
    if network != allowed.engine.network || network == "host" || network == "none" || network.contains(':') {
        return Err(format!("NetworkMode is {network:?}"));
    }
    let exactly: [(&str, Value); 6] = [
        ("CapDrop", serde_json::json!(["ALL"])),
        ("CgroupnsMode", "private".into()),
        ("IpcMode", "private".into()),
        ("Privileged", false.into()),
        ("SecurityOpt", serde_json::json!(["no-new-privileges"])),
        ("RestartPolicy", serde_json::json!({"Name": "no"})),
    ];
    for (name, wanted) in exactly {
        if host[name] != wanted {
            return Err(format!("{name} is {}, and not {wanted}", host[name]));
        }
    }
    if host["LogConfig"]["Type"] != "json-file" {
        return Err(format!("LogConfig is of {}", host["LogConfig"]["Type"]));
    }
    let mounts = host["Mounts"].as_array().ok_or("Mounts are no list")?;
    let is_written = mounts.iter().any(|mount| mount["ReadOnly"] != true);
    if is_written && !is_not_root(body["User"].as_str().unwrap_or_default()) {
        return Err("a mount is writable, and User is not surely another than root".to_owned());
    }
    mounts.iter().try_for_each(|mount| check_mount(mount, allowed))
}

fn check_mount(mount: &Value, allowed: &Allowed<'_>) -> Result<(), String> {
    only(mount, &["Type", "Source", "Target", "ReadOnly", "BindOptions"], "a mount")?;
    if mount["Type"] != "bind" {
        return Err(format!("a mount is of type {}", mount["Type"]));
    }
    let options = serde_json::json!({"Propagation": "rprivate", "NonRecursive": true});
    if mount["BindOptions"] != options {
        return Err(format!("BindOptions are {}", mount["BindOptions"]));
    }
    let source = Path::new(mount["Source"].as_str().unwrap_or_default());
    let real = allowed.source(source)?;
    if real != source {
        return Err(format!("{} is a link to {} now", source.display(), real.display()));
    }
    Ok(())
}

/// Whether an object has no other keys than these.
fn only(object: &Value, keys: &[&str], name: &str) -> Result<(), String> {
    let object = object.as_object().ok_or_else(|| format!("{name} is no object"))?;
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(format!("{name} asks for {key}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::binds::double::Linked;
    use super::*;
    use crate::lifecycle::{EngineConfig, Trust};
    use crate::units::Bytes;

    fn engine() -> EngineConfig {
        EngineConfig {
            address: "unix:///run/docker.sock".to_owned(),
            trust: Trust::Create,
            images: vec!["acme/agent:1".to_owned()],
            bind_root: Some("/srv/agents".into()),
            ..EngineConfig::default()
        }
    }

    fn host() -> ContainerHost {
        ContainerHost {
            name: None,
            image: Some("acme/agent:1".to_owned()),
            command: vec!["serve".to_owned()],
            env: BTreeMap::new(),
            binds: vec![bind("/srv/agents/worker")],
            user: Some("1000".to_owned()),
            memory_max: Bytes(64 << 20),
            cpus: 0.5,
            pids_max: 32,
        }
    }

    fn bind(source: &str) -> BindConfig {
        BindConfig { source: source.into(), target: "/data".to_owned(), writable: false }
    }

    fn allowed(engine: &EngineConfig) -> Allowed<'_> {
        Allowed { engine, data_dir: Path::new("/var/lib/plimsoll"), writable: &[], files: &Linked }
    }

    fn sent() -> Value {
        let engine = engine();
        let mut body = body(&host(), &allowed(&engine)).expect("allowed");
        body.labels = Some(labels(&AgentId::parse("worker").expect("valid"), "owner", "hash"));
        serde_json::to_value(&body).expect("JSON")
    }

    #[test]
    fn a_body_of_typed_fields_is_what_it_should_be_and_passes() {
        let sent = sent();
        insta::assert_json_snapshot!(sent);
        assert_eq!(check(&sent, &allowed(&engine())), Ok(()));
    }

    /// A place in the good example, what is put there, and what is said of it.
    type Broken = (&'static str, Value, &'static str);

    fn broken() -> Vec<Broken> {
        vec![
            ("/Image", json!("acme/other:1"), "`engine.images` does not list \"acme/other:1\""),
            ("/Image", json!("acme/agent:1 "), "`engine.images` does not list \"acme/agent:1 \""),
            ("/Volumes", json!({"/x": {}}), "the container asks for Volumes"),
            ("/Hostname", json!("x"), "the container asks for Hostname"),
            ("/NetworkingConfig", json!({}), "the container asks for NetworkingConfig"),
            ("/Labels/traefik.enable", json!("true"), "Labels asks for traefik.enable"),
            ("/HostConfig", json!("x"), "HostConfig is no object"),
            ("/HostConfig/Privileged", json!(true), "Privileged is true, and not false"),
            ("/HostConfig/NetworkMode", json!("host"), "NetworkMode is \"host\""),
            ("/HostConfig/NetworkMode", json!("container:x"), "NetworkMode is \"container:x\""),
            ("/HostConfig/PidMode", json!("host"), "HostConfig asks for PidMode"),
            ("/HostConfig/IpcMode", json!("container:x"), "IpcMode is \"container:x\", and not \"private\""),
            ("/HostConfig/UTSMode", json!("host"), "HostConfig asks for UTSMode"),
            ("/HostConfig/UsernsMode", json!("host"), "HostConfig asks for UsernsMode"),
            ("/HostConfig/CgroupnsMode", json!("host"), "CgroupnsMode is \"host\", and not \"private\""),
            ("/HostConfig/Cgroup", json!("container:x"), "HostConfig asks for Cgroup"),
            ("/HostConfig/CgroupParent", json!("/"), "HostConfig asks for CgroupParent"),
            ("/HostConfig/Devices", json!([]), "HostConfig asks for Devices"),
            ("/HostConfig/DeviceRequests", json!([]), "HostConfig asks for DeviceRequests"),
            ("/HostConfig/DeviceCgroupRules", json!(["a"]), "HostConfig asks for DeviceCgroupRules"),
            ("/HostConfig/CapAdd", json!(["SYS_ADMIN"]), "HostConfig asks for CapAdd"),
            ("/HostConfig/CapDrop", json!([]), "CapDrop is [], and not [\"ALL\"]"),
            ("/HostConfig/Binds", json!(["/:/x"]), "HostConfig asks for Binds"),
            ("/HostConfig/VolumeDriver", json!("x"), "HostConfig asks for VolumeDriver"),
            ("/HostConfig/VolumesFrom", json!(["x"]), "HostConfig asks for VolumesFrom"),
            ("/HostConfig/Tmpfs", json!({}), "HostConfig asks for Tmpfs"),
            ("/HostConfig/Sysctls", json!({}), "HostConfig asks for Sysctls"),
            ("/HostConfig/Runtime", json!("x"), "HostConfig asks for Runtime"),
            ("/HostConfig/MaskedPaths", json!([]), "HostConfig asks for MaskedPaths"),
            ("/HostConfig/PortBindings", json!({}), "HostConfig asks for PortBindings"),
            ("/HostConfig/OomKillDisable", json!(true), "HostConfig asks for OomKillDisable"),
            (
                "/HostConfig/SecurityOpt",
                json!(["seccomp=unconfined"]),
                "SecurityOpt is [\"seccomp=unconfined\"]",
            ),
            ("/HostConfig/Memory", json!(0), "Memory is not limited"),
            ("/HostConfig/MemorySwap", json!(-1), "MemorySwap is not limited"),
            ("/HostConfig/NanoCpus", json!(null), "NanoCpus is not limited"),
            ("/HostConfig/PidsLimit", json!(-1), "PidsLimit is not limited"),
            (
                "/HostConfig/RestartPolicy",
                json!({"Name": "always"}),
                "RestartPolicy is {\"Name\":\"always\"}",
            ),
            ("/HostConfig/LogConfig/Type", json!("syslog"), "LogConfig is of \"syslog\""),
            ("/HostConfig/LogConfig/Config/x", json!("y"), "LogConfig.Config asks for x"),
        ]
    }

    fn broken_mounts() -> Vec<Broken> {
        let mount = |field: &str, value: Value| {
            let mut mount = sent()["HostConfig"]["Mounts"][0].clone();
            mount[field] = value;
            json!([mount])
        };
        vec![
            ("/HostConfig/Mounts", mount("Type", json!("volume")), "a mount is of type \"volume\""),
            ("/HostConfig/Mounts", mount("Type", json!("tmpfs")), "a mount is of type \"tmpfs\""),
            ("/HostConfig/Mounts", mount("VolumeOptions", json!({})), "a mount asks for VolumeOptions"),
            ("/HostConfig/Mounts", mount("BindOptions", json!({"Propagation": "shared"})), "BindOptions are"),
            (
                "/HostConfig/Mounts",
                mount("Source", json!("/srv/agents/back")),
                "is a link to /srv/agents/worker now",
            ),
            ("/HostConfig/Mounts", mount("Source", json!("/etc")), "outside of `engine.bind_root`"),
            ("/HostConfig/Mounts", mount("Source", json!(null)), "outside of `engine.bind_root`"),
        ]
    }

    #[test]
    fn whatever_else_a_body_asks_for_is_refused() {
        for (place, value, complaint) in broken().into_iter().chain(broken_mounts()) {
            let mut broken = sent();
            let (parent, key) = place.rsplit_once('/').expect("a pointer");
            broken.pointer_mut(parent).expect("there")[key] = value;
            let refused = check(&broken, &allowed(&engine())).expect_err(place);
            assert!(refused.contains(complaint), "{place}: {refused}");
        }
    }

    #[test]
    fn root_writes_to_no_bind() {
        let (engine, writable) = (engine(), BindConfig { writable: true, ..bind("/srv/agents/worker") });
        for (user, is_allowed) in
            [(None, false), (Some("0"), false), (Some("root"), false), (Some("1000"), true)]
        {
            let host =
                ContainerHost { binds: vec![writable.clone()], user: user.map(str::to_owned), ..host() };
            let mut body = body(&host, &allowed(&engine)).expect("built");
            body.labels = Some(labels(&AgentId::parse("worker").expect("valid"), "owner", "hash"));
            let checked = check(&serde_json::to_value(&body).expect("JSON"), &allowed(&engine));
            assert_eq!(checked.is_ok(), is_allowed, "{user:?}: {checked:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_no_link() {
        let engine = engine();
        let linked = ContainerHost { binds: vec![bind("/srv/agents/back")], ..host() };
        let mounts =
            body(&linked, &allowed(&engine)).expect("a link within").host_config.and_then(|host| host.mounts);
        assert_eq!(mounts.expect("one")[0].source.as_deref(), Some("/srv/agents/worker"));
        let none = EngineConfig { bind_root: None, ..engine.clone() };
        let refused = body(&host(), &allowed(&none)).expect_err("refused");
        assert!(refused.contains("`engine.bind_root` is not set"), "{refused}");
    }

    #[test]
    fn another_body_or_another_image_has_another_hash() {
        let engine = engine();
        let hash_of =
            |host: ContainerHost, image: &str| hash(&body(&host, &allowed(&engine)).expect("allowed"), image);
        let good = hash_of(host(), "sha256:1");
        assert_eq!((good.len(), &good), (64, &hash_of(host(), "sha256:1")));
        assert_ne!(good, hash_of(host(), "sha256:2"));
        assert_ne!(good, hash_of(ContainerHost { pids_max: 33, ..host() }, "sha256:1"));
    }
}
