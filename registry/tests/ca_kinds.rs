//! Creates registries with CAs of all kinds that openssl makes: each is accepted, and then everybody accepts its
//! certificates, or it is rejected with the property that it lacks.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

mod support;

use registry::{
    http::admin::{AdminError, CaSigningRequest, ChangeResult, NextCaRequest, RotateCaRequest},
    pki::credentials::OwnCa,
    service::RotationStep,
};
use std::{fs, path::Path};
use support::{
    Registry, apply, ask, files, now,
    own_cas::{
        BELOW, EC_KEY, KIND, Kind, certify, create_key, extensions, key, make_ca, openssl, own_ca,
        serial, subject,
    },
};
use wire::chain;

/// The start of each rejection.
const UNUSABLE: &str = "the CA cannot be used: ";

const KINDS: [Kind; 37] = [
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
    .lacks("its certificate has the critical extension 1.2.3.4, which nodes do not know"),
    extensions(
        "critical policies",
        "basicConstraints=critical,CA:TRUE\ncertificatePolicies=critical,1.2.3.4\n",
    )
    .lacks(
        "its certificate has the critical extension certificatePolicies, which nodes do not know",
    ),
    extensions(
        "name constraints",
        "basicConstraints=critical,CA:TRUE\nnameConstraints=permitted;IP:10.0.0.0/255.0.0.0\n",
    )
    .lacks("its certificate has name constraints"),
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

/// Checks that openssl, a node's check of chains and rustls accept the certificates of a node and of the registry, whose
/// CA's files are in the folder `ca` of its configuration.
#[track_caller]
fn check_accepted(registry: &Registry, ca: &str, folder: &Path) {
    let node = registry.member();
    let chain = chain::read_pem(node.claimed.certificate.as_bytes()).unwrap();
    let trusted = chain::read_pem(node.claimed.ca.as_bytes()).unwrap();
    chain::verify(&chain, &trusted, Some(registry.now().0)).unwrap();
    fs::write(folder.join("trusted.crt"), &node.claimed.ca).unwrap();
    fs::write(folder.join("node.crt"), &node.claimed.certificate).unwrap();
    let tls = registry.paths.config_dir.join(ca).join("tls.crt");
    fs::copy(tls, folder.join("tls.crt")).unwrap();
    let at = registry.now().0.to_string();
    let verify = [
        "verify",
        "-attime",
        &at,
        "-CAfile",
        "trusted.crt",
        "-untrusted",
        "node.crt",
        "-purpose",
    ];
    for (purpose, file) in [
        ("sslclient", "node.crt"),
        ("sslserver", "node.crt"),
        ("sslserver", "tls.crt"),
    ] {
        let verified = openssl(folder, &[&verify[..], &[purpose, file]].concat());
        assert!(verified.contains(&format!("{file}: OK")), "{verified}");
    }
    // TLS in both directions, by rustls.
    apply(registry, &node);
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
            check_accepted(&registry, "", folder.path());
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
        "its certificate: it is not a PEM file with certificates only, of at most 16384 bytes",
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
    check_accepted(&registry, "", folder.path());
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

/// Expects that a CA is rejected for the lack of this property.
#[track_caller]
fn check_detail(asked: Result<ChangeResult, AdminError>, property: &str) {
    match asked {
        Err(AdminError::Rejected { title, detail }) => {
            assert_eq!(title, "CA certificate rejected", "{detail}");
            assert!(detail.contains(property), "{detail}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted, though {property}"),
    }
}

#[test]
fn a_ca_is_checked_when_it_is_staged_and_when_it_is_activated() {
    let folder = tempfile::tempdir().unwrap();
    make_ca(folder.path(), &KIND);
    // Later than the certificates that openssl makes below.
    let start = now().saturating_add_s(3600);
    let registry = Registry::with_own_ca(start, own_ca(folder.path())).unwrap();
    let asked: CaSigningRequest =
        registry.order("POST", "/v1/authority/requests", &NextCaRequest {});
    fs::write(folder.path().join("next.csr"), asked.csr).unwrap();
    make_ca(
        folder.path(),
        &subject("root", "/O=Example/OU=one/OU=two/CN=root"),
    );
    let root = fs::read_to_string(folder.path().join("ca.crt")).unwrap();
    let rotate = |step, extensions: Option<&str>| {
        let subject = "/O=Example/OU=three/OU=four/CN=online";
        let certify = |extensions| certify(folder.path(), subject, extensions) + &root;
        let certificate = extensions.map(certify);
        let force = true;
        ask::<ChangeResult>(
            &registry,
            "POST",
            "/v1/authority",
            &RotateCaRequest {
                step,
                force,
                certificate,
            },
        )
    };
    let next = registry.paths.config_dir.join("ca-2");
    for (extensions, property) in [
        (
            "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,cRLSign\n",
            "is not for signing certificates",
        ),
        ("basicConstraints=critical,CA:FALSE\n", "is none of a CA"),
        ("keyUsage=critical,keyCertSign\n", "is none of a CA"),
        (
            "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nextendedKeyUsage=codeSigning\n",
            "its extended key usage lacks serverAuth or clientAuth",
        ),
    ] {
        let before = files(&registry);
        check_detail(rotate(RotationStep::Stage, Some(extensions)), property);
        assert!(!next.exists() && files(&registry) == before, "{extensions}");
    }
    rotate(RotationStep::Stage, Some(BELOW)).unwrap();
    let before = files(&registry);
    // The staged CA lasts 90 days, and the one that signs lasts 100.
    registry.pass(95 * 86_400);
    check_detail(
        rotate(RotationStep::Activate, None),
        "its certificate expired on",
    );
    assert_eq!(files(&registry), before);
    registry.pass(-95 * 86_400);
    rotate(RotationStep::Activate, None).unwrap();
    check_accepted(&registry, "ca-2", folder.path());
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
