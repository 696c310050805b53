//! Serves the description of a scripted gateway, and its actions.

use super::{
    Shared,
    faults::BodyFault,
    soap::{self, DEAD_SERVICE, SERVICE},
};
use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longest wait for a request.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of a request's body.
const MAX_BODY_BYTES: u64 = 64 * 1024;
/// The difference between the announced and the real length of a body that has the wrong length.
const LENGTH_ERROR: usize = 20;
/// Bytes of one chunk.
const CHUNK_BYTES: usize = 100;
/// The start of all names of services.
const SERVICE_TYPE: &str = "urn:schemas-upnp-org:service";

/// Answers one request, and closes the connection.
pub(super) fn serve(stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let path = head.split(' ').nth(1).context("no path")?.to_owned();
    let Some(action) = header("soapaction") else {
        shared.pause(shared.faults.document_delay);
        return match document(shared, &path) {
            Some(text) => send(
                reader.into_inner(),
                "200 OK",
                text.as_bytes(),
                shared.faults.body,
            ),
            None => send(
                reader.into_inner(),
                "404 Not Found",
                b"<html>404</html>",
                None,
            ),
        };
    };
    let length = header("content-length").and_then(|length| length.parse().ok());
    let mut body = Vec::new();
    let limit = length.unwrap_or(0).min(MAX_BODY_BYTES);
    (&mut reader).take(limit).read_to_end(&mut body)?;
    let action = action.trim_matches('"');
    let (service, name) = action.split_once('#').context("no action")?;
    let body = String::from_utf8_lossy(&body);
    let (status, answer) = match soap::act(shared, &path, name, &body) {
        Ok(fields) => ("200 OK", result(service, name, &fields)),
        Err(code) => (
            "500 Internal Server Error",
            fault(code, shared.faults.has_bare_errors),
        ),
    };
    send(reader.into_inner(), status, &answer, shared.faults.body)
}

fn document(shared: &Shared, path: &str) -> Option<String> {
    let faults = &shared.faults;
    match path {
        "/root.xml" => Some(description(faults.version, faults.has_dead_service)),
        "/service.xml" if !faults.lacks_service_description => Some(service_description()),
        _ => None,
    }
}

/// The actions of the service, with the names of their arguments.
fn service_description() -> String {
    let add = [
        "NewRemoteHost",
        "NewExternalPort",
        "NewProtocol",
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ];
    let remove = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];
    let argument =
        |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
    let action = |name: &str, arguments: &[&str]| {
        let arguments: String = arguments.iter().map(argument).collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let actions = [
        action("GetExternalIPAddress", &[]),
        action("GetGenericPortMappingEntry", &["NewPortMappingIndex"]),
        action("AddPortMapping", &add),
        action("DeletePortMapping", &remove),
    ];
    format!(
        "<?xml version=\"1.0\"?>\n<scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{}</actionList></scpd>",
        actions.concat()
    )
}

fn description(version: u8, has_dead_service: bool) -> String {
    let service = |kind: &str, path: &str| {
        format!(
            "<service><serviceType>{SERVICE_TYPE}:{kind}</serviceType><serviceId>urn:upnp-org:serviceId:{kind}</serviceId>\
             <SCPDURL>/service.xml</SCPDURL><controlURL>{path}</controlURL><eventSubURL>/events</eventSubURL></service>"
        )
    };
    let mut services = service(&format!("WANIPConnection:{version}"), SERVICE);
    if has_dead_service {
        services.insert_str(0, &service("WANPPPConnection:1", DEAD_SERVICE));
    }
    let device = |kind: &str, inside: &str| {
        format!(
            "<device><deviceType>urn:schemas-upnp-org:device:{kind}:{version}</deviceType><UDN>uuid:lab</UDN>{inside}</device>"
        )
    };
    let connection = device(
        "WANConnectionDevice",
        &format!("<serviceList>{services}</serviceList>"),
    );
    let wan = device(
        "WANDevice",
        &format!("<deviceList>{connection}</deviceList>"),
    );
    let root = device(
        "InternetGatewayDevice",
        &format!("<deviceList>{wan}</deviceList>"),
    );
    format!(
        "<?xml version=\"1.0\"?>\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><specVersion><major>1</major><minor>0</minor>\
         </specVersion>{root}</root>"
    )
}

/// Wraps the body of an answer to an action.
fn envelope(body: &[u8]) -> Vec<u8> {
    let head = "<?xml version=\"1.0\"?>\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>";
    [head.as_bytes(), body, b"</s:Body></s:Envelope>"].concat()
}

fn result(service: &str, action: &str, fields: &[u8]) -> Vec<u8> {
    let start = format!("<u:{action}Response xmlns:u=\"{service}\">");
    let end = format!("</u:{action}Response>");
    envelope(&[start.as_bytes(), fields, end.as_bytes()].concat())
}

fn fault(code: u16, is_bare: bool) -> Vec<u8> {
    let description = if is_bare { "" } else { "error" };
    let fault = format!(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
         <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
         <errorDescription>{description}</errorDescription></UPnPError></detail></s:Fault>"
    );
    envelope(fault.as_bytes())
}

fn send(mut stream: TcpStream, status: &str, body: &[u8], fault: Option<BodyFault>) -> Result<()> {
    let version = if fault == Some(BodyFault::Http10) {
        "1.0"
    } else {
        "1.1"
    };
    let mut bytes = body.to_vec();
    let mut headers =
        format!("HTTP/{version} {status}\r\nContent-Type: text/xml\r\nConnection: close\r\n");
    let length = match fault {
        None => Some(bytes.len()),
        Some(BodyFault::LengthTooLarge) => Some(bytes.len() + LENGTH_ERROR),
        Some(BodyFault::LengthTooSmall) => Some(bytes.len().saturating_sub(LENGTH_ERROR)),
        Some(BodyFault::Http10) => None,
        Some(BodyFault::Gzip) => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body)?;
            bytes = encoder.finish()?;
            headers += "Content-Encoding: gzip\r\n";
            Some(bytes.len())
        }
        Some(BodyFault::Chunked) => {
            let chunk = |chunk: &[u8]| {
                [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
            };
            let last: &[u8] = &[];
            bytes = bytes
                .chunks(CHUNK_BYTES)
                .chain([last])
                .flat_map(chunk)
                .collect();
            headers += "Transfer-Encoding: chunked\r\n";
            None
        }
    };
    if let Some(length) = length {
        headers += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(headers.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(&bytes)?;
    Ok(stream.flush()?)
}
