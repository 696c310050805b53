//! Tests which names two nodes learn from each other's certificates.

use super::*;
use membership::node_names::NodeNames;

/// Lets a client with the DNS names `of_client` call a server with the DNS names `of_server`, and compares the names that both
/// learn of each other.
fn check_learnt(
    of_server: &'static [&'static str],
    of_client: &'static [&'static str],
    expected: (Option<&'static str>, Option<&'static str>),
) {
    check(move || async move {
        let ca = Ca::new();
        let (at_server, at_client) = (NodeNames::default(), NodeNames::default());
        let credentials = ca.credentials_with_names(SERVER, of_server);
        let documents = DocumentStore::default();
        serve_with_credentials(&credentials, SERVER, documents, at_server.clone());
        let credentials = ca.credentials_with_names(CLIENT, of_client);
        let client = client_with_credentials(&credentials, at_client.clone());
        fetch_from_server(&client).await.unwrap();
        let learnt = (name_of(&at_client, SERVER), name_of(&at_server, CLIENT));
        assert_eq!((learnt.0.as_deref(), learnt.1.as_deref()), expected);
    });
}

#[test]
fn both_ends_learn_the_name_that_the_certificate_of_the_other_states() {
    check_learnt(&["web"], &["Printer"], (Some("web"), Some("printer")));
    check_learnt(&[], &[], (None, None));
    check_learnt(&["a_b"], &["web", "printer"], (None, None));
    check_learnt(&["web.example.org"], &["*"], (None, None));
}

#[test]
fn no_name_is_learnt_from_a_certificate_of_another_ca_or_node() {
    check(|| async {
        let (ca, other) = (Ca::new(), Ca::new());
        let (at_server, at_client) = (NodeNames::default(), NodeNames::default());
        let credentials = ca.credentials_with_names(SERVER, &["web"]);
        let documents = DocumentStore::default();
        serve_with_credentials(&credentials, SERVER, documents, at_server.clone());
        fetch_from_server(&client(&ca, CLIENT)).await.unwrap();
        for credentials in [
            other.credentials_with_names(CLIENT, &["printer"]),
            ca.credentials_with_names(9, &["printer"]),
        ] {
            let client = client_with_credentials(&credentials, at_client.clone());
            assert!(fetch_from_server(&client).await.is_err());
        }
        assert_eq!(at_server.load().nodes().count(), 0);
        assert_eq!(at_client.load().get(prefix(9)), None);
    });
}
