//! Chooses the points at which daemons are killed from the names that one life has listed.

use std::collections::BTreeMap;

/// What a line of the log begins with that lists a point.
const LISTED: &str = "fault point: ";

/// The part of a daemon's life in which a point is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Start,
    /// The network's parameters change.
    Document,
    /// The certificate is renewed, since the node got another name.
    Renewal,
    Stop,
}

/// All phases, in the order of a life.
const PHASES: [Phase; 4] = [Phase::Start, Phase::Document, Phase::Renewal, Phase::Stop];

/// A point at which a daemon is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) name: String,
    /// Which hit of the name kills, from 1.
    pub(super) hit: u32,
    pub(super) phase: Phase,
}

/// The names of the points that a part of a log lists, in their order.
pub(super) fn listed_names(log: &str) -> Vec<String> {
    let names = log.lines().filter_map(|line| line.strip_prefix(LISTED));
    names.map(str::to_owned).collect()
}

/// The points of all phases. Of names that differ only in numbers, such as those of links, the first and the last one of a phase are
/// chosen, and of each name its first hit in the phase.
pub(super) fn select(phases: &[Vec<String>]) -> Vec<Point> {
    let mut hits: BTreeMap<&str, u32> = BTreeMap::new();
    let mut chosen = Vec::new();
    for (phase, names) in PHASES.into_iter().zip(phases) {
        let earlier = hits.clone();
        let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in names {
            *hits.entry(name).or_default() += 1;
            let same = kinds.entry(without_digits(name)).or_default();
            if !same.contains(&name.as_str()) {
                same.push(name);
            }
        }
        for same in kinds.values() {
            let ends = [same.first(), same.last().filter(|_| same.len() > 1)];
            let points = ends.into_iter().flatten().map(|name| Point {
                name: (*name).to_owned(),
                hit: earlier.get(name).copied().unwrap_or_default() + 1,
                phase,
            });
            chosen.extend(points);
        }
    }
    chosen
}

fn without_digits(name: &str) -> String {
    name.chars()
        .filter(|letter| !letter.is_ascii_digit())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_of_similar_points_are_chosen_in_each_phase() {
        let start = "fault point: create link wrn0\nfault point: create link wrn1\nfault point: create link wrn2\nother line\n";
        let stop = "fault point: create link wrn0\nfault point: remove control.sock\n";
        let none = Vec::new();
        let phases = [listed_names(start), none.clone(), none, listed_names(stop)];
        let point = |name: &str, hit, phase| Point {
            name: name.to_owned(),
            hit,
            phase,
        };
        let expected = [
            point("create link wrn0", 1, Phase::Start),
            point("create link wrn2", 1, Phase::Start),
            point("create link wrn0", 2, Phase::Stop),
            point("remove control.sock", 1, Phase::Stop),
        ];
        assert_eq!(select(&phases), expected);
    }
}
