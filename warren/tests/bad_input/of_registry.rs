//! Makes the cases of bad input of the registry's verbs, and of what passes between it and machines by file.

use super::{Network, WARREN, must, program, warren};
use std::{fs, process::Command};

/// The command of a case; `None` where it is none of these.
pub(super) fn command(network: &Network, case: &str) -> Option<Command> {
    Some(match case {
        "install nonsense" => warren(&["install", &nonsense(network)], &network.at("newcomer")),
        "sign nonsense" => verb(network, &["sign", &nonsense(network)]),
        "sign with a bad prefix" => verb(
            network,
            &["sign", &requested(network, "one"), "--pin-prefix", "7"],
        ),
        "sign with two lengths" => {
            let request = requested(network, "two");
            verb(
                network,
                &[
                    "sign",
                    &request,
                    "--pin-prefix",
                    "77/16",
                    "--prefix-length",
                    "20",
                ],
            )
        }
        "sign a request twice" => {
            let request = requested(network, "three");
            signed(network, &request);
            verb(network, &["sign", &request])
        }
        "request over a broken key" => {
            fs::create_dir_all(network.at("four/etc/warren")).unwrap();
            fs::write(network.at("four/etc/warren/node.key.request"), "letters\n").unwrap();
            warren(&["request"], &network.at("four"))
        }
        "install without a request" => {
            let file = signed(network, &requested(network, "five"));
            warren(&["install", &file], &network.at("newcomer"))
        }
        "install for another machine" => {
            let file = signed(network, &requested(network, "six"));
            requested(network, "seven");
            warren(&["install", &file], &network.at("seven"))
        }
        "invite with a bad name" => verb(network, &["invite", "--name", "a b"]),
        "invite with a prefix of another" => verb(network, &["invite", "--pin-prefix", "1/16"]),
        "revoke an unknown node" => verb(network, &["revoke", "nobody"]),
        "set out of range" => verb(network, &["set", "hello-interval", "1ms"]),
        "set an unknown key" => verb(network, &["set", "nonsense", "1"]),
        "rotate out of order" => verb(network, &["rotate-ca", "activate"]),
        "stage nonsense" => verb(
            network,
            &["rotate-ca", "stage", "--certificate", &nonsense(network)],
        ),
        "root at another step" => verb(
            network,
            &["rotate-ca", "activate", "--offline-root", "/nowhere"],
        ),
        "root made twice" => {
            let root = network.at("root");
            let words = [
                "init",
                "--address",
                "127.0.0.1",
                "--offline-root",
                root.to_str().unwrap(),
            ];
            let words = [&["registry"], &words[..]].concat();
            must(warren(&words, &network.at("eight")));
            warren(&words, &network.at("nine"))
        }
        "certify without a root" => certify(&requested(network, "ten"), network),
        "certify nonsense" => certify(&nonsense(network), network),
        "backup over a file" => verb(network, &["backup", &nonsense(network)]),
        "restore while it runs" => verb(network, &["restore", &nonsense(network)]),
        _ => return None,
    })
}

/// Asks a folder that has no root to certify what a file asks for.
fn certify(file: &str, network: &Network) -> Command {
    let mut command = program(WARREN);
    command
        .args(["registry", "certify", file, "--offline-root"])
        .arg(network.at("no-root"));
    command
}

/// A verb of the running registry.
fn verb(network: &Network, words: &[&str]) -> Command {
    warren(&[&["registry"], words].concat(), &network.at("registry"))
}

/// A file with the request of a machine that is no node yet.
fn requested(network: &Network, name: &str) -> String {
    let request = must(warren(
        &["request", "--child-uids", "60197,60198"],
        &network.at(name),
    ));
    let path = network.at(&format!("{name}.csr"));
    fs::write(&path, request).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A file with what the registry made of a request.
fn signed(network: &Network, request: &str) -> String {
    let path = format!("{request}.json");
    fs::write(&path, must(verb(network, &["sign", request]))).unwrap();
    path
}

/// A file of letters.
fn nonsense(network: &Network) -> String {
    let path = network.at("nonsense");
    fs::write(&path, "nonsense").unwrap();
    path.to_str().unwrap().to_owned()
}
