//! Can the address be listened on?

use std::io::ErrorKind;
use std::net::TcpListener;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::Verdict;
use super::super::scene::{Scene, Server};
use super::NO_CONFIGURATION;

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    ready(look(scene)).boxed()
}

fn look(scene: &Scene) -> Verdict {
    let Ok(loaded) = &scene.loaded else { return Verdict::skip(NO_CONFIGURATION) };
    let address = loaded.config.server.listen;
    match (TcpListener::bind(address).map(drop), scene.server) {
        (Ok(()), _) => Verdict::pass(format!("{address} is free")),
        (Err(error), Server::Answers) if error.kind() == ErrorKind::AddrInUse => {
            Verdict::pass(format!("{address} is held by the plimsoll that runs"))
        }
        (Err(error), Server::Silent) if error.kind() == ErrorKind::AddrInUse => Verdict::fail(
            format!("{address} is in use by another program"),
            "stop that program, or choose another port with `server.listen`",
        ),
        (Err(error), _) => Verdict::fail(
            format!("{address} cannot be listened on: {error}"),
            "choose an address of this machine and a port of 1024 or more with `server.listen`",
        ),
    }
}
