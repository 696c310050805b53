//! Changes the registry's CA; where a root stands above it, with the root's key, which the registry never sees.

use super::{
    Root,
    arguments::{CaVerb, CertifyArgs, RotateCaArgs},
    operate::{admin_code, call, done, text_of},
    settings_code,
};
use crate::output::{fail, print_line};
use registry::{
    http::admin::{self, CaSigningRequest, NextCaRequest, RotateCaRequest},
    init::error::RegistryError,
    pki::{offline_root::OfflineRoot, request},
    service::RotationStep,
};
use std::{io, path::Path, process::ExitCode};

pub(super) fn rotate_ca(args: &RotateCaArgs) -> ExitCode {
    let staged = args.offline_root.is_some() || args.certificate.is_some();
    if staged && args.step != CaVerb::Stage {
        return fail(
            &io::Error::other("--offline-root and --certificate are for the step stage"),
            2,
        );
    }
    let step = match args.step {
        CaVerb::Request => {
            return call(
                &args.root,
                "POST",
                "/v1/authority/requests",
                Some(&NextCaRequest {}),
                |asked: CaSigningRequest| {
                    print_line(asked.csr.trim_end());
                    ExitCode::SUCCESS
                },
            );
        }
        CaVerb::Stage => RotationStep::Stage,
        CaVerb::Activate => RotationStep::Activate,
        CaVerb::Retire => RotationStep::Retire,
    };
    let certificate = match (&args.certificate, &args.offline_root) {
        (Some(file), _) => text_of(file).map(Some),
        (None, Some(folder)) => certified(&args.root, folder).map(Some),
        (None, None) => Ok(None),
    };
    let certificate = match certificate {
        Ok(certificate) => certificate,
        Err(code) => return code,
    };
    let ask = RotateCaRequest {
        step,
        force: args.force,
        certificate,
    };
    call(&args.root, "POST", "/v1/authority", Some(&ask), |answer| {
        done(&args.root, &args.wait, &answer)
    })
}

/// Lets the root in that folder certify the running registry's next CA.
fn certified(root: &Root, folder: &Path) -> Result<String, ExitCode> {
    let asked: Result<CaSigningRequest, _> = admin::ask(
        &root.paths().admin_socket,
        "POST",
        "/v1/authority/requests",
        Some(&NextCaRequest {}),
    );
    let asked = asked.map_err(|error| fail(&error, admin_code(&error)))?;
    let first = (!asked.has_root && !OfflineRoot::exists(folder)).then_some(asked.network);
    certify_with(folder, first, &asked.csr)
}

pub(super) fn certify(args: &CertifyArgs) -> ExitCode {
    let certified =
        text_of(&args.file).and_then(|csr| certify_with(&args.offline_root, args.network, &csr));
    match certified {
        Ok(certificates) => {
            print_line(certificates.trim_end());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// The certificates of the CA and of the root in that folder, in PEM. `make_for`: the root is made first, for
/// this network.
fn certify_with(
    folder: &Path,
    make_for: Option<ipnet::Ipv6Net>,
    csr: &str,
) -> Result<String, ExitCode> {
    let key = request::read(csr).map_err(|error| fail(&error, 1))?;
    let now = registry::clock::system_clock()();
    let made = || -> Result<String, RegistryError> {
        let root = match make_for {
            Some(network) => OfflineRoot::make(folder, network, now)?,
            None => OfflineRoot::open(folder)?,
        };
        Ok(root.certify(&key, now)? + root.pem())
    };
    made().map_err(|error| fail(&error, settings_code(&error)))
}
