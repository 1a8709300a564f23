//! The manifest for Kubernetes is valid, and holds what fixer needs and nothing more.
//!
//! `cargo xtask scenario cni` runs fixer as it says.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use caps::Capability;
use clap::Parser as _;
use fixer_tests::{
    command::{Running, program},
    kubernetes::{Container, MANIFEST, Manifest},
};
use fixer_user::{
    cli::{Cli, Verb},
    net::netns::NetNs,
    privileges::{self, Act},
};
use serde_json::json;

/// Where `cargo xtask test` puts the schemas, from the root of the repository.
const SCHEMAS: &str = "target/kubernetes";

/// The oldest version whose schemas are there, and one of those that run today.
const VERSIONS: [&str; 2] = ["1.25.0", "1.36.0"];

fn names(capabilities: impl IntoIterator<Item = Capability>) -> Vec<String> {
    let name = |it: Capability| it.to_string().trim_start_matches("CAP_").to_owned();
    let mut names: Vec<_> = capabilities.into_iter().map(name).collect();
    names.sort();
    names
}

/// The capabilities of a container are those of these acts.
fn grants(container: &Container<'_>, acts: &[Act]) -> Result<()> {
    let mut granted = container.capabilities()?;
    granted.sort_unstable();
    let needed = names(privileges::needs(acts).into_iter().map(|(capability, _)| capability));
    ensure!(granted == needed, "it grants {granted:?}, and fixer needs {needed:?}");
    Ok(())
}

#[test]
fn it_grants_what_fixer_needs() -> Result<()> {
    let manifest = Manifest::read()?;
    grants(&manifest.first()?, privileges::TO_PROVE)?;
    grants(&manifest.main()?, privileges::TO_ATTACH)?;
    for container in [manifest.first()?, manifest.main()?] {
        let context = &container.value()["securityContext"];
        ensure!(context["privileged"].is_null(), "{context}");
        ensure!(context["readOnlyRootFilesystem"] == true, "{context}");
        ensure!(context["allowPrivilegeEscalation"] == false, "{context}");
        // The kernel gives named capabilities to root alone.
        ensure!(context["runAsUser"] == 0, "{context}");
    }
    let pod = manifest.pod()?;
    ensure!(pod["hostNetwork"] == true && pod["hostPID"].is_null(), "{pod}");
    ensure!(pod["volumes"].is_null(), "{pod}");
    ensure!(pod["nodeSelector"] == json!({ "kubernetes.io/os": "linux" }), "{pod}");
    Ok(())
}

/// The arguments are fixer's, and the probe asks where its metrics are.
#[test]
fn it_starts_fixer_as_fixer_is_started() -> Result<()> {
    let manifest = Manifest::read()?;
    let cli = |container: &Container<'_>| -> Result<Cli> {
        let cli = Cli::try_parse_from([&["fixer"], &container.args()?[..]].concat())?;
        cli.check()?;
        Ok(cli)
    };
    ensure!(matches!(cli(&manifest.first()?)?.verb, Verb::Selftest(_)));
    let main = manifest.main()?;
    ensure!(matches!(cli(&main)?.verb, Verb::Run(_)));
    let (place, path) = main.probe()?;
    place.parse::<SocketAddr>().with_context(|| place.clone())?;
    ensure!(path == "/healthz", "{path}");
    let metrics = format!("--metrics={place}");
    ensure!(main.args()?.contains(&&*metrics), "no {metrics} in {:?}", main.args()?);
    Ok(())
}

/// Against the schemas that Kubernetes publishes.
#[test]
fn it_is_valid() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let netns = NetNs::scratch("nowhere")?;
    for version in VERSIONS {
        let manifest = root.join(MANIFEST);
        let manifest = manifest.to_str().context("the path is no text")?;
        let arguments = ["-m", "kubernetes_validate", "--strict", "-k", version, manifest];
        let mut validate = program("python3", &arguments);
        validate.env("PYTHONPATH", root.join(SCHEMAS)).env("PYTHONDONTWRITEBYTECODE", "1");
        let ended = Running::start(&netns, validate)?.end()?;
        let told = format!("{ended:?}; `cargo xtask test` fetches the schemas");
        ensure!(ended.status.success(), "{told}");
        // It says what it looked at: nothing is not valid.
        let passed =
            |kind: &str| ended.stdout.iter().chain(&ended.stderr).any(|it| it.contains(kind));
        for kind in ["namespace/fixer", "serviceaccount/fixer", "daemonset/fixer"] {
            ensure!(passed(&format!("passed for resource {kind} ")), "{told}");
        }
    }
    Ok(())
}
