//! Sends one HTTP request to a gateway, and reads the answer within limits.
//!
//! The client of igd-next discards an answer that is not UTF-8, or whose length is not the announced one. This one returns what
//! has arrived, since the parser reads a document up to its first error.

use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use igd_next::{RequestError, aio::Provider};
use reqwest::Url;
use std::{
    error::Error,
    io,
    io::Read,
    net::{Ipv6Addr, SocketAddrV6},
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use wire::upnp::{ActionResponse, parse_response};

/// Maximum duration of one exchange; descriptions that take two seconds have been reported.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of an answer, before and after decompression.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// From where a request by IPv6 is sent. A gateway compares the address with the one that the request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sources) struct Source {
    /// The address of this host.
    pub(in crate::sources) address: Ipv6Addr,
    /// The index of the link that leads to the gateway, whose address is mostly a link-local one.
    pub(in crate::sources) link: u32,
}

/// The request of an action: the value of the header SOAPAction, and the document.
pub(super) struct Soap<'a> {
    /// The quoted service type and action.
    pub(super) action: &'a str,
    /// The XML document of the request.
    pub(super) body: &'a str,
}

/// Fetches a document, or requests an action. The kernel chooses the address to send from, unless `source` says one.
pub(super) async fn exchange(
    url: &Url,
    source: Option<Source>,
    soap: Option<Soap<'_>>,
) -> io::Result<String> {
    match timeout(EXCHANGE_TIMEOUT, exchange_untimed(url, source, soap)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Connects to a host by its address or name, or, with a source, by its IPv6 address.
async fn connect(host: &str, port: u16, source: Option<Source>) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect((host, port)).await;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    let address = address.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let socket = TcpSocket::new_v6()?;
    socket.bind((source.address, 0).into())?;
    let gateway = SocketAddrV6::new(address, port, 0, source.link);
    socket.connect(gateway.into()).await
}

async fn exchange_untimed(
    url: &Url,
    source: Option<Source>,
    soap: Option<Soap<'_>>,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let host = url.host_str().ok_or("the address has no host")?;
    let port = url
        .port_or_known_default()
        .ok_or("the address has no port")?;
    let stream = connect(host, port, source).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the exchange: when the sender and the answer are dropped.
    tokio::spawn(connection);
    let path = url.query().map_or_else(
        || url.path().to_owned(),
        |query| format!("{}?{query}", url.path()),
    );
    let mut request = Request::builder()
        .uri(path)
        .header(HOST, format!("{host}:{port}"))
        .header(CONNECTION, "close");
    let mut body = Bytes::new();
    if let Some(soap) = soap {
        request = request
            .method("POST")
            .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header("SOAPAction", soap.action);
        body = Bytes::copy_from_slice(soap.body.as_bytes());
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    // An error of an action comes with status 500.
    let is_document = answer.status().is_success() || answer.status().as_u16() == 500;
    if !is_document {
        return Err(format!("{url} was answered with status {}", answer.status()).into());
    }
    read_body(answer).await
}

async fn read_body(mut answer: Response<Incoming>) -> Result<String, Box<dyn Error + Send + Sync>> {
    let encoding = answer.headers().get(CONTENT_ENCODING);
    let is_gzip = encoding.is_some_and(|encoding| encoding == "gzip");
    let mut bytes = Vec::new();
    while let Some(frame) = answer.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            // The connection ended before the announced length.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error.into()),
        };
        if bytes.len() + data.len() > MAX_ANSWER_BYTES {
            return Err("the answer is too large".into());
        }
        bytes.extend_from_slice(&data);
    }
    if is_gzip {
        let limit = u64::try_from(MAX_ANSWER_BYTES)?;
        let mut decoded = Vec::new();
        GzDecoder::new(bytes.as_slice())
            .take(limit)
            .read_to_end(&mut decoded)?;
        bytes = decoded;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Requests an action of igd-next, and hands it an answer without what is unusual in it.
///
/// igd-next rejects errors without a description and XML that is not well-formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CarefulProvider;

impl Provider for CarefulProvider {
    async fn send_async(url: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let url =
            Url::parse(url).map_err(|error| RequestError::InvalidResponse(error.to_string()))?;
        let answer = exchange(&url, None, Some(Soap { action, body })).await?;
        Ok(parse_response(&answer).map_or(answer, |response| response.to_envelope()))
    }
}

/// Requests an action that igd-next does not offer. The names and values of the arguments must need no escapes.
pub(in crate::sources) async fn request(
    url: &Url,
    source: Option<Source>,
    service_type: &str,
    action: &str,
    arguments: &[(&str, &str)],
) -> io::Result<ActionResponse> {
    let fields = arguments
        .iter()
        .map(|(name, value)| format!("<{name}>{value}</{name}>"));
    let fields: String = fields.collect();
    let body = format!(
        "<?xml version=\"1.0\"?>\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
         <u:{action} xmlns:u=\"{service_type}\">{fields}</u:{action}></s:Body></s:Envelope>"
    );
    let action = format!("\"{service_type}#{action}\"");
    let soap = Soap {
        action: &action,
        body: &body,
    };
    let answer = exchange(url, source, Some(soap)).await?;
    parse_response(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
