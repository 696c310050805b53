//! The command `run`: simulates rounds of the policy and prints a row each.

use super::*;

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    degree: Degree,
    /// The number of refreshes.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// The cost of a path: `both` is the same as `latency` here.
    #[arg(long, value_enum, default_value_t = Model::Latency)]
    model: Model,
    /// The number of targets of the computed paths, drawn again in each part of a round: 512, above
    /// 1,000 nodes 64.
    #[arg(long)]
    targets: Option<usize>,
    /// The parts of a round. All nodes of a part decide on the same state.
    #[arg(long, default_value_t = net::PARTS)]
    parts: u32,
    /// The share of the nodes that fail in each round and start again in the next.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// In that round that share of the nodes dies for good.
    #[arg(long, value_name = "ROUND:SHARE", value_parser = pair::<f64>)]
    mass_death: Option<(u64, f64)>,
    /// The first round of a partition into two halves, and its length in rounds.
    #[arg(long, value_name = "ROUND:ROUNDS", value_parser = pair::<u64>)]
    partition: Option<(u64, u64)>,
    /// Share of the nodes that lose all their tunnels in every second round, at random.
    #[arg(long, default_value_t = 0.0)]
    flapping: f64,
    /// So many nodes claim that everything is at their place.
    #[arg(long, default_value_t = 0)]
    liars: usize,
    /// That share of the nodes is a third as far from everybody.
    #[arg(long, default_value_t = 0.0)]
    attractive: f64,
    /// One line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Write each round as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl Run {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut rng = Rng::new(self.place.seed);
        let space = self.place.space()?;
        let nodes = space.nodes();
        anyhow::ensure!(nodes < 1 << 20, "fewer than 2^20 nodes");
        let drawn = |rng: &mut Rng, count: usize| {
            chance::sample(rng, nodes, count)
                .into_iter()
                .map(num::number)
                .collect::<Vec<_>>()
        };
        let attractive = drawn(
            &mut rng,
            num::index(num::round_to_u32(num::many(nodes) * self.attractive)),
        );
        let space = match attractive.is_empty() {
            true => space,
            false => Space::Attractive(Box::new(space), attractive.into_iter().collect()),
        };
        let (link_cost, per_ms, unit) = match self.model {
            Model::Babel => (LinkCost::default(), 1.0, "mean metric"),
            Model::Latency | Model::Both => (compare::LATENCY, 10.0, "mean ms"),
        };
        let overlay = overlay::Overlay::random(&space, self.degree.limits(), link_cost, &mut rng);
        let settings = net::NetSettings {
            cost: link_cost,
            targets: self
                .targets
                .unwrap_or(if nodes > 1_000 { 64 } else { 512 })
                .max(2),
            parts: self.parts.max(1),
            seed: self.place.seed,
        };
        let mut net = net::Net::new(space, overlay, settings);
        net.liars = drawn(&mut rng, self.liars);
        let fate = run::Fate {
            rounds: self.rounds,
            churn: self.churn,
            mass_death: self.mass_death,
            partition: self.partition,
            flapping: self.flapping,
        };
        let course = run::run(&mut net, fate, self.place.seed, per_ms);
        output::say(&run::table(&course, unit))?;
        output::say(&format!(
            "dials refused {:.2} %, fullest node at {:.0} % of its limit, closings per slot and hour at most {}",
            course.refused_share * 100.0,
            course.fullest * 100.0,
            course.max_closings_per_slot_and_hour
        ))?;
        if self.liars > 0 {
            let (before, after) = course.through_liars;
            output::say(&format!(
                "paths that end at liars: {:.2} % at first, {:.2} % at the end",
                before * 100.0,
                after * 100.0
            ))?;
        }
        cost(began)?;
        write(self.csv.as_ref(), || run::csv(&course))?;
        if self.json {
            output::say(&serde_json::to_string(&course)?)?;
        }
        Ok(())
    }
}
