//! CAs of many kinds, made by openssl.

use registry::pki::credentials::OwnCa;
use std::{fmt::Write as _, fs, path::Path};

/// The serial number that encodes the network `fd12:3456:789a::/48`.
pub const SERIAL: &str = "0x1fd123456789a";
/// Extensions of a usual CA.
pub const USUAL: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
/// A kind of CA, as openssl makes it.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// The arguments that create its key, without the file.
    pub key: &'static str,
    pub subject: &'static str,
    pub serial: &'static str,
    /// The encoding of strings in the subject (`string_mask` of req(1)).
    pub strings: &'static str,
    pub extensions: &'static str,
    /// Days between the moment at which the certificate is made and the moment at which it is used; it lasts 100 days.
    pub used_after_days: i64,
    /// The property that is missing; `None` if the CA must be accepted.
    pub lacks: Option<&'static str>,
}

pub const EC_KEY: &str = "ecparam -name prime256v1 -genkey -noout";

pub const KIND: Kind = Kind {
    name: "usual",
    key: EC_KEY,
    subject: "/O=Example/CN=example CA",
    serial: SERIAL,
    strings: "utf8only",
    extensions: USUAL,
    used_after_days: 1,
    lacks: None,
};

pub const fn subject(name: &'static str, subject: &'static str) -> Kind {
    Kind {
        name,
        subject,
        ..KIND
    }
}

pub const fn key(name: &'static str, key: &'static str) -> Kind {
    Kind { name, key, ..KIND }
}

pub const fn extensions(name: &'static str, extensions: &'static str) -> Kind {
    Kind {
        name,
        extensions,
        ..KIND
    }
}

pub const fn serial(name: &'static str, serial: &'static str) -> Kind {
    Kind {
        name,
        serial,
        ..KIND
    }
}

impl Kind {
    pub const fn lacks(self, property: &'static str) -> Self {
        Self {
            lacks: Some(property),
            ..self
        }
    }

    pub const fn strings(self, strings: &'static str) -> Self {
        Self { strings, ..self }
    }

    pub const fn used_after_days(self, used_after_days: i64) -> Self {
        Self {
            used_after_days,
            ..self
        }
    }
}

/// Runs openssl, which must succeed unless `may_fail`; returns what it printed.
#[expect(
    clippy::disallowed_methods,
    reason = "the CAs come from another program"
)]
pub fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "openssl {arguments:?}: {printed}");
    printed
}

pub fn create_key(folder: &Path, arguments: &str, file: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    // `genrsa` wants the options before the number of bits, which is the last word.
    let (command, options) = words.split_first().unwrap();
    openssl(folder, &[&[*command, "-out", file], options].concat());
}

/// Makes a CA in a folder: `ca.crt` and `ca.key`.
pub fn make_ca(folder: &Path, kind: &Kind) {
    create_key(folder, kind.key, "ca.key");
    let mut config = format!(
        "[req]\ndistinguished_name=dn\nprompt=no\nutf8=yes\nstring_mask={}\n",
        kind.strings
    );
    if !kind.extensions.is_empty() {
        write!(config, "x509_extensions=ext\n[ext]\n{}", kind.extensions).unwrap();
    }
    config.push_str("[dn]\n");
    fs::write(folder.join("config"), config).unwrap();
    let fixed = [
        "req", "-x509", "-new", "-config", "config", "-key", "ca.key", "-utf8",
    ];
    let wanted = [
        "-subj",
        kind.subject,
        "-set_serial",
        kind.serial,
        "-days",
        "100",
        "-out",
        "ca.crt",
    ];
    openssl(folder, &[&fixed[..], &wanted].concat());
}

pub fn own_ca(folder: &Path) -> OwnCa {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    OwnCa {
        certificates: read("ca.crt"),
        key: read("ca.key"),
    }
}

/// Lets the CA in `folder` sign the certificate request `next.csr`; returns the certificate in PEM.
pub fn certify(folder: &Path, subject: &str, extensions: &str) -> String {
    fs::write(folder.join("extensions"), extensions).unwrap();
    let fixed = [
        "x509", "-req", "-in", "next.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "90",
    ];
    let wanted = [
        "-subj",
        subject,
        "-set_serial",
        "0x77",
        "-extfile",
        "extensions",
        "-out",
        "next.crt",
    ];
    openssl(folder, &[&fixed[..], &wanted].concat());
    fs::read_to_string(folder.join("next.crt")).unwrap()
}

pub const BELOW: &str =
    "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n";
