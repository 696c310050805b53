//! The text of `warren why`: for each decision a sentence, then the numbers behind it.

use super::{
    format::{DRY_RUN, node, printable, split_numbers, utc_time},
    subject::Subject,
};
use policies::orders::{AbandonReason, CloseReason, OpenReason};
use wire::control::{DECISIONS_KEPT, DecisionEntry, DecisionsDocument, VerdictEntry};

/// Shows the decisions, then the verdicts; only those about the tunnel or node `subject`, if one is given.
pub(super) fn render(document: &DecisionsDocument, subject: Option<&Subject>) -> String {
    let is_selected = |slot: &str, peer: Option<&str>| match subject {
        None => true,
        Some(Subject::Tunnel(tunnel)) => slot == tunnel,
        Some(Subject::Node(node, _)) => peer == Some(node),
    };
    let decisions: Vec<String> = document
        .decisions
        .iter()
        .filter(|entry| is_selected(&entry.slot, entry.peer.as_deref()))
        .map(decision)
        .collect();
    let verdicts: Vec<String> = document
        .verdicts
        .iter()
        .filter(|entry| is_selected(&entry.slot, entry.peer.as_deref()))
        .map(verdict)
        .collect();
    let mut parts = Vec::new();
    if document.dry_run {
        parts.push(DRY_RUN.to_owned());
    }
    parts.push(if decisions.is_empty() {
        no_decisions(subject)
    } else {
        format!("Decisions, oldest first:\n{}", decisions.join("\n"))
    });
    if !verdicts.is_empty() {
        parts.push(format!("Tunnels at present:\n{}", verdicts.join("\n")));
    }
    parts.join("\n\n")
}

fn no_decisions(subject: Option<&Subject>) -> String {
    let about = subject.map_or(String::new(), |subject| format!(" about {subject}"));
    format!("No decision{about} is among the last {DECISIONS_KEPT} that the daemon keeps.")
}

/// One line with the sentence, and one with the labels of the metrics and the numbers.
fn decision(entry: &DecisionEntry) -> String {
    let (note, numbers) = split_numbers(&entry.terms);
    let mut sentence = explanation(&entry.order, &entry.reason)
        .unwrap_or_else(|| format!("{}, because: {}", entry.order, entry.reason));
    if !note.is_empty() {
        sentence = format!("{sentence} ({})", printable(note));
    }
    let (time, tunnel) = (
        utc_time(entry.at),
        tunnel(
            &entry.slot,
            entry.peer.as_deref(),
            entry.peer_name.as_deref(),
        ),
    );
    let labels = format!("order={} reason={}", entry.order, entry.reason);
    let numbers = printable(numbers);
    format!("{time}  {tunnel}: {sentence}\n    {labels} {numbers}")
}

/// One line with the policy's sentence, and one with the numbers, if there are any.
fn verdict(entry: &VerdictEntry) -> String {
    let (sentence, numbers) = split_numbers(&entry.text);
    let tunnel = tunnel(
        &entry.slot,
        entry.peer.as_deref(),
        entry.peer_name.as_deref(),
    );
    let first = format!("{tunnel}: {}", printable(sentence));
    if numbers.is_empty() {
        first
    } else {
        format!("{first}\n    {}", printable(numbers))
    }
}

fn tunnel(slot: &str, peer: Option<&str>, name: Option<&str>) -> String {
    peer.map_or(slot.to_owned(), |peer| {
        format!("{slot} to {}", node(peer, name))
    })
}

/// The sentence for an order and its reason; `None` for labels that only a newer daemon knows.
pub(super) fn explanation(order: &str, reason: &str) -> Option<String> {
    let close_reason = || {
        let reasons = CloseReason::ALL.iter();
        reasons.copied().find(|known| known.label() == reason)
    };
    match order {
        "open" => {
            let mut reasons = OpenReason::ALL.iter().copied();
            let known = reasons.find(|known| known.label() == reason)?;
            Some(format!("opened, because {}", open_cause(known)))
        }
        "drain" => close_reason().map(|known| {
            let cause = close_cause(known);
            format!("traffic moves away, then it closes, because {cause}")
        }),
        "undrain" => {
            let mut reasons = AbandonReason::ALL.iter().copied();
            let known = reasons.find(|known| known.label() == reason)?;
            Some(format!("kept after all, because {}", abandon_cause(known)))
        }
        // "closed" reports a tunnel that closed without an order.
        "close" | "closed" => {
            close_reason().map(|known| format!("closed, because {}", close_cause(known)))
        }
        "reconnected" => {
            Some("it came up again, because OpenVPN was restarted at either end".to_owned())
        }
        _ => None,
    }
}

fn open_cause(reason: OpenReason) -> &'static str {
    match reason {
        OpenReason::Bootstrap => "this node had no tunnel, or babeld knew no other node",
        OpenReason::Pinned => "the configuration lists this peer under neighbours",
        OpenReason::OnLan => "the peer is on a LAN of this host, and few tunnels lead over it",
        OpenReason::Fill => "more tunnels are wanted, and this peer was chosen by chance",
        OpenReason::Gain => "it shortens routes more than any other candidate would",
        OpenReason::MissingFromTable => "the peer is known, but babeld has no route to it",
    }
}

fn close_cause(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Unused => "it is used much less than the other tunnels",
        CloseReason::Replaced => "another peer would shorten routes by more than this one does",
        CloseReason::Rotation => {
            "one tunnel is exchanged now and then, so that a poor choice does not last"
        }
        CloseReason::Duplicate => "both nodes dialled each other, and one tunnel is enough",
        CloseReason::AroundLan => {
            "the peer answers on a LAN of this host, and this tunnel leads around it"
        }
        CloseReason::OverLimit => "more tunnels are dialled than the limit allows",
        CloseReason::PeerDead => "the peer does not answer any more",
        CloseReason::ProcessDied => "its OpenVPN process exited unexpectedly",
        CloseReason::DialFailed => "no connection to the peer came about",
        CloseReason::PeerClosed => "the peer rejected it or closed the session",
        CloseReason::SmallPacketsOnly => {
            "its path dropped large packets and their fragments, so the peer is dialled by TCP"
        }
        CloseReason::Revoked => "the peer's certificate is revoked",
        CloseReason::FalseRoutes => "the peer announces routes that cannot be its own",
        CloseReason::Renewed => {
            "certificates or keys have changed, and OpenVPN reads them only when it starts"
        }
        CloseReason::Shutdown => "the daemon stops",
    }
}

fn abandon_cause(reason: AbandonReason) -> &'static str {
    match reason {
        AbandonReason::Deadline => "traffic had not moved to other tunnels in time",
        AbandonReason::OnlyRoute => "it had become the only route to some node",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z",
        "verdicts":[{"slot":"wrn1","peer":"8/16","text":"kept: fair share; rate=4 B/s"}],
        "decisions":[{"number":1,"at":"2023-11-14T22:13:20.5Z","order":"drain","slot":"wrn0","peer":"9/16",
        "reason":"unused","terms":"usage=3 B/s"}]}"#;

    fn document() -> DecisionsDocument {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn a_sentence_stands_before_the_numbers() {
        let lines = [
            "Decisions, oldest first:",
            "2023-11-14 22:13:20Z  wrn0 to 9/16: traffic moves away, then it closes, because it is used much less \
             than the other tunnels",
            "    order=drain reason=unused usage=3 B/s",
            "",
            "Tunnels at present:",
            "wrn1 to 8/16: kept: fair share",
            "    rate=4 B/s",
        ];
        assert_eq!(render(&document(), None), lines.join("\n"));
    }

    #[test]
    fn a_dry_run_is_announced_first() {
        let (real, dry) = (
            document(),
            DecisionsDocument {
                dry_run: true,
                ..document()
            },
        );
        let expected = format!("{DRY_RUN}\n\n{}", render(&real, None));
        assert_eq!(render(&dry, None), expected);
    }

    #[test]
    fn only_the_tunnel_or_peer_that_was_asked_for_is_shown() {
        let about_peer = render(&document(), Some(&Subject::Node("8/16".into(), None)));
        assert!(
            about_peer.starts_with("No decision about 8/16") && about_peer.contains("kept"),
            "{about_peer}"
        );
        assert!(!render(&document(), Some(&Subject::Tunnel("wrn0".into()))).contains("kept"));
    }

    #[test]
    fn every_label_of_this_version_has_a_sentence_and_an_unknown_one_is_shown_as_it_is() {
        let close = CloseReason::ALL.iter().map(|reason| reason.label());
        for reason in close {
            assert!(explanation("drain", reason).is_some(), "{reason}");
            assert!(explanation("close", reason).is_some(), "{reason}");
            assert!(explanation("closed", reason).is_some(), "{reason}");
        }
        let mut newer = document();
        newer.decisions[0].reason = "eclipse".into();
        let text = render(&newer, None);
        assert!(text.contains("drain, because: eclipse"), "{text}");
    }
}
