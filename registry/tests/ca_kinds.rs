//! Creates registries with CAs of all kinds that openssl makes: each is accepted, and then everybody accepts its
//! certificates, or it is rejected with the property that it lacks.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use registry::{clock::UnixSeconds, pki::credentials::OwnCa};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};
use support::{Identity, Registry, apply};
use wire::chain;

/// The serial number that encodes the network `fd12:3456:789a::/48`.
const SERIAL: &str = "0x1fd123456789a";
/// Extensions of a usual CA.
const USUAL: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
/// The start of each rejection.
const UNUSABLE: &str = "the CA cannot be used: ";

/// A kind of CA, as openssl makes it.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// The arguments that create its key, without the file.
    key: &'static str,
    subject: &'static str,
    serial: &'static str,
    /// The encoding of strings in the subject (`string_mask` of req(1)).
    strings: &'static str,
    extensions: &'static str,
    /// Days between the moment at which the certificate is made and the moment at which it is used; it lasts 100 days.
    used_after_days: i64,
    /// The property that is missing; `None` if the CA must be accepted.
    lacks: Option<&'static str>,
}

const EC_KEY: &str = "ecparam -name prime256v1 -genkey -noout";

const KIND: Kind = Kind {
    name: "usual",
    key: EC_KEY,
    subject: "/O=Example/CN=example CA",
    serial: SERIAL,
    strings: "utf8only",
    extensions: USUAL,
    used_after_days: 1,
    lacks: None,
};

const fn subject(name: &'static str, subject: &'static str) -> Kind {
    Kind {
        name,
        subject,
        ..KIND
    }
}

const fn key(name: &'static str, key: &'static str) -> Kind {
    Kind { name, key, ..KIND }
}

const fn extensions(name: &'static str, extensions: &'static str) -> Kind {
    Kind {
        name,
        extensions,
        ..KIND
    }
}

const fn serial(name: &'static str, serial: &'static str) -> Kind {
    Kind {
        name,
        serial,
        ..KIND
    }
}

impl Kind {
    const fn lacks(self, property: &'static str) -> Self {
        Self {
            lacks: Some(property),
            ..self
        }
    }

    const fn strings(self, strings: &'static str) -> Self {
        Self { strings, ..self }
    }

    const fn used_after_days(self, used_after_days: i64) -> Self {
        Self {
            used_after_days,
            ..self
        }
    }
}

const KINDS: [Kind; 36] = [
    KIND,
    subject("two OUs", "/O=Example/OU=one/OU=two/CN=example CA"),
    subject(
        "an attribute of each type twice",
        "/O=a/O=b/OU=c/OU=d/CN=e/CN=f",
    ),
    subject("a multi-valued part", "/O=Example/OU=one+CN=example CA"),
    subject("UTF8String", "/O=Beispiel/CN=Prüfstelle"),
    subject("PrintableString", "/O=Example/CN=example CA").strings("pkix"),
    subject("T61String", "/O=Example/CN=Prüfstelle").strings("nombstr"),
    subject(
        "other attributes",
        "/DC=org/DC=example/serialNumber=1/emailAddress=a@example.org/CN=x",
    ),
    subject("empty subject", "/").lacks("its subject is empty"),
    key("RSA of 2048 bits, PKCS #1", "genrsa -traditional 2048"),
    key("RSA of 4096 bits, PKCS #1", "genrsa -traditional 4096"),
    key("RSA of 2048 bits, PKCS #8", "genrsa 2048"),
    key(
        "P-256, SEC 1 with parameters",
        "ecparam -name prime256v1 -genkey",
    ),
    key(
        "P-256, PKCS #8",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    ),
    key("P-384, SEC 1", "ecparam -name secp384r1 -genkey -noout"),
    key("Ed25519", "genpkey -algorithm ed25519"),
    key("RSA of 1024 bits", "genrsa -traditional 1024").lacks("its key is none of"),
    key("P-521", "ecparam -name secp521r1 -genkey -noout").lacks("its key is none of"),
    extensions("no key usage", "basicConstraints=critical,CA:TRUE\n"),
    extensions(
        "path length 0",
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n",
    ),
    extensions(
        "not critical",
        "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign\n",
    ),
    extensions(
        "extended key usage of TLS",
        "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=serverAuth,clientAuth\n",
    ),
    extensions(
        "extended key usage of e-mail",
        "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=emailProtection\n",
    )
    .lacks("its extended key usage lacks serverAuth or clientAuth"),
    extensions(
        "key usage without keyCertSign",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=cRLSign\n",
    )
    .lacks("its key usage lacks keyCertSign"),
    extensions("no basic constraints", "keyUsage=keyCertSign\n")
        .lacks("its certificate has no basic constraints with CA:TRUE"),
    extensions(
        "CA:FALSE",
        "basicConstraints=critical,CA:FALSE\nkeyUsage=keyCertSign\n",
    )
    .lacks("its basic constraints say CA:FALSE"),
    extensions("version 1", "").lacks("its certificate has version 1, not 3"),
    extensions(
        "a critical extension",
        "basicConstraints=critical,CA:TRUE\n1.2.3.4=critical,DER:0500\n",
    )
    .lacks("has a critical extension that is not known here"),
    extensions(
        "name constraints",
        "basicConstraints=critical,CA:TRUE\nnameConstraints=critical,permitted;DNS:example.org\n",
    )
    .lacks("has a critical extension that is not known here"),
    KIND.used_after_days(-3)
        .lacks("its certificate is not valid before"),
    KIND.used_after_days(101)
        .lacks("its certificate expired on"),
    serial("negative serial", "-0x1fd123456789a").lacks("its serial number is negative"),
    serial("serial 0", "0").lacks("its serial number is 0"),
    serial("21 octets", "0x01fd123456789a0000000000000000000000000001")
        .lacks("its serial number has 21 octets, and at most 20 are allowed"),
    serial(
        "random serial",
        "0x5fd123456789abcdef0123456789abcdef012345",
    )
    .lacks("must be a 1 followed by the bits of the network"),
    serial("network too long", "0x1fd123456789a0000000000000000001")
        .lacks("must be a 1 followed by the bits of the network"),
];

/// Runs openssl, which must succeed unless `may_fail`; returns what it printed.
#[expect(
    clippy::disallowed_methods,
    reason = "the CAs come from another program"
)]
fn openssl(folder: &Path, arguments: &[&str]) -> String {
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

fn create_key(folder: &Path, arguments: &str, file: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    // `genrsa` wants the options before the number of bits, which is the last word.
    let (command, options) = words.split_first().unwrap();
    openssl(folder, &[&[*command, "-out", file], options].concat());
}

/// Makes a CA in a folder: `ca.crt` and `ca.key`.
fn make_ca(folder: &Path, kind: &Kind) {
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

fn own_ca(folder: &Path) -> OwnCa {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    OwnCa {
        certificates: read("ca.crt"),
        key: read("ca.key"),
    }
}

fn now() -> UnixSeconds {
    (registry::clock::system_clock())()
}

/// Checks that openssl, a node's check of chains and rustls accept a certificate of the registry.
#[track_caller]
fn check_accepted(registry: &Registry, node: &Identity, folder: &Path) {
    let chain = chain::read_pem(node.claimed.certificate.as_bytes()).unwrap();
    let trusted = chain::read_pem(registry.trusted().as_bytes()).unwrap();
    chain::verify(&chain, &trusted, Some(registry.now().0)).unwrap();
    fs::write(folder.join("trusted.crt"), registry.trusted()).unwrap();
    fs::write(folder.join("node.crt"), &node.claimed.certificate).unwrap();
    let (at, tls) = (
        registry.now().0.to_string(),
        registry.paths.config_dir.join("tls.crt"),
    );
    let verify = [
        "verify",
        "-attime",
        &at,
        "-CAfile",
        "trusted.crt",
        "-untrusted",
        "node.crt",
    ];
    for purpose in ["sslclient", "sslserver"] {
        let verified = openssl(
            folder,
            &[&verify[..], &["-purpose", purpose, "node.crt"]].concat(),
        );
        assert!(verified.contains("node.crt: OK"), "{verified}");
    }
    let server = [
        &verify[..],
        &["-purpose", "sslserver", tls.to_str().unwrap()],
    ]
    .concat();
    assert!(openssl(folder, &server).contains("OK"));
    // TLS in both directions, by rustls.
    apply(registry, node);
}

/// Returns whether the CA was accepted.
#[track_caller]
fn check(kind: &Kind) -> bool {
    let folder = tempfile::tempdir().unwrap();
    make_ca(folder.path(), kind);
    let used_at = now().saturating_add_s(kind.used_after_days * 86_400);
    let registry = Registry::with_own_ca(used_at, own_ca(folder.path()));
    match (registry, kind.lacks) {
        (Ok(registry), None) => {
            let node = registry.member();
            check_accepted(&registry, &node, folder.path());
            true
        }
        (Err(error), Some(property)) => {
            assert!(error.starts_with(UNUSABLE), "{}: {error}", kind.name);
            assert!(error.contains(property), "{}: {error}", kind.name);
            assert!(!error.contains('\n'), "{}: {error}", kind.name);
            false
        }
        (Ok(_), Some(property)) => panic!("{}: accepted, though {property}", kind.name),
        (Err(error), None) => panic!("{}: {error}", kind.name),
    }
}

#[test]
fn a_ca_of_each_kind_is_accepted_and_good_or_rejected_by_its_property() {
    let accepted = KINDS.iter().filter(|kind| check(kind)).count();
    let expected = KINDS.iter().filter(|kind| kind.lacks.is_none()).count();
    assert_eq!(accepted, expected);
}

#[test]
fn a_certificate_of_version_1_has_that_version() {
    let folder = tempfile::tempdir().unwrap();
    let kind = KINDS.iter().find(|kind| kind.name == "version 1").unwrap();
    make_ca(folder.path(), kind);
    let text = openssl(folder.path(), &["x509", "-in", "ca.crt", "-noout", "-text"]);
    assert!(text.contains("Version: 1 "), "{text}");
}

#[track_caller]
fn check_rejected(own_ca: OwnCa, property: &str) {
    let error = Registry::with_own_ca(now(), own_ca).err().unwrap();
    assert_eq!(error, format!("{UNUSABLE}{property}"));
}

#[test]
fn a_ca_with_another_key_or_with_malformed_files_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    make_ca(folder.path(), &KIND);
    let good = own_ca(folder.path());
    create_key(folder.path(), EC_KEY, "other.key");
    let other = fs::read_to_string(folder.path().join("other.key")).unwrap();
    let with_key = |key: &str| OwnCa {
        key: key.to_owned(),
        ..good.clone()
    };
    check_rejected(
        with_key(&other),
        "its key is not that of its certificate: give the key that belongs to it",
    );
    check_rejected(with_key("letters\n"), "it holds no private key in PEM");
    let encrypted = [
        "ec",
        "-in",
        "ca.key",
        "-aes128",
        "-passout",
        "pass:secret",
        "-out",
        "encrypted.key",
    ];
    openssl(folder.path(), &encrypted);
    let encrypted = fs::read_to_string(folder.path().join("encrypted.key")).unwrap();
    check_rejected(
        with_key(&encrypted),
        "its key is encrypted: decrypt it, for example with `openssl pkey`",
    );
    let with_certificates = |certificates: String| OwnCa {
        certificates,
        ..good.clone()
    };
    check_rejected(
        with_certificates("letters\n".into()),
        "its certificate: it is no PEM of certificates, of at most 16384 bytes",
    );
    check_rejected(
        with_certificates(good.certificates.repeat(3)),
        "there are 3 certificates: give that of the CA and, if a root certified it, that of the root",
    );
    let altered = good.certificates.replacen("MII", "MIJ", 1);
    check_rejected(
        with_certificates(altered),
        "its certificate is no X.509 certificate of at most 4096 bytes",
    );
}

/// Lets the CA in `folder` sign the certificate request `next.csr`; returns the certificate in PEM.
fn certify(folder: &Path, subject: &str, extensions: &str) -> String {
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

const BELOW: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n";

#[test]
fn a_ca_below_a_root_is_accepted_with_any_names() {
    let folder = tempfile::tempdir().unwrap();
    make_ca(
        folder.path(),
        &subject("root", "/O=Example/OU=one/OU=two/CN=root"),
    );
    let root = fs::read_to_string(folder.path().join("ca.crt")).unwrap();
    create_key(folder.path(), "genrsa -traditional 2048", "next.key");
    let make_request = [
        "req", "-new", "-key", "next.key", "-subj", "/CN=x", "-out", "next.csr",
    ];
    openssl(folder.path(), &make_request);
    let key = fs::read_to_string(folder.path().join("next.key")).unwrap();
    let subject = "/O=Example/OU=three/OU=four/CN=online";
    let with = |extensions: &str| OwnCa {
        certificates: certify(folder.path(), subject, extensions) + &root,
        key: key.clone(),
    };
    let registry = Registry::with_own_ca(now(), with(BELOW)).unwrap();
    check_accepted(&registry, &registry.member(), folder.path());
    check_rejected(
        with("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,cRLSign\n"),
        "its key usage lacks keyCertSign",
    );
    let alone = OwnCa {
        certificates: certify(folder.path(), subject, BELOW),
        key: key.clone(),
    };
    check_rejected(
        alone,
        "another CA issued it: give the certificate of its root after its own",
    );
}

/// Returns the contents of all files of the registry's configuration folder.
fn files(registry: &Registry) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(&registry.paths.config_dir).unwrap();
    let mut all: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_registry_does_not_start_and_is_not_restored_with_a_ca_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    make_ca(folder.path(), &KIND);
    let mut registry = Registry::with_own_ca(now(), own_ca(folder.path())).unwrap();
    let copy = registry.paths.state_dir.join("copy");
    registry.stop();
    fs::copy(registry.paths.state_dir.join("registry.sqlite"), &copy).unwrap();
    let kinds = [
        "negative serial",
        "CA:FALSE",
        "key usage without keyCertSign",
        "empty subject",
    ];
    for kind in KINDS.iter().filter(|kind| kinds.contains(&kind.name)) {
        make_ca(folder.path(), kind);
        for name in ["ca.crt", "ca.key"] {
            let to = registry.paths.config_dir.join(name);
            fs::copy(folder.path().join(name), to).unwrap();
        }
        let before = files(&registry);
        let error = registry.try_restart().unwrap_err();
        let expected = format!("{UNUSABLE}{}", kind.lacks.unwrap());
        assert!(error.contains(&expected), "{error}");
        let paths = &registry.paths;
        let error = registry::init::restore::restore(paths, &copy, registry.now()).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(files(&registry), before);
        assert!(!paths.state_dir.join("registry.sqlite.before").exists());
    }
}
