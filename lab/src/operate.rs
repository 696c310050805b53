//! What the registry's operator does to nodes of a lab.

use crate::Lab;
use anyhow::Result;
use std::fs;

impl Lab {
    /// Revokes a node's certificates, as the operator does.
    ///
    /// # Errors
    /// Where `warren registry revoke` refuses.
    pub fn revoke(&self, prefix: &str) -> Result<()> {
        self.registry_command("revoke", &[prefix.to_owned()]).map(drop)
    }

    /// Lets a node join whose request and certificate are carried by file.
    ///
    /// # Errors
    /// Where one of the three commands refuses.
    pub fn join_by_file(&self, index: usize) -> Result<()> {
        let node = self.node(index)?;
        let (request, answer) = (self.folder().join("request.txt"), self.folder().join("answer.txt"));
        fs::write(&request, node.request()?)?;
        fs::write(&answer, self.registry_command("sign", &[request.to_string_lossy().into_owned()])?)?;
        node.install(&answer).map(drop)
    }
}
