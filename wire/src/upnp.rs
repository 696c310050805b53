//! Parses what a UPnP gateway answers: responses to searches, its description, and the responses to actions.
//!
//! Many gateways write XML carelessly, and anybody on a LAN can answer in place of a gateway. So a document is read up to its
//! first error, and the number and the length of what is read are limited. The formats are those of the UPnP Device
//! Architecture 1.1, sections 1.3.3 (search), 2.3 (description) and 3.2 (actions).

use std::fmt::Write;
use xml::reader::{EventReader, ParserConfig, XmlEvent};

/// Maximum number of XML events that are read of a document.
const MAX_EVENTS: usize = 16_384;
/// Maximum depth of nested elements.
const MAX_DEPTH: usize = 64;
/// Maximum number of bytes of one element's text.
const MAX_TEXT_BYTES: usize = 1024;
/// Maximum number of services, or of fields of a response.
const MAX_ITEMS: usize = 32;

/// The services that map ports (WANIPConnection:2, section 1.1), without their version.
const WAN_SERVICES: [&str; 2] = [
    "urn:schemas-upnp-org:service:WANIPConnection:",
    "urn:schemas-upnp-org:service:WANPPPConnection:",
];

/// The service that opens the firewall for IPv6 (WANIPv6FirewallControl:1, section 1.1), without its version.
const FIREWALL_SERVICE: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:";

/// A service that maps ports, or opens the firewall for IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WanService {
    /// The type with its version, such as `urn:schemas-upnp-org:service:WANIPConnection:1`.
    pub service_type: String,
    /// Where its actions are requested; relative to the description, or to [`Description::url_base`].
    pub control_url: String,
}

/// The parts of a device's description that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The address to which the other ones are relative, if the device says one.
    pub url_base: Option<String>,
    /// The services that map ports, in the order of the document.
    pub wan_services: Vec<WanService>,
    /// The services that open the firewall for IPv6, likewise.
    pub firewall_services: Vec<WanService>,
}

/// The response to an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionResponse {
    /// The action was carried out.
    Done {
        /// The name of the response, such as `AddPortMappingResponse`.
        name: String,
        /// The names and values of the results.
        fields: Vec<(String, String)>,
    },
    /// The action failed with this error code.
    Fault(u16),
}

impl ActionResponse {
    /// Returns the value of a result.
    pub fn field(&self, name: &str) -> Option<&str> {
        let Self::Done { fields, .. } = self else {
            return None;
        };
        let found = fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Writes the response without what is unusual in it: well-formed, and with all parts that a strict parser requires.
    pub fn to_envelope(&self) -> String {
        let mut body = String::new();
        // Writing to a string never fails.
        let _ = match self {
            Self::Done { name, fields } => {
                let _ = write!(body, "<{name}>");
                for (field, value) in fields {
                    let value = xml::escape::escape_str_pcdata(value);
                    let _ = write!(body, "<{field}>{value}</{field}>");
                }
                write!(body, "</{name}>")
            }
            Self::Fault(code) => write!(
                body,
                "<Fault><detail><UPnPError><errorCode>{code}</errorCode>\
                 <errorDescription>error {code}</errorDescription></UPnPError></detail></Fault>"
            ),
        };
        format!("<Envelope><Body>{body}</Body></Envelope>")
    }
}

/// One step through a document.
enum Step<'a> {
    /// An element that contains others starts.
    Start(&'a str),
    /// An element that contains only text, or nothing.
    Leaf(&'a str, &'a str),
    /// An element that contains others ends.
    End(&'a str),
}

/// Reads a document up to its end, its first error or the limits.
fn read(text: &str, mut visit: impl FnMut(Step<'_>)) {
    let config = ParserConfig::new()
        .trim_whitespace(true)
        .cdata_to_characters(true)
        .max_entity_expansion_length(MAX_TEXT_BYTES)
        .max_entity_expansion_depth(2);
    let reader = EventReader::new_with_config(text.as_bytes(), config);
    // The element that started last, and its text so far.
    let mut open: Option<(String, String)> = None;
    let mut depth = 0usize;
    for event in reader.into_iter().take(MAX_EVENTS) {
        match event {
            Ok(XmlEvent::StartElement { name, .. }) => {
                if let Some((parent, _)) = open.replace((name.local_name, String::new())) {
                    visit(Step::Start(&parent));
                }
                depth += 1;
                if depth > MAX_DEPTH {
                    return;
                }
            }
            Ok(XmlEvent::Characters(characters)) => {
                if let Some((_, text)) = &mut open
                    && text.len() + characters.len() <= MAX_TEXT_BYTES
                {
                    text.push_str(&characters);
                }
            }
            Ok(XmlEvent::EndElement { name }) => {
                depth = depth.saturating_sub(1);
                match open.take() {
                    Some((leaf, text)) => visit(Step::Leaf(&leaf, &text)),
                    None => visit(Step::End(&name.local_name)),
                }
            }
            Ok(
                XmlEvent::StartDocument { .. }
                | XmlEvent::EndDocument
                | XmlEvent::ProcessingInstruction { .. }
                | XmlEvent::CData(_)
                | XmlEvent::Comment(_)
                | XmlEvent::Whitespace(_),
            ) => {}
            Err(_) => break,
        }
    }
    if let Some((name, _)) = &open {
        visit(Step::Start(name));
    }
}

/// Returns the value of the header LOCATION of a response to a search; `None` if it is none, or is longer than 1024 bytes.
pub fn search_location(datagram: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(datagram);
    let mut lines = text.lines();
    let status = lines.next()?;
    if !status.starts_with("HTTP/1.") || status.split_whitespace().nth(1) != Some("200") {
        return None;
    }
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let (_, location) = headers.find(|(name, _)| name.trim().eq_ignore_ascii_case("location"))?;
    let location = location.trim();
    (!location.is_empty() && location.len() <= MAX_TEXT_BYTES).then(|| location.to_owned())
}

/// Parses the description of a device. What cannot be read is left out.
pub fn parse_description(text: &str) -> Description {
    let mut description = Description::default();
    let mut service = (None, None);
    read(text, |step| match step {
        Step::Start("service") => service = (None, None),
        Step::Leaf("serviceType", value) => service.0 = Some(value.to_owned()),
        Step::Leaf("controlURL", value) => service.1 = Some(value.to_owned()),
        Step::Leaf("URLBase", value) if !value.is_empty() => {
            description.url_base = Some(value.to_owned());
        }
        Step::End("service") => {
            if let (Some(service_type), Some(control_url)) = std::mem::take(&mut service)
                && let Some(services) = description.services_like(&service_type)
                && !control_url.is_empty()
                && services.len() < MAX_ITEMS
            {
                services.push(WanService {
                    service_type,
                    control_url,
                });
            }
        }
        Step::Start(_) | Step::Leaf(..) | Step::End(_) => {}
    });
    description
}

impl Description {
    /// Returns the list for services of this type; `None` if such a service is of no use. The type becomes part of a request, so
    /// its version must be a number.
    fn services_like(&mut self, service_type: &str) -> Option<&mut Vec<WanService>> {
        let is_a = |name: &str| {
            let version = service_type.strip_prefix(name);
            version.is_some_and(|version| version.parse::<u8>().is_ok())
        };
        if is_a(FIREWALL_SERVICE) {
            return Some(&mut self.firewall_services);
        }
        let is_wan = WAN_SERVICES.into_iter().any(is_a);
        is_wan.then_some(&mut self.wan_services)
    }
}

/// Whether an element's name consists of the letters and digits that UPnP uses, and begins with a letter, as it must without a prefix.
fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Parses the response to an action; `None` if it is neither a result nor an error of UPnP.
pub fn parse_response(text: &str) -> Option<ActionResponse> {
    let mut done: Option<(String, Vec<(String, String)>)> = None;
    let mut fault = None;
    read(text, |step| match step {
        Step::Leaf("errorCode", code) => fault = fault.or_else(|| code.parse().ok()),
        Step::Start(name) | Step::Leaf(name, _)
            if done.is_none() && name.ends_with("Response") && is_name(name) =>
        {
            done = Some((name.to_owned(), Vec::new()));
        }
        Step::Leaf(name, value) => {
            if let Some((_, fields)) = &mut done
                && is_name(name)
                && fields.len() < MAX_ITEMS
            {
                fields.push((name.to_owned(), value.to_owned()));
            }
        }
        Step::Start(_) | Step::End(_) => {}
    });
    match (fault, done) {
        (Some(code), _) => Some(ActionResponse::Fault(code)),
        (None, Some((name, fields))) => Some(ActionResponse::Done { name, fields }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = r#"<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>"#;
    const IP: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

    fn service(kind: &str, url: &str) -> String {
        format!(
            "<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>"
        )
    }

    #[track_caller]
    fn check_description(text: &str, expected: &[(&str, &str)]) {
        let services = parse_description(text).wan_services;
        let services: Vec<_> = services
            .iter()
            .map(|found| (found.service_type.as_str(), found.control_url.as_str()))
            .collect();
        assert_eq!(services, expected, "{text}");
    }

    #[test]
    fn the_services_that_map_ports_are_found_at_any_depth_and_in_order() {
        let dead = "urn:schemas-upnp-org:service:WANPPPConnection:1";
        let other = service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l3");
        let list = [other, service(dead, "/dead"), service(IP, "/wan")].concat();
        let text = format!(
            "<root><device><deviceList><device><serviceList>{list}</serviceList></device></deviceList></device></root>"
        );
        check_description(&text, &[(dead, "/dead"), (IP, "/wan")]);
        let firewall = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";
        let text = [&service(IP, "/wan"), &*service(firewall, "/ipv6")].concat();
        check_description(&text, &[(IP, "/wan")]);
        let [found] = &*parse_description(&text).firewall_services else {
            panic!("{text}");
        };
        assert_eq!(found.control_url, "/ipv6");
        check_description(&service(&format!("{IP}\r\nX: y"), "/wan"), &[]);
        check_description(&service(IP, ""), &[]);
        check_description("", &[]);
    }

    #[test]
    fn a_description_that_ends_too_early_is_used_up_to_there() {
        let text = format!("<root><device><serviceList>{}</servi", service(IP, "/wan"));
        check_description(&text, &[(IP, "/wan")]);
        check_description(&format!("{} & <b>", service(IP, "/wan")), &[(IP, "/wan")]);
    }

    #[test]
    fn a_response_to_a_search_has_a_location() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                search_location(text.as_bytes()).as_deref(),
                expected,
                "{text}"
            );
        };
        check(
            "HTTP/1.1 200 OK\r\nST: x\r\nLocation: http://192.168.1.1:5000/d.xml\r\n\r\n",
            Some("http://192.168.1.1:5000/d.xml"),
        );
        check("HTTP/1.1 200 OK\r\nST: x\r\n\r\n", None);
        check(
            "HTTP/1.1 404 Not Found\r\nLOCATION: http://a/\r\n\r\n",
            None,
        );
        check("NOTIFY * HTTP/1.1\r\nLOCATION: http://a/\r\n\r\n", None);
        check(
            &format!("HTTP/1.1 200 OK\r\nLOCATION: {}", "a".repeat(1025)),
            None,
        );
    }

    #[track_caller]
    fn check_response(body: &str, expected: Option<ActionResponse>) {
        assert_eq!(parse_response(&format!("{HEAD}{body}")), expected, "{body}");
    }

    fn done(name: &str, fields: &[(&str, &str)]) -> Option<ActionResponse> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Some(ActionResponse::Done {
            name: name.to_owned(),
            fields: fields.iter().map(owned).collect(),
        })
    }

    #[test]
    fn results_and_errors_are_read_from_careless_xml() {
        check_response(
            r#"<u:AddPortMappingResponse xmlns:u="u"></u:AddPortMappingResponse></s:Body></s:Envelope>"#,
            done("AddPortMappingResponse", &[]),
        );
        let address = r#"<u:GetExternalIPAddressResponse xmlns:u="u"><NewExternalIPAddress>45.67.0.1</NewExternalIPAddress></u:Get"#;
        let expected = done(
            "GetExternalIPAddressResponse",
            &[("NewExternalIPAddress", "45.67.0.1")],
        );
        check_response(address, expected);
        for description in [
            "",
            "<errorDescription></errorDescription>",
            "<errorDescription>a & b",
        ] {
            let fault =
                format!("<s:Fault><detail><UPnPError><errorCode>718</errorCode>{description}");
            check_response(&fault, Some(ActionResponse::Fault(718)));
        }
        check_response("<html>404</html>", None);
        check_response("<errorCode>many</errorCode>", None);
        // With a prefix that is not written again, a name may begin with a digit.
        check_response("<u:1AddPinholeResponse><UniqueID>7</UniqueID>", None);
    }

    #[test]
    fn an_ampersand_ends_a_response_and_what_came_before_is_used() {
        let body = r#"<u:GetSpecificPortMappingEntryResponse xmlns:u="u"><NewInternalPort>3074</NewInternalPort><NewPortMappingDescription>Tom & Jerry</NewPortMappingDescription>"#;
        check_response(
            body,
            done(
                "GetSpecificPortMappingEntryResponse",
                &[("NewInternalPort", "3074")],
            ),
        );
    }

    #[test]
    fn what_is_written_again_is_read_as_the_same() {
        for response in [
            done("X1Response", &[("A", "a & <b>"), ("B", "")]).unwrap(),
            ActionResponse::Fault(501),
        ] {
            assert_eq!(parse_response(&response.to_envelope()), Some(response));
        }
    }

    #[test]
    fn entities_that_grow_and_deep_elements_end_the_reading() {
        let bomb = r#"<!DOCTYPE a [<!ENTITY b "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>"#;
        assert_eq!(
            parse_response(&format!("{bomb}<a><AResponse><B>&d;</B></AResponse></a>")),
            done("AResponse", &[])
        );
        let deep = "<a>".repeat(100_000) + "<AResponse/>";
        assert_eq!(parse_response(&deep), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(<[a-zA-Z/:!?]{0,9}>|&[a-z#]{0,3};?|[a-z ]{0,9}|\\PC{0,9}){0,40}") {
            let _ = parse_description(&text);
            let _ = parse_response(&text).map(|response| parse_response(&response.to_envelope()));
            let _ = search_location(text.as_bytes());
        }
    }
}
