//! Answers of a UPnP gateway: the client reads them, or reports an error, in bounded time.

use igd_next::{
    SearchOptions,
    aio::{
        Gateway,
        tokio::{Tokio, search_gateway},
    },
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Time within which a search ends; an answer on the loopback takes a tenth of it.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(30);

/// The bytes with which the gateway answers each request.
type Answer = Arc<Mutex<Vec<u8>>>;

/// A gateway on the loopback, which answers searches and requests.
struct FakeGateway {
    http: SocketAddr,
    ssdp: SocketAddr,
    answer: Answer,
    runtime: tokio::runtime::Runtime,
}

thread_local! {
    static GATEWAY: FakeGateway = FakeGateway::start().unwrap_or_else(|error| unreachable!("no gateway on the loopback: {error}"));
}

/// The input is the body of each answer: of the description, of its services, and of the actions.
pub fn check(input: &[u8]) {
    GATEWAY.with(|gateway| gateway.check(input));
}

impl FakeGateway {
    fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let search = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (http, ssdp) = (listener.local_addr()?, search.local_addr()?);
        let answer = Answer::default();
        let shown = Arc::clone(&answer);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                answer_request(connection, &shown);
            }
        });
        thread::spawn(move || {
            let found = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{http}/root.xml\r\n\r\n");
            while let Ok((_, from)) = search.recv_from(&mut [0; 2048]) {
                drop(search.send_to(found.as_bytes(), from));
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            http,
            ssdp,
            answer,
            runtime,
        })
    }

    fn check(&self, input: &[u8]) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = input.to_vec();
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        options.broadcast_address = self.ssdp;
        options.timeout = Some(SEARCH_TIMEOUT);
        options.single_search_timeout = Some(SEARCH_TIMEOUT);
        let gateway = Gateway {
            addr: self.http,
            root_url: "/root.xml".to_owned(),
            control_url: "/control".to_owned(),
            control_schema_url: "/schema".to_owned(),
            control_schema: Default::default(),
            service_type: "urn:schemas-upnp-org:service:WANIPConnection:1".to_owned(),
            provider: Tokio,
        };
        self.runtime.block_on(async {
            drop(gateway.get_external_ip().await);
            drop(gateway.get_generic_port_mapping_entry(0).await);
            drop(search_gateway(options).await);
        });
    }
}

/// Reads the head of a request, and sends the answer.
fn answer_request(mut connection: std::net::TcpStream, answer: &Answer) {
    let mut head: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut buffer) {
            Ok(length @ 1..) => head.extend(buffer.iter().take(length)),
            Ok(0) | Err(_) => return,
        }
    }
    let body = answer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    drop(
        connection
            .write_all(head.as_bytes())
            .and_then(|()| connection.write_all(&body)),
    );
}
