//! What the registry's operator does to nodes of a lab.

use crate::Lab;
use anyhow::{Context, Result};
use std::{fs, path::PathBuf};

impl Lab {
    /// The folder of the root's key, where the registry was made with one.
    pub fn offline_root(&self) -> PathBuf {
        self.folder().join("offline-root")
    }

    /// A new invitation of the running registry.
    ///
    /// # Errors
    /// Where `warren registry invite` refuses or prints none.
    pub fn invite(&self) -> Result<String> {
        self.invite_with(&[])
    }

    /// A new invitation with these options.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub fn invite_with(&self, options: &[&str]) -> Result<String> {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let told = self.registry_command("invite", &options)?;
        let invitation = told
            .split_whitespace()
            .find(|word| word.starts_with("warren://"));
        invitation
            .map(ToOwned::to_owned)
            .with_context(|| format!("no invitation in {told:?}"))
    }

    /// Revokes a node's certificates, as the operator does.
    ///
    /// # Errors
    /// Where `warren registry revoke` refuses.
    pub fn revoke(&self, prefix: &str) -> Result<()> {
        self.registry_command("revoke", &[prefix.to_owned()])
            .map(drop)
    }

    /// Lets a node join whose request and certificate are carried by file.
    ///
    /// # Errors
    /// Where one of the three commands refuses.
    pub fn join_by_file(&self, index: usize) -> Result<()> {
        let node = self.node(index)?;
        let (request, answer) = (
            self.folder().join("request.txt"),
            self.folder().join("answer.txt"),
        );
        fs::write(&request, node.request()?)?;
        fs::write(
            &answer,
            self.registry_command("sign", &[request.to_string_lossy().into_owned()])?,
        )?;
        node.install(&answer).map(drop)
    }
}
