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
    let (_, numbers) = split_numbers(&entry.terms);
    let (time, sentence) = (utc_time(entry.at), sentence(entry));
    let labels = format!("order={} reason={}", entry.order, entry.reason);
    let numbers = printable(numbers);
    format!("{time}  {sentence}\n    {labels} {numbers}")
}

/// The tunnel of a decision, and what was decided, with the reason.
pub(crate) fn sentence(entry: &DecisionEntry) -> String {
    let (note, _) = split_numbers(&entry.terms);
    let mut sentence = explanation(&entry.order, &entry.reason, &entry.terms)
        .unwrap_or_else(|| format!("{}, because: {}", entry.order, entry.reason));
    if !note.is_empty() {
        sentence = format!("{sentence} ({})", printable(note));
    }
    let tunnel = tunnel(
        &entry.slot,
        entry.peer.as_deref(),
        entry.peer_name.as_deref(),
    );
    format!("{tunnel}: {sentence}")
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

/// The sentence for an order and its reason, with the number that decided if the terms have it; `None` for labels that only a newer daemon knows.
pub(super) fn explanation(order: &str, reason: &str, terms: &str) -> Option<String> {
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
            let cause = close_cause_in_numbers(known, terms);
            format!("traffic moves away, then it closes, because {cause}")
        }),
        "undrain" => {
            let mut reasons = AbandonReason::ALL.iter().copied();
            let known = reasons.find(|known| known.label() == reason)?;
            Some(format!("kept after all, because {}", abandon_cause(known)))
        }
        // "closed" reports a tunnel that closed without an order.
        "close" | "closed" => close_reason().map(|known| {
            let (cause, moved) = (close_cause_in_numbers(known, terms), moved(terms));
            format!("closed, because {cause}{moved}")
        }),
        "reconnected" => {
            Some("it came up again, because OpenVPN was restarted at either end".to_owned())
        }
        _ => None,
    }
}

/// By which tunnel traffic to the peer leaves after a planned close, if the terms say so.
fn moved(terms: &str) -> String {
    let tunnel = value(terms, "moved_to");
    let metrics = value(terms, "metric").zip(value(terms, "metric_before"));
    let clause = tunnel.zip(metrics).map(|(tunnel, (metric, before))| {
        format!("; traffic moved to {tunnel}, which reaches the same node by a route of metric {metric} instead of {before}")
    });
    clause.map_or_else(String::new, |clause| printable(&clause))
}

fn open_cause(reason: OpenReason) -> &'static str {
    match reason {
        OpenReason::Bootstrap => "this node had no tunnel, or babeld knew no other node",
        OpenReason::Pinned => "the configuration lists this peer under neighbours",
        OpenReason::OnLan => "the peer is on a LAN of this host, and few tunnels lead over it",
        OpenReason::Operator => "an operator asked for it",
        OpenReason::HolePunched => {
            "both nodes are behind NATs, and opened a path by sending to each other at once"
        }
        OpenReason::Fill => "more tunnels are wanted, and this peer was chosen by chance",
        OpenReason::Gain => "it shortens routes more than any other candidate would",
        OpenReason::MissingFromTable => "the peer is known, but babeld has no route to it",
    }
}

/// The cause of a close, with the number that decided.
fn close_cause_in_numbers(reason: CloseReason, terms: &str) -> String {
    let number = match reason {
        CloseReason::Unused => value(terms, "share")
            .map(|share| format!("it carried {share} of a fair share")),
        CloseReason::Replaced => value(terms, "for")
            .zip(value(terms, "gain"))
            .map(|(peer, gain)| {
                format!("a tunnel to {peer} would shorten routes by {gain}, and this one is worth less than that")
            }),
        CloseReason::OverLimit => value(terms, "dialled")
            .zip(value(terms, "limit"))
            .map(|(dialled, limit)| format!("{dialled} tunnels are dialled, and the limit is {limit}")),
        CloseReason::Rotation
        | CloseReason::Duplicate
        | CloseReason::PeerDead
        | CloseReason::ProcessDied
        | CloseReason::DialFailed
        | CloseReason::PeerClosed
        | CloseReason::AroundLan
        | CloseReason::UdpAnswers
        | CloseReason::SmallPacketsOnly
        | CloseReason::Revoked
        | CloseReason::FalseRoutes
        | CloseReason::Renewed
        | CloseReason::Operator
        | CloseReason::Shutdown => None,
    };
    number.map_or_else(|| close_cause(reason).to_owned(), |text| printable(&text))
}

/// The value of a name in terms such as `share=31 % rate=2 B/s`: all up to the next name. `none` is no value.
fn value<'a>(terms: &'a str, name: &str) -> Option<&'a str> {
    let mut ends = terms.match_indices('=');
    let is_name = |(at, _): &(usize, &str)| {
        let before = terms.get(..*at).unwrap_or_default();
        before.rsplit(' ').next() == Some(name)
    };
    let (at, _) = ends.find(is_name)?;
    let rest = terms.get(at + 1..)?;
    let end = rest.find('=').map_or(rest.len(), |next| {
        rest.get(..next)
            .and_then(|text| text.rfind(' '))
            .unwrap_or(0)
    });
    let value = rest.get(..end)?.trim();
    (!value.is_empty() && value != "none").then_some(value)
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
        CloseReason::UdpAnswers => "this tunnel is by TCP, and the peer answers by UDP",
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
        CloseReason::Operator => "an operator asked for it",
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

    #[track_caller]
    fn check(reason: &str, terms: &str, expected: &str) {
        let sentence = explanation("closed", reason, terms).unwrap();
        assert_eq!(sentence, format!("closed, because {expected}"));
    }

    #[test]
    fn the_number_that_decided_stands_in_the_sentence() {
        let terms = "carried=1 B rate=2 B/s share=31 % threshold=50 %";
        check("unused", terms, "it carried 31 % of a fair share");
        check(
            "replaced",
            "for=9/16 gain=400 metric=96 carried=1 B",
            "a tunnel to 9/16 would shorten routes by 400, and this one is worth less than that",
        );
        check(
            "over_limit",
            "dialled=4 limit=3 carried=1 B",
            "4 tunnels are dialled, and the limit is 3",
        );
        check(
            "operator",
            "far_cost=none moved_to=wrn0 metric=192 metric_before=96",
            "an operator asked for it; traffic moved to wrn0, which reaches the same node by a route of metric 192 instead of 96",
        );
        for nothing in ["", "share=none ", "others_share=7 %", "share="] {
            check(
                "unused",
                nothing,
                "it is used much less than the other tunnels",
            );
        }
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
            assert!(explanation("drain", reason, "").is_some(), "{reason}");
            assert!(explanation("close", reason, "").is_some(), "{reason}");
            assert!(explanation("closed", reason, "").is_some(), "{reason}");
        }
        let mut newer = document();
        newer.decisions[0].reason = "eclipse".into();
        let text = render(&newer, None);
        assert!(text.contains("drain, because: eclipse"), "{text}");
    }
}
