//! The calls by which nodes behind NATs open paths.

use super::{super::*, *};
use tokio::net::UdpSocket;
use wire::peer::{Seen, Token};

const TOKEN: Token = Token([7; 16]);

fn status_of<T>(answer: Result<T, PeerApiError>) -> Option<u16> {
    match answer {
        Err(PeerApiError::Http { source, .. }) => source.status().map(|status| status.as_u16()),
        Ok(_) | Err(_) => None,
    }
}

#[test]
fn an_observer_reports_the_source_of_datagrams_with_the_token_and_is_asked_once_a_second() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let client = client(&ca, CLIENT);
        fetch_from_server(&client).await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let send = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            loop {
                ticks.tick().await;
                for datagram in [Token([8; 16]).datagram(), TOKEN.datagram(), vec![0; 200]] {
                    let _ = socket.send_to(&datagram, ("127.0.0.1", UDP_PORT)).await;
                }
            }
        };
        let tokens = [TOKEN];
        let observed = tokio::select! {
            observed = client.observe(prefix(SERVER), &tokens) => observed.unwrap(),
            () = send => unreachable!("datagrams are sent for ever"),
        };
        let source = format!("udp:{}", socket.local_addr().unwrap());
        let expected = Seen {
            token: TOKEN,
            source: endpoint(&source),
        };
        assert_eq!(observed, [expected]);
        let again = client.observe(prefix(SERVER), &tokens).await;
        assert_eq!(status_of(again), Some(429));
    });
}

#[test]
fn a_node_opens_no_path_by_an_observer_that_is_not_its_own() {
    check(|| async {
        let ca = Ca::new();
        serve(&ca, SERVER, SERVER);
        let client = client(&ca, CLIENT);
        fetch_from_server(&client).await.unwrap();
        assert_eq!(client.fetch_observers(prefix(SERVER)).await.unwrap(), []);
        let answer = client
            .punch_hole(prefix(SERVER), prefix(OTHER), TOKEN)
            .await;
        assert_eq!(status_of(answer), Some(409));
    });
}
