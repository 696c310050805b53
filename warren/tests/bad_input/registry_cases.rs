//! Produces faults of the registry's verbs, and of the files that pass between the registry and machines.

use super::{
    network::{CHILD_UIDS, Network, WARREN, warren},
    programs::{program, run_successfully},
};
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

/// Returns the command of a case; `None` if the case is not about the registry or its files.
pub(super) fn command(network: &Network, case: &str) -> Option<Command> {
    file_command(network, case)
        .or_else(|| authority_command(network, case))
        .or_else(|| operator_command(network, case))
}

/// Returns the command for a case about joining by file.
fn file_command(network: &Network, case: &str) -> Option<Command> {
    Some(match case {
        "install nonsense" => warren(
            &["install", &nonsense_file(network)],
            &network.path("newcomer"),
        ),
        "sign nonsense" => registry_verb(network, &["sign", &nonsense_file(network)]),
        "sign with a bad prefix" => registry_verb(
            network,
            &["sign", &request_file(network, "one"), "--pin-prefix", "7"],
        ),
        "sign with two lengths" => {
            let request = request_file(network, "two");
            registry_verb(
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
            let request = request_file(network, "three");
            signed_file(network, &request);
            registry_verb(network, &["sign", &request])
        }
        "request over a broken key" => {
            fs::create_dir_all(network.path("four/var/lib/warren")).unwrap();
            let key = network.path("four/var/lib/warren/node.key.request");
            fs::write(&key, "letters\n").unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            warren(&["request"], &network.path("four"))
        }
        "install without a request" => {
            let file = signed_file(network, &request_file(network, "five"));
            warren(&["install", &file], &network.path("newcomer"))
        }
        "install for another machine" => {
            let file = signed_file(network, &request_file(network, "six"));
            request_file(network, "seven");
            warren(&["install", &file], &network.path("seven"))
        }
        _ => return None,
    })
}

/// Returns the command for a request to the running registry.
fn operator_command(network: &Network, case: &str) -> Option<Command> {
    Some(match case {
        "invite with a bad name" => registry_verb(network, &["invite", "--name", "a b"]),
        "invite with a prefix of another" => {
            registry_verb(network, &["invite", "--pin-prefix", "1/16"])
        }
        "invite with a name of another" => {
            run_successfully(registry_verb(network, &["invite", "--name", "printer"]));
            registry_verb(network, &["invite", "--name", "Printer"])
        }
        "rename an unknown node" => registry_verb(network, &["rename", "nobody", "rack"]),
        "rename to a bad name" => registry_verb(network, &["rename", "nobody", "a.b"]),
        "revoke an unknown node" => registry_verb(network, &["revoke", "nobody"]),
        "revoke an unknown invitation" => registry_verb(network, &["revoke-invitation", "nobody"]),
        "set out of range" => registry_verb(network, &["set", "hello-interval", "1ms"]),
        "set an unknown key" => registry_verb(network, &["set", "nonsense", "1"]),
        "backup over a file" => registry_verb(network, &["backup", &nonsense_file(network)]),
        "restore while it runs" => registry_verb(network, &["restore", &nonsense_file(network)]),
        _ => return None,
    })
}

/// Returns the command for a case about the CA or its offline root.
fn authority_command(network: &Network, case: &str) -> Option<Command> {
    Some(match case {
        "rotate out of order" => registry_verb(network, &["rotate-ca", "activate"]),
        "stage nonsense" => registry_verb(
            network,
            &[
                "rotate-ca",
                "stage",
                "--certificate",
                &nonsense_file(network),
            ],
        ),
        "root at another step" => registry_verb(
            network,
            &["rotate-ca", "activate", "--offline-root", "/nowhere"],
        ),
        "root made twice" => {
            let root = network.path("root");
            let words = [
                "init",
                "--address",
                "127.0.0.1",
                "--offline-root",
                root.to_str().unwrap(),
            ];
            let words = [&["registry"], &words[..]].concat();
            run_successfully(warren(&words, &network.path("eight")));
            warren(&words, &network.path("nine"))
        }
        "registry key missing" => {
            let root = network.path("keyless");
            run_successfully(warren(
                &["registry", "init", "--address", "127.0.0.1"],
                &root,
            ));
            fs::remove_file(root.join("etc/warren-registry/signer.key")).unwrap();
            warren(&["registry", "run"], &root)
        }
        "init with a CA that may not sign" => {
            init_with_own_ca(network, "eleven", "critical,cRLSign", false)
        }
        "init with the key of another CA" => {
            init_with_own_ca(network, "twelve", "critical,keyCertSign", true)
        }
        "run with the key of another CA" => {
            let root = network.path("other-key");
            for root in [&root, &network.path("thirteen")] {
                let words = ["registry", "init", "--address", "127.0.0.1"];
                run_successfully(warren(&words, root));
            }
            let key = "etc/warren-registry/ca.key";
            fs::copy(network.path("thirteen").join(key), root.join(key)).unwrap();
            warren(&["registry", "run"], &root)
        }
        "certify without a root" => certify(&request_file(network, "ten"), network),
        "certify nonsense" => certify(&nonsense_file(network), network),
        _ => return None,
    })
}

/// Returns `warren registry init` with a CA that openssl makes with this key usage, and with its key or another one.
fn init_with_own_ca(network: &Network, name: &str, key_usage: &str, other_key: bool) -> Command {
    let folder = network.path(name);
    fs::create_dir(&folder).unwrap();
    for key in ["ca.key", "other.key"] {
        let mut command = program("openssl");
        command.args(["genpkey", "-algorithm", "ed25519", "-out", key]);
        command.current_dir(&folder);
        run_successfully(command);
    }
    let mut command = program("openssl");
    command.args(["req", "-x509", "-new", "-key", "ca.key", "-out", "ca.crt"]);
    command.args([
        "-subj",
        "/O=Example/OU=one/OU=two",
        "-set_serial",
        "0x1fd123456789a",
    ]);
    command.args(["-addext", &format!("keyUsage={key_usage}")]);
    command.current_dir(&folder);
    run_successfully(command);
    let key = if other_key { "other.key" } else { "ca.key" };
    let mut command = warren(&["registry", "init", "--address", "127.0.0.1"], &folder);
    command.arg("--ca").arg(folder.join("ca.crt"));
    command.arg("--ca-key").arg(folder.join(key));
    command
}

/// Returns `warren registry certify FILE` with a folder that holds no root.
fn certify(file: &str, network: &Network) -> Command {
    let mut command = program(WARREN);
    command
        .args(["registry", "certify", file, "--offline-root"])
        .arg(network.path("no-root"));
    command
}

/// Returns `warren registry WORDS` for the running registry.
fn registry_verb(network: &Network, words: &[&str]) -> Command {
    warren(&[&["registry"], words].concat(), &network.path("registry"))
}

/// Writes the certificate request of a machine that has not joined, and returns the path.
fn request_file(network: &Network, name: &str) -> String {
    let request = run_successfully(warren(
        &["request", "--child-uids", CHILD_UIDS],
        &network.path(name),
    ));
    let path = network.path(&format!("{name}.csr"));
    fs::write(&path, request).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Lets the registry sign a request, and returns the path of the file with its answer.
fn signed_file(network: &Network, request: &str) -> String {
    let path = format!("{request}.json");
    fs::write(
        &path,
        run_successfully(registry_verb(network, &["sign", request])),
    )
    .unwrap();
    path
}

/// Writes a file that is none of the expected formats, and returns its path.
fn nonsense_file(network: &Network) -> String {
    let path = network.path("nonsense");
    fs::write(&path, "nonsense").unwrap();
    path.to_str().unwrap().to_owned()
}
