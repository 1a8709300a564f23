//! What `dist/kubernetes/fixer.yaml` starts on a node: with which arguments, and with which privileges.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The manifest, from the root of the repository.
pub const MANIFEST: &str = "dist/kubernetes/fixer.yaml";

/// The objects of the manifest.
#[derive(Debug)]
pub struct Manifest(Vec<Value>);

/// A container of the DaemonSet's pods.
#[derive(Debug)]
pub struct Container<'a>(&'a Value);

impl Manifest {
    /// Reads it.
    pub fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(MANIFEST);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self(serde_saphyr::from_multiple(&text).context(MANIFEST)?))
    }

    /// What every pod is made of.
    pub fn pod(&self) -> Result<&Value> {
        let daemon = self.0.iter().find(|object| object["kind"] == "DaemonSet");
        Ok(&daemon.context("there is no DaemonSet")?["spec"]["template"]["spec"])
    }

    /// What is run once before, to its end.
    pub fn first(&self) -> Result<Container<'_>> {
        only(&self.pod()?["initContainers"])
    }

    /// What runs.
    pub fn main(&self) -> Result<Container<'_>> {
        only(&self.pod()?["containers"])
    }
}

fn only(containers: &Value) -> Result<Container<'_>> {
    match containers.as_array().map(Vec::as_slice) {
        Some([container]) => Ok(Container(container)),
        _ => anyhow::bail!("not one container: {containers}"),
    }
}

impl<'a> Container<'a> {
    /// All of it.
    pub fn value(&self) -> &'a Value {
        self.0
    }

    /// The arguments of `fixer`.
    pub fn args(&self) -> Result<Vec<&'a str>> {
        texts(&self.0["args"])
    }

    /// The capabilities that it has: none but those that are named.
    pub fn capabilities(&self) -> Result<Vec<&'a str>> {
        let capabilities = &self.0["securityContext"]["capabilities"];
        ensure!(texts(&capabilities["drop"])? == ["ALL"], "not all are dropped: {capabilities}");
        texts(&capabilities["add"])
    }

    /// Address, port and path of its probe.
    pub fn probe(&self) -> Result<(String, &'a str)> {
        let probe = &self.0["livenessProbe"]["httpGet"];
        let host = probe["host"].as_str().context("the probe has no host")?;
        let path = probe["path"].as_str().context("the probe has no path")?;
        Ok((format!("{host}:{}", probe["port"]), path))
    }
}

fn texts(list: &Value) -> Result<Vec<&str>> {
    let list = list.as_array().with_context(|| format!("this is no list: {list}"))?;
    list.iter().map(|it| it.as_str().with_context(|| format!("this is no text: {it}"))).collect()
}
