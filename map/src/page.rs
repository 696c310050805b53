//! The page that shows a map and keeps it up to date: one file, without anything from elsewhere.

use crate::drawing::{STYLE, fragment};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::sync::LazyLock;
use wire::{
    control::{EventEntry, VERSION},
    map::MapDocument,
};

const TEMPLATE: &str = include_str!("../page/page.html");
const SCRIPT: &str = include_str!("../page/page.js");
const PAGE_STYLE: &str = include_str!("../page/page.css");

/// The page, and the header with which it must be served.
#[derive(Clone, Debug)]
pub struct Page {
    /// The HTML document.
    pub html: String,
    /// The value of its header `Content-Security-Policy`: only the script and the styles of the page are in force, and it loads
    /// nothing but what has changed, from where it came.
    pub content_security_policy: String,
}

/// What the page gets twice a second.
#[derive(Clone, Debug, Serialize)]
pub struct Update {
    /// The version of the fields: [`VERSION`].
    pub version: u32,
    /// The drawing as SVG, without styles.
    pub svg: String,
    /// The number of the newest event; 0 if there is none.
    pub newest: u64,
    /// The events that the page has not shown yet, by number.
    pub events: Vec<EventEntry>,
}

impl Update {
    /// Draws a document, and adds the events that the page has not shown yet.
    pub fn new(document: &MapDocument, newest: u64, events: Vec<EventEntry>) -> Self {
        Self {
            version: VERSION,
            svg: fragment(document),
            newest,
            events,
        }
    }
}

/// Returns the page, which is the same for all networks.
pub fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(build);
    &PAGE
}

fn build() -> Page {
    let style = format!("{PAGE_STYLE}{STYLE}");
    let content_security_policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        source_of(SCRIPT),
        source_of(&style)
    );
    Page {
        html: TEMPLATE.replace("STYLE", &style).replace("SCRIPT", SCRIPT),
        content_security_policy,
    }
}

/// The hash by which a policy allows an inline text (Content Security Policy Level 3, section 2.3.1).
fn source_of(text: &str) -> String {
    format!(
        "sha256-{}",
        STANDARD.encode(digest(&SHA256, text.as_bytes()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let html = &page().html;
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.contains("<style>body{") && html.contains("<script>'use strict';"));
    }
}
